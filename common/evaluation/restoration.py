"""How well a pseudo-healthy image keeps what is healthy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from monai.metrics.regression import compute_ssim_and_cs
from scipy import ndimage

__all__ = ["MARGIN_MM", "restoration_quality", "ssim_map"]

MARGIN_MM = 5.0
"""What lies closer to a lesion is left out: its rim is neither healthy nor lesion."""

_SIDE, _SIGMA = 11, 1.5


def ssim_map(image: np.ndarray, healthy: np.ndarray) -> np.ndarray:
    """Structural similarity of each pixel's surroundings, slice by slice.

    Args:
        image: (C, x, y, z) in [0, 1].
        healthy: (C, x, y, z) in [0, 1].

    Returns:
        (x, y, z) in [-1, 1], the mean over the channels: Gaussian window of 11 pixels, σ 1.5, edges mirrored.
    """
    pair = (torch.from_numpy(np.moveaxis(each, -1, 0).astype(np.float32)) for each in (healthy, image))
    first, second = (F.pad(each, [_SIDE // 2] * 4, mode="reflect") for each in pair)
    similarity, _ = compute_ssim_and_cs(first, second, 2, (_SIDE,) * 2, (_SIGMA,) * 2, data_range=1.0)
    return np.moveaxis(similarity.mean(dim=1).numpy(), 0, -1)


def restoration_quality(
    image: np.ndarray, healthy: np.ndarray, truth: np.ndarray, region: np.ndarray, spacing: Sequence[float]
) -> dict[str, float]:
    """SSIM and mean absolute change away from lesions, and the change inside them.

    Args:
        image: (C, x, y, z) in [0, 1].
        healthy: pseudo-healthy image, of the same form.
        truth: lesion mask (x, y, z).
        region: brain mask (x, y, z).
        spacing: in mm.

    Returns:
        ``ssim`` and ``mae`` over the region without lesions and what is closer than 5 mm to one; ``lesion_ssim`` and
        ``lesion_change``, the mean absolute change, inside lesions. NaN where there is nothing to average.
    """
    change = np.abs(image - healthy).mean(axis=0)
    away, inside = region.copy(), truth & region
    if truth.any():
        away &= ndimage.distance_transform_edt(~truth, sampling=spacing) > MARGIN_MM
    similarity = ssim_map(image, healthy)
    return {
        "ssim": _mean(similarity, away),
        "mae": _mean(change, away),
        "lesion_ssim": _mean(similarity, inside),
        "lesion_change": _mean(change, inside),
    }


def _mean(values: np.ndarray, where: np.ndarray) -> float:
    return float(values[where].mean(dtype=np.float64)) if where.any() else float("nan")
