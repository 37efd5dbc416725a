"""Simplex noise: smooth random fields of several wavelengths (Wyatt et al. 2022, AnoDDPM).

The fields are those of OpenSimplex (K. Spencer, 2014): every vertex of a lattice has a random gradient, and a point
sees the vertices nearer than √2, each with weight (2 - d²)⁴. Which vertices a pixel sees, and how much of them, depends
on the size of the image alone. So a field is a sparse matrix, built once for a size, times the gradients of a seed.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from common.diffusion.noise.gaussian import Generators, device_of, draw_cases, opposed
from common.errors import InputError
from common.options import number, whole_number

__all__ = ["SimplexNoise", "simplex_field"]

# By dimension: the gradients in the order of the original, and the constant that brings its range to about [-1, 1].
_SIGNS_2D = [(1, 1), (-1, 1), (1, -1), (-1, -1)]
_SIGNS_3D = [(-1, 1, 1), (1, 1, 1), (-1, -1, 1), (1, -1, 1), (-1, 1, -1), (1, 1, -1), (-1, -1, -1), (1, -1, -1)]
_GRADIENTS = {
    2: np.array([np.multiply(sign, size) for sign in _SIGNS_2D for size in [(5, 2), (2, 5)]], dtype=np.float32),
    3: np.array(
        [np.multiply(sign, size) for sign in _SIGNS_3D for size in [(11, 4, 4), (4, 11, 4), (4, 4, 11)]],
        dtype=np.float32,
    ),
}
_NORM = {2: 47.0, 3: 103.0}


class _Plane(NamedTuple):
    """Where the pixels of a plane look: rows of a sparse matrix, pixel after pixel.

    ``vertices`` (V, D) are lattice coordinates; ``columns`` and ``weights`` (N,) are the entries of the matrix, column
    D v + i standing for the i-th component of the gradient of vertex v; ``starts`` (P,) are the pixels' first entries.
    """

    vertices: np.ndarray
    columns: Tensor
    weights: Tensor
    starts: Tensor


def _permutations(seeds: Sequence[int]) -> np.ndarray:
    """The table of 256 shuffled numbers of each 64-bit seed, (B, 256), with the original's congruential generator."""
    state = np.array([(seed + 2**63) % 2**64 - 2**63 for seed in seeds], dtype=np.int64)
    source = np.tile(np.arange(256), (len(seeds), 1))
    table, case = np.empty_like(source), np.arange(len(seeds))
    multiplier, increment = np.int64(6364136223846793005), np.int64(1442695040888963407)
    for _ in range(3):
        state = state * multiplier + increment  # wraps around, as it should
    for last in range(255, -1, -1):
        state = state * multiplier + increment
        chosen = (state % (last + 1) + 31) % (last + 1)
        table[:, last] = source[case, chosen]
        source[case, chosen] = source[:, last]
    return table


def _gradients(seeds: Sequence[int], vertices: np.ndarray) -> np.ndarray:
    """The gradient of each vertex (V, D) for each seed: (V, D, B)."""
    table = _permutations(seeds)
    hashed = np.zeros((len(seeds), len(vertices)), dtype=np.int64)
    for coordinate in vertices.T:
        hashed = np.take_along_axis(table, (hashed + coordinate) & 255, axis=1)
    gradients = _GRADIENTS[vertices.shape[1]]
    chosen = (hashed & 14) // 2 if vertices.shape[1] == 2 else hashed % len(gradients)
    return gradients[chosen].transpose(1, 2, 0)


def _plane(size: tuple[int, int], octaves: int, persistence: float, wavelength: float, z: float | None) -> _Plane:
    """Build the matrix for a plane of ``size`` (rows, columns); with ``z`` it lies in the field of three dimensions."""
    dims = 2 if z is None else 3
    stretch, squish = ((1 / (dims + 1) ** 0.5 - 1) / dims, ((dims + 1) ** 0.5 - 1) / dims)
    row, column = np.meshgrid(np.arange(size[0], dtype=np.float64), np.arange(size[1], dtype=np.float64), indexing="ij")
    axes = [column, row] if z is None else [column, row, np.full_like(row, z)]
    pixels = np.stack(axes, axis=-1).reshape(-1, 1, dims)
    cube = np.array(list(itertools.product((-1, 0, 1, 2), repeat=dims)))
    # Of the cube around a point's cell only these are ever within √2.
    nearby = cube[(np.ptp(cube, axis=1) <= 2) & (cube.sum(axis=1) >= 0) & (cube.sum(axis=1) <= dims)]
    found = []
    for octave in range(octaves):
        point = pixels * (2**octave / wavelength)
        vertex = np.floor(point + stretch * point.sum(axis=-1, keepdims=True)).astype(np.int64) + nearby
        distance = point - vertex - squish * vertex.sum(axis=-1, keepdims=True)
        reach = np.maximum(2 - np.einsum("pvi,pvi->pv", distance, distance), 0)
        pixel, neighbour = reach.nonzero()
        scale = persistence**octave / _NORM[dims] * reach[pixel, neighbour] ** 4
        found.append((pixel, vertex[pixel, neighbour], scale[:, None] * distance[pixel, neighbour]))
    pixel, vertex, weight = (np.concatenate(parts) for parts in zip(*found, strict=True))
    order = np.argsort(pixel, kind="stable")
    lowest, extent = vertex.min(axis=0), np.ptp(vertex, axis=0) + 1
    codes = np.ravel_multi_index(tuple((vertex[order] - lowest).T), tuple(extent))
    codes, index = np.unique(codes, return_inverse=True)
    vertices = np.stack(np.unravel_index(codes, tuple(extent)), axis=1) + lowest
    columns = index.reshape(-1, 1) * dims + np.arange(dims)
    starts = dims * np.searchsorted(pixel[order], np.arange(size[0] * size[1]))
    return _Plane(
        vertices,
        torch.from_numpy(columns.reshape(-1).astype(np.int32)),
        torch.from_numpy(weight[order].astype(np.float32).reshape(-1)),
        torch.from_numpy(starts.astype(np.int32)),
    )


