"""From a raw anomaly map to the map and mask that are reported."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Transform
from scipy import ndimage
from skimage.morphology import remove_small_objects

from common.anomaly.threshold import resolve_threshold
from common.options import whole_number

__all__ = ["PostProcessd", "clean_map", "clean_mask"]


def clean_map(anomaly_map: np.ndarray, brain_mask: np.ndarray, median: int = 5, erosion: int = 2) -> np.ndarray:
    """Median filter in plane, and zero near the rim of the brain, where every small misfit shows.

    Args:
        anomaly_map: (x, y, z), not negative.
        brain_mask: (x, y, z).
        median: side of the filter in pixels; 1 leaves the map.
        erosion: pixels taken off the brain mask in plane.

    Returns:
        The map (x, y, z), zero outside the eroded mask.
    """
    inside = brain_mask > 0
    if erosion:
        in_plane = ndimage.generate_binary_structure(2, 1)[..., None]
        inside = ndimage.binary_erosion(inside, in_plane, iterations=erosion)
    smooth = ndimage.median_filter(anomaly_map, size=(median, median, 1)) if median > 1 else anomaly_map
    return np.where(inside, smooth, 0).astype(np.float32)


def clean_mask(anomaly_map: np.ndarray, threshold: float, min_size: int = 8) -> np.ndarray:
    """Voxels at or above ``threshold`` in 26-connected components of at least ``min_size`` voxels."""
    mask = anomaly_map >= threshold
    return remove_small_objects(mask, max_size=min_size - 1, connectivity=mask.ndim) if min_size > 1 else mask


class PostProcessd(Transform):
    """Clean ``anomaly_map`` (1, x, y, z) and add ``anomaly_mask``; both keep the geometry of the map.

    Args:
        threshold: a value in units of the cleaned map, or the path of a ``threshold.json``; ``None`` makes no mask.
        median: see ``clean_map``.
        erosion: see ``clean_map``.
        min_size: see ``clean_mask``.
        settings: of the inferer, to compare with those that the threshold was calibrated under.
        weights: of the network, likewise.

    Raises:
        InputError: the threshold is neither, or sizes that are no whole numbers.
    """

    def __init__(
        self,
        threshold: float | str | Path | None,
        median: int = 5,
        erosion: int = 2,
        min_size: int = 8,
        settings: Mapping[str, Any] | None = None,
        weights: str | Path | None = None,
    ) -> None:
        self.threshold = None if threshold is None else resolve_threshold(threshold, settings, weights)
        self.median, self.erosion = whole_number("median", median, 1), whole_number("erosion", erosion, 0)
        self.min_size = whole_number("min_size", min_size, 0)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the case with the cleaned map and its mask."""
        case = dict(data)
        raw: MetaTensor = case["anomaly_map"]
        values, brain = (np.asarray(each.cpu())[0] for each in (raw, torch.as_tensor(case["brain_mask"])))
        cleaned = clean_map(values, brain, self.median, self.erosion)
        case["anomaly_map"] = _with_values(raw, cleaned)
        if self.threshold is not None:
            case["anomaly_mask"] = _with_values(raw, clean_mask(cleaned, self.threshold, self.min_size))
        return case


def _with_values(template: MetaTensor, values: np.ndarray) -> MetaTensor:
    result = template.clone()
    result.copy_(torch.from_numpy(np.ascontiguousarray(values[None], dtype=np.float32)))
    return result
