"""Lesions as objects: connected components, which of them are found, and how far outlines lie apart."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from monai.metrics import compute_hausdorff_distance
from monai.metrics.panoptic_quality import compute_panoptic_quality
from scipy import ndimage

__all__ = ["Matches", "components", "diameter", "hausdorff95", "match"]


class Matches(NamedTuple):
    """Predicted against true lesions: pairs, predictions and lesions without a partner, sum of the pairs' IoU."""

    tp: int
    fp: int
    fn: int
    iou: float


def components(mask: np.ndarray) -> np.ndarray:
    """Label the components of a mask (…) from 1 on, 0 outside; neighbours at a corner count (26, or 8 in a slice)."""
    labels, _ = ndimage.label(mask, structure=np.ones((3,) * mask.ndim))
    return labels


def match(predicted: np.ndarray, truth: np.ndarray, iou: float) -> Matches:
    """Pair predicted with true lesions, one to one, with the highest total IoU; a pair needs an IoU above ``iou``.

    Args:
        predicted: mask (x, y, z).
        truth: mask (x, y, z).
        iou: in (0, 1); from 0.5 on a lesion can have one partner only.
    """
    found, there = components(predicted), components(truth)
    if not found.any() or not there.any():
        return Matches(0, int(found.max()), int(there.max()), 0.0)
    tp, fp, fn, total = compute_panoptic_quality(
        torch.from_numpy(found), torch.from_numpy(there), match_iou_threshold=iou, output_confusion_matrix=True
    ).tolist()
    return Matches(int(tp), int(fp), int(fn), float(total))


def hausdorff95(predicted: np.ndarray, truth: np.ndarray, spacing: Sequence[float]) -> tuple[float, bool]:
    """95th percentile of the symmetric distance between two outlines, and whether the prediction is empty.

    An empty prediction counts as far off as the image is large: the diagonal of the grid. A volume of one slice is
    measured in its plane.

    Args:
        predicted: mask (x, y, z).
        truth: mask (x, y, z).
        spacing: of the voxels in mm.

    Returns:
        the distance in mm, NaN without lesion.
    """
    if not truth.any():
        return float("nan"), False
    if truth.shape[-1] == 1:
        predicted, truth, spacing = predicted[..., 0], truth[..., 0], spacing[:-1]
    if not predicted.any():
        return math.dist([0] * truth.ndim, [n * s for n, s in zip(truth.shape, spacing, strict=True)]), True
    pair = (torch.from_numpy(mask[None, None].astype(np.float32)) for mask in (predicted, truth))
    with warnings.catch_warnings():  # MONAI warns of an argument of its own
        warnings.filterwarnings("ignore", message=".*always_return_as_numpy", category=FutureWarning)
        distance = compute_hausdorff_distance(*pair, include_background=True, percentile=95, spacing=list(spacing))
    return float(distance), False


def diameter(voxels: int, spacing: Sequence[float], flat: bool) -> float:
    """Diameter in mm of the ball (``flat``: of the disc) of as many voxels."""
    if flat:
        return 2 * math.sqrt(voxels * spacing[0] * spacing[1] / math.pi)
    return (6 * voxels * math.prod(spacing) / math.pi) ** (1 / 3)
