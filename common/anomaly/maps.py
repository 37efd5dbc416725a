"""Anomaly maps: how far an image is from its pseudo-healthy version, voxel by voxel.

A map is a function of two images (B, C, …) in [0, 1] that returns (B, 1, …), raw and not negative. It is never
scaled by its own extremes: the same number means the same in every image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from monai.metrics.regression import compute_ssim_and_cs
from torch import Tensor

from common.anomaly.filters import gaussian_smooth, tv_denoise
from common.errors import InputError
from common.options import choice

__all__ = [
    "MAPS",
    "AnomalyMap",
    "Polarity",
    "get_map",
    "harmonic_mean",
    "magnitude",
    "residual",
    "smooth_residual",
    "squared",
    "ssim",
    "tv_residual",
]

AnomalyMap = Callable[[Tensor, Tensor], Tensor]
Polarity = Literal["both", "bright", "dark"]


def residual(image: Tensor, healthy: Tensor, polarity: Polarity = "both") -> Tensor:
    """Absolute difference, mean over channels; ``bright`` and ``dark`` keep only what is above or below healthy.

    Raises:
        InputError: unknown polarity.
    """
    return magnitude(image - healthy, polarity)


def magnitude(difference: Tensor, polarity: Polarity = "both") -> Tensor:
    """Absolute value of a signed difference (B, C, …), of one sign or both, mean over channels: (B, 1, …).

    Raises:
        InputError: unknown polarity.
    """
    choice("polarity", polarity, get_args(Polarity))
    if polarity == "bright":
        difference = difference.clamp(min=0)
    elif polarity == "dark":
        difference = difference.clamp(max=0)
    return difference.abs().mean(dim=1, keepdim=True)


def smooth_residual(image: Tensor, healthy: Tensor, sigma: float = 1.5) -> Tensor:
    """Absolute value of the smoothed difference, mean over channels: errors of both signs cancel, lesions do not.

    Args:
        image: (B, C, …).
        healthy: (B, C, …).
        sigma: of the Gaussian, in voxels.
    """
    return gaussian_smooth(image - healthy, sigma).abs().mean(dim=1, keepdim=True)


def tv_residual(image: Tensor, healthy: Tensor, polarity: Polarity = "both", weight: float = 0.15) -> Tensor:
    """Magnitude of the difference after total-variation denoising: noise of both signs goes, edges of lesions stay.

    Args:
        image: (B, C, …).
        healthy: (B, C, …).
        polarity: see ``residual``.
        weight: of the total variation, in units of the image.

    Raises:
        InputError: unknown polarity.
    """
    return magnitude(tv_denoise(image - healthy, weight), polarity)


def squared(image: Tensor, healthy: Tensor) -> Tensor:
    """Squared difference, mean over channels."""
    return (image - healthy).square().mean(dim=1, keepdim=True)


def ssim(image: Tensor, healthy: Tensor, window: int = 11) -> Tensor:
    """Structural dissimilarity (1 - SSIM) / 2, Gaussian window, in [0, 1], mean over channels (Wang et al. 2004)."""
    margin = [window // 2] * (2 * (image.ndim - 2))
    pair = [F.pad(each, margin, mode="replicate") for each in (image, healthy)]
    similarity, _ = compute_ssim_and_cs(
        pair[0],
        pair[1],
        spatial_dims=image.ndim - 2,
        kernel_size=[window] * (image.ndim - 2),
        kernel_sigma=[1.5] * (image.ndim - 2),
        data_range=1.0,
    )
    return ((1 - similarity) / 2).clamp(min=0).mean(dim=1, keepdim=True)


MAPS: dict[str, AnomalyMap] = {
    "residual": residual,
    "residual_bright": partial(residual, polarity="bright"),
    "residual_dark": partial(residual, polarity="dark"),
    "residual_smooth": smooth_residual,
    "residual_tv": tv_residual,
    "residual_tv_bright": partial(tv_residual, polarity="bright"),
    "residual_tv_dark": partial(tv_residual, polarity="dark"),
    "squared": squared,
    "ssim": ssim,
}


def get_map(name: str, extra: dict[str, AnomalyMap] | None = None) -> AnomalyMap:
    """The map called ``name``, or the product of several: ``"residual*feature"``.

    Args:
        name: a key of ``MAPS`` or ``extra``, or several joined by ``*``.
        extra: maps that belong to a network, by name (``feature``, ``lpips``).

    Raises:
        InputError: no such map.
    """
    known = {**MAPS, **(extra or {})}
    factors = [part.strip() for part in str(name).split("*")]
    unknown = [part for part in factors if part not in known]
    if unknown:
        remedy = f"choose from {sorted(known)}, or a product a*b"
        raise InputError(f"anomaly map '{name}'", f"{unknown} not known", remedy)
    return lambda image, healthy: reduce(torch.mul, (known[part](image, healthy) for part in factors))


def harmonic_mean(maps: Sequence[Tensor]) -> Tensor:
    """Harmonic mean of maps (B, 1, …): high only where all are high; 0 where one is 0."""
    return len(maps) / torch.stack([1 / each for each in maps]).sum(dim=0)
