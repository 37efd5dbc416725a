"""The one place where intensities change range: images are [0, 1], what networks see is [-1, 1]."""

from __future__ import annotations

from torch import Tensor

__all__ = ["to_image_range", "to_model_range"]


def to_model_range(image: Tensor) -> Tensor:
    """[0, 1] to [-1, 1]."""
    return image * 2 - 1


def to_image_range(x: Tensor) -> Tensor:
    """[-1, 1] to [0, 1], clamped."""
    return ((x + 1) / 2).clamp(0, 1)
