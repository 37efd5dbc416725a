"""Quantiles of tensors of any size; ``torch.quantile`` takes no more than 2^24 values."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["quantile"]


def quantile(values: Tensor, q: float, start_dim: int = 1) -> Tensor:
    """The quantile of all that comes at and after a dimension, linear between ranks; these dimensions are kept as 1.

    Args:
        values: (B, …).
        q: in [0, 1].
        start_dim: 1 for one quantile a case, 2 for one a case and channel.
    """
    ranked = values.flatten(start_dim).sort(dim=-1).values
    position = q * (ranked.shape[-1] - 1)
    low = math.floor(position)
    high = min(low + 1, ranked.shape[-1] - 1)
    result = torch.lerp(ranked[..., low], ranked[..., high], position - low)
    return result.reshape(*result.shape, *(1,) * (values.ndim - start_dim))