_kept_plane = lru_cache(maxsize=2)(_plane)


def _evaluate(plane: _Plane, seeds: Sequence[int], size: tuple[int, int]) -> Tensor:
    gradients = torch.from_numpy(_gradients(seeds, plane.vertices).reshape(-1, len(seeds)))
    field = F.embedding_bag(plane.columns, gradients, plane.starts, mode="sum", per_sample_weights=plane.weights)
    return field.T.reshape(len(seeds), *size)


def simplex_field(
    seeds: Sequence[int],
    size: tuple[int, int],
    *,
    octaves: int = 6,
    persistence: float = 0.8,
    wavelength: float = 64.0,
    z: float | None = None,
) -> Tensor:
    """Fractal simplex noise on a plane: Σ_o persistence^o · S(2^o · p / wavelength).

    Args:
        seeds: 64-bit integers, one a field.
        size: rows and columns. The column is the first coordinate of S, the row the second.
        octaves: number of terms.
        persistence: what the amplitude is multiplied by from term to term.
        wavelength: of the first term in pixels; it halves from term to term.
        z: third coordinate in pixels; ``None`` takes the function of two dimensions.

    Returns:
        (len(seeds), rows, columns), float32, on the CPU. Not of unit variance: the standard deviation is about 0.5.
    """
    return _evaluate(_kept_plane(size, octaves, persistence, wavelength, z), seeds, size)


@dataclass(frozen=True)
class SimplexNoise:
    """Simplex noise in place of Gaussian (Wyatt et al. 2022): one field a case and channel.

    Volumes (B, C, x, y, z) get the function of three dimensions, so that neighbouring slices fit.

    Args:
        octaves: number of wavelengths.
        persistence: what the amplitude is multiplied by from one wavelength to the next.
        wavelength: the longest one, in pixels; each next one is half as long.
        dimensions: 3 cuts slices out of the function of three dimensions, as AnoDDPM and THOR do; 2 takes the one of
            two, as pDDPM and its relatives do, for slices only.
        plane: third coordinate of the cut, in pixels. At 0 the first pixel lies on a vertex of the lattice of every
            wavelength, where noise is always zero.
        shared: one field for all cases of a batch, as published. Results then depend on the batch.

    Raises:
        InputError: dimensions other than 2 and 3, no octave, a persistence or wavelength that is none; in the call, a
            volume with ``dimensions=2``.
    """

    octaves: int = 6
    persistence: float = 0.8
    wavelength: float = 64.0
    dimensions: int = 3
    plane: float = 100.0
    shared: bool = False

    def __post_init__(self) -> None:
        if self.dimensions not in (2, 3):
            raise InputError(f"simplex noise of {self.dimensions} dimensions", "is not there", "use 2 or 3")
        whole_number("octaves", self.octaves, 1)
        number("persistence", self.persistence, 0)
        if number("wavelength", self.wavelength) <= 0:
            raise InputError(f"wavelength {self.wavelength}", "is not above 0", "give the longest one, in pixels")

    def __call__(self, x: Tensor, generator: Generators = None) -> Tensor:
        """Return a field a case and channel, of the shape of ``x``."""
        channels, size = x.shape[1], (x.shape[2], x.shape[3])
        seeds = draw_cases(
            x[:1] if self.shared else x,
            generator[:1] if self.shared and isinstance(generator, Sequence) else generator,
            lambda g: torch.randint(2**62, (channels,), generator=g, device=device_of(g)),
        )
        flat = seeds.flatten().tolist()
        terms = (self.octaves, self.persistence, self.wavelength)
        if x.ndim == 4:
            plane = _kept_plane(size, *terms, self.plane if self.dimensions == 3 else None)
            field = _evaluate(plane, flat, size)
        elif self.dimensions == 3:
            planes = [_evaluate(_plane(size, *terms, float(z)), flat, size) for z in range(x.shape[-1])]
            field = torch.stack(planes, dim=-1)
        else:
            raise InputError("simplex noise of 2 dimensions", "does not fill a volume", "use 'simplex3d'")
        return opposed(field.reshape(-1, channels, *x.shape[2:]).expand_as(x).to(x), generator)
