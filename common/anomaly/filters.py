"""Filters on maps (B, C, …) in torch, in 2-D and 3-D, each case by itself."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from common.separable import gaussian_kernel, separable_filter

__all__ = ["dilate", "gaussian_smooth", "grey_closing", "opencv_blur", "quantile"]

# OpenCV's own kernels for small sizes; they are not those of its formula for sigma.
_OPENCV_KERNELS = {
    1: [1.0],
    3: [0.25, 0.5, 0.25],
    5: [0.0625, 0.25, 0.375, 0.25, 0.0625],
    7: [0.03125, 0.109375, 0.21875, 0.28125, 0.21875, 0.109375, 0.03125],
    9: [value / 256 for value in (4, 13, 30, 51, 60, 51, 30, 13, 4)],
}


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


def opencv_blur(x: Tensor, size: int) -> Tensor:
    """Gaussian filter as OpenCV's where no sigma is given: values beyond the border are mirrored without the edge.

    Args:
        x: (B, C, …).
        size: odd side of the kernel in voxels, from which sigma follows.
    """
    if size in _OPENCV_KERNELS:
        kernel = torch.tensor(_OPENCV_KERNELS[size], dtype=torch.float64)
    else:
        kernel = gaussian_kernel(0.3 * ((size - 1) / 2 - 1) + 0.8, size // 2)
    return separable_filter(x, kernel, "reflect")


def quantile(x: Tensor, q: float) -> Tensor:
    """Quantile of each case, linear between ranks, shaped (B, 1, …) to compare with ``x``; any number of voxels."""
    values = x.flatten(1).sort(dim=1).values
    position = q * (values.shape[1] - 1)
    low = math.floor(position)
    high = min(low + 1, values.shape[1] - 1)
    result = torch.lerp(values[:, low], values[:, high], position - low)
    return result.reshape(-1, *(1,) * (x.ndim - 1))
