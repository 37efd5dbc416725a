"""Filters on maps (B, C, …) in torch, in 2-D and 3-D, each case by itself."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from common.separable import gaussian_kernel, separable_filter

__all__ = ["dilate", "gaussian_smooth", "grey_closing", "quantile"]


def _max_pool(x: Tensor, size: int) -> Tensor:
    pool = F.max_pool2d if x.ndim == 4 else F.max_pool3d
    return pool(x, size, stride=1, padding=size // 2)


def dilate(x: Tensor, size: int) -> Tensor:
    """Grey dilation with a flat cube of odd ``size``; beyond the border counts as the border's own value."""
    return _max_pool(x, size)


def grey_closing(x: Tensor, size: int) -> Tensor:
    """Grey dilation followed by grey erosion with a flat cube of odd ``size``."""
    return -_max_pool(-_max_pool(x, size), size)


def gaussian_smooth(x: Tensor, sigma: float, truncate: float = 4.0) -> Tensor:
    """Gaussian filter along every spatial axis; values beyond the border are mirrored, the edge included.

    Args:
        x: (B, C, …).
        sigma: in voxels; 0 returns ``x``.
        truncate: radius of the kernel in ``sigma``.
    """
    radius = int(truncate * sigma + 0.5)
    if radius == 0:
        return x
    return separable_filter(x, gaussian_kernel(sigma, radius), "symmetric")


def quantile(x: Tensor, q: float) -> Tensor:
    """Quantile of each case, linear between ranks, shaped (B, 1, …) to compare with ``x``; any number of voxels."""
    values = x.flatten(1).sort(dim=1).values
    position = q * (values.shape[1] - 1)
    low = math.floor(position)
    high = min(low + 1, values.shape[1] - 1)
    result = torch.lerp(values[:, low], values[:, high], position - low)
    return result.reshape(-1, *(1,) * (x.ndim - 1))
