"""Noise with blobs of another brightness: synthetic anomalies that a network learns to take away (Bi et al. 2025)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from common.diffusion.noise.gaussian import Generators, device_of, draw_cases, gaussian_noise
from common.errors import InputError
from common.separable import gaussian_kernel, separable_filter

__all__ = ["SynomalyNoise"]


@dataclass(frozen=True)
class SynomalyNoise:
    """Gaussian noise, brighter or darker by a random amount inside random blobs.

    The blobs are where the same noise, blurred and stretched to [0, 255], exceeds a threshold, inside the body: where
    the image in the model's range is above -1. Every channel has its own blobs.

    Args:
        sigma: of the blur in pixels; how large blobs are.
        threshold: on the stretched blur, 0 to 255; how rare they are.
        offset: least change of brightness, in units of the noise.
        direction: 1 for brighter blobs, -1 for darker ones; 0 for one or the other, drawn for each image.

    Raises:
        InputError: another direction, at construction.
    """

    sigma: float = 3.0
    threshold: float = 175.0
    offset: float = 0.5
    direction: float = 1.0

    def __post_init__(self) -> None:
        if self.direction not in (-1, 0, 1):
            raise InputError(f"direction {self.direction!r}", "is none", "give 1 (brighter), -1 (darker) or 0 (both)")

    def __call__(self, x: Tensor, generator: Generators = None) -> Tensor:
        """Return a fresh draw of the shape of ``x`` (B, C, …), an image in [-1, 1]."""
        noise = gaussian_noise(x, generator)
        change = draw_cases(x, generator, self._change)
        return self.combine(noise, change.to(x), x > -1)

    def _change(self, generator: torch.Generator | None) -> Tensor:
        """The change of brightness inside the blobs of one image."""

        def uniform() -> Tensor:
            return torch.rand((), generator=generator, device=device_of(generator))

        size = self.offset + uniform()
        return size * (self.direction or torch.where(uniform() < 0.5, 1.0, -1.0))

    def combine(self, noise: Tensor, change: Tensor, region: Tensor) -> Tensor:
        """Add blobs to noise.

        Args:
            noise: standard normal (B, C, …).
            change: of brightness in the blobs of each image (B,), in units of the noise.
            region: true where blobs may be, of the shape of ``noise`` or one that broadcasts to it.
        """
        # In double precision, and with OpenCV's size of kernel, so that a voxel at the threshold falls as published.
        kernel = gaussian_kernel(self.sigma, (round(8 * self.sigma + 1) | 1) // 2)
        blurred = separable_filter(noise.double(), kernel, "reflect").flatten(2)
        low, high = blurred.amin(dim=2, keepdim=True), blurred.amax(dim=2, keepdim=True)
        stretched = (blurred - low) / (high - low).clamp(min=1e-12) * 255
        blobs = (stretched > self.threshold).reshape(noise.shape) & region
        return noise + blobs * change.reshape(-1, *(1,) * (noise.ndim - 1))
