"""Noise with structure larger than a voxel, drawn on small grids and enlarged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from common.diffusion.noise.gaussian import Generators, device_of, draw_cases, opposed, standard_normal

__all__ = ["CoarseNoise", "PyramidNoise"]

_LINEAR = {2: "bilinear", 3: "trilinear"}


def _enlarge(grid: Tensor, size: Sequence[int], align_corners: bool) -> Tensor:
    return F.interpolate(grid[None], tuple(size), mode=_LINEAR[len(size)], align_corners=align_corners)[0]


@dataclass(frozen=True)
class CoarseNoise:
    """Gaussian values on a coarse grid, enlarged linearly and shifted in a circle (Kascenas et al. 2022).

    Each case and channel has its own grid, each case its own shift.

    Args:
        resolution: side of the grid, along every axis.
        std: of the values on the grid, in the units of the image that the noise is added to. The published 0.2 is for
            images in [0, 1]; in the model's range of [-1, 1] the same noise is twice that.
    """

    resolution: int = 16
    std: float = 0.2

    def __call__(self, x: Tensor, generator: Generators = None) -> Tensor:
        """Return a fresh draw of the shape of ``x`` (B, C, …); between grid points its spread is below ``std``."""
        channels, size = x.shape[1], x.shape[2:]

        def draw(g: torch.Generator | None) -> Tensor:
            grid = self.std * standard_normal((channels, *[self.resolution] * len(size)), g)
            shifts = [int(torch.randint(side, (), generator=g, device=device_of(g))) for side in size]
            return _enlarge(grid, size, align_corners=True).roll(shifts, dims=tuple(range(1, len(size) + 1)))

        return opposed(draw_cases(x, generator, draw).to(x), generator)


@dataclass(frozen=True)
class PyramidNoise:
    """Gaussian noise of many resolutions, of unit variance (J. Whitaker, 2023), with which ANDi trains.

    White noise, plus a pyramid whose level i = 0, 1, … weighs ``discount`` to the i. Level 0 is white noise again; the
    sides of level i are those of level i - 1 over r^i, with r drawn from [2, 4) anew, until a side is 1. The sum is
    divided by its own standard deviation, of each case by itself.

    Args:
        discount: weight of a level over that of the one before.
    """

    discount: float = 0.8

    def __call__(self, x: Tensor, generator: Generators = None) -> Tensor:
        """Return a fresh draw of the shape of ``x`` (B, C, …)."""
        channels, size = x.shape[1], x.shape[2:]

        def draw(g: torch.Generator | None) -> Tensor:
            noise = standard_normal(x.shape[1:], g) + standard_normal(x.shape[1:], g)
            sides, level = list(size), 0
            while min(sides) > 1:
                level += 1
                ratio = 2 + 2 * float(torch.rand((), generator=g, device=device_of(g)))
                sides = [max(1, int(side / ratio**level)) for side in sides]
                grid = standard_normal((channels, *sides), g)
                noise += self.discount**level * _enlarge(grid, size, align_corners=False)
            return noise / noise.std()

        return opposed(draw_cases(x, generator, draw).to(x), generator)
