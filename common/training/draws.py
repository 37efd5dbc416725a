"""What synthetic changes of images are made of: random numbers a case, places, lines along an axis; whole batches."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["along", "random_integers", "random_places", "uniform"]


def uniform(count: int, generators: Sequence[torch.Generator], device: torch.device) -> Tensor:
    """``count`` numbers in [0, 1) a case, (B, count), each case from its own generator."""
    return torch.stack([torch.rand(count, generator=each, device=each.device) for each in generators]).to(device)


def random_integers(low: Tensor | int, high: Tensor | int, fraction: Tensor) -> Tensor:
    """Integers from ``low`` to ``high``, both included, evenly, by numbers ``fraction`` in [0, 1); long."""
    return (low + fraction * (high - low + 1)).floor().long().clamp(max=high)


def random_places(mask: Tensor, fraction: Tensor) -> Tensor:
    """A true voxel of each mask (B, …), evenly, by one number in [0, 1) each (B,): indices (B, axes).

    Of a mask without a true voxel, the first one.
    """
    ranks = mask.flatten(1).cumsum(dim=1)
    wanted = random_integers(1, ranks[:, -1], fraction)
    flat = torch.searchsorted(ranks, wanted[:, None])[:, 0]
    return torch.stack(torch.unravel_index(flat, mask.shape[1:]), dim=1)


def along(values: Tensor, axis: int, dims: int) -> Tensor:
    """Numbers along one of ``dims`` spatial axes (B, n), shaped (B, 1, …, n, …, 1) to meet images (B, …)."""
    return values.reshape(values.shape[0], *(values.shape[1] if each == axis else 1 for each in range(dims)))
