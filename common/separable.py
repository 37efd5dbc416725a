"""Filters that are a product of one kernel an axis, in torch, on (B, C, …) in 2-D and 3-D."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["gaussian_kernel", "separable_filter"]


def gaussian_kernel(sigma: float, radius: int) -> Tensor:
    """The 2 ``radius`` + 1 weights of a Gaussian of ``sigma`` pixels, normalised, in double precision."""
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
    kernel = torch.exp(-(offsets**2) / (2 * sigma**2))
    return kernel / kernel.sum()


def separable_filter(x: Tensor, kernel: Tensor, border: Literal["symmetric", "reflect"]) -> Tensor:
    """Filter along every spatial axis.

    Args:
        x: (B, C, …).
        kernel: an odd number of weights.
        border: values beyond it are mirrored, with the edge itself (``symmetric``) or without (``reflect``); a kernel
            may be larger than the image.
    """
    radius, kernel = len(kernel) // 2, kernel.to(x)
    for axis in range(2, x.ndim):
        size = x.shape[axis]
        edge = 1 if border == "symmetric" else 0  # how often the edge itself comes back
        period = max(2 * (size - 1 + edge), 1)
        index = torch.arange(-radius, size + radius, device=x.device) % period
        index = torch.where(index < size, index, period - edge - index)
        padded = x.index_select(axis, index).movedim(axis, -1)
        smooth = F.conv1d(padded.reshape(-1, 1, padded.shape[-1]), kernel[None, None])
        x = smooth.reshape(*padded.shape[:-1], size).movedim(-1, axis)
    return x
