"""Noise with blobs of another brightness: synthetic anomalies that a network learns to take away (Bi et al. 2025)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from common.diffusion.noise.gaussian import Generators, device_of, draw_cases, gaussian_noise
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
        direction: 1 for brighter blobs, -1 for darker ones.
    """

    sigma: float = 3.0
    threshold: float = 175.0
    offset: float = 0.5
    direction: float = 1.0

    def __call__(self, x: Tensor, generator: Generators = None) -> Tensor:
        """Return a fresh draw of the shape of ``x`` (B, C, …), an image in [-1, 1]."""
        noise = gaussian_noise(x, generator)
        strength = draw_cases(x, generator, lambda g: torch.rand((), generator=g, device=device_of(g)))
        return self.combine(noise, strength.to(x), x > -1)

    def combine(self, noise: Tensor, strength: Tensor, region: Tensor) -> Tensor:
        """Add blobs to noise.

        Args:
            noise: standard normal (B, C, …).
            strength: change of brightness beyond the offset (B,), in [0, 1).
            region: true where blobs may be, of the shape of ``noise`` or one that broadcasts to it.
        """
        # In double precision, and with OpenCV's size of kernel, so that a voxel at the threshold falls as published.
        kernel = gaussian_kernel(self.sigma, (round(8 * self.sigma + 1) | 1) // 2)
        blurred = separable_filter(noise.double(), kernel, "reflect").flatten(2)
        low, high = blurred.amin(dim=2, keepdim=True), blurred.amax(dim=2, keepdim=True)
        stretched = (blurred - low) / (high - low).clamp(min=1e-12) * 255
        blobs = (stretched > self.threshold).reshape(noise.shape) & region
        change = self.direction * (strength + self.offset)
        return noise + blobs * change.reshape(-1, *(1,) * (noise.ndim - 1))
