"""Indices of restoration after RQI, AHI and CACI (Bercea et al., Nature Communications 2025), without any network.

Those stand on a perceptual network and on features of another one, and no reference implementation is public. These are
variants under names of their own, built on structural similarity and on the intensities themselves; their values are
not comparable with published ones.
"""

from __future__ import annotations

import numpy as np

__all__ = ["N_INTENSITIES", "ahi_pixel", "caci_ssim", "intensity_counts", "rqi_ssim"]

N_INTENSITIES = 256
"""Bins of the intensities in [0, 1]."""


def rqi_ssim(away: np.ndarray) -> np.ndarray:
    """Restoration quality of one case: its SSIM away from lesions, max(0, s).

    Args:
        away: mean SSIM of input and pseudo-healthy image there, in [-1, 1].
    """
    return np.clip(away, 0, 1)


def caci_ssim(away: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Conservation and change of one case: harmonic mean of c = max(0, s_away) and d = 1 - max(0, s_lesion).

    0 for a method that changes no lesion, and for one that keeps nothing; 1 for one that keeps all but the lesions.

    Args:
        away: mean SSIM away from lesions, in [-1, 1].
        inside: mean SSIM inside them; NaN without a lesion, and then so is the index.
    """
    kept, changed = np.clip(away, 0, 1), 1 - np.clip(inside, 0, 1)
    both = kept + changed
    return np.divide(2 * kept * changed, both, out=np.zeros_like(both), where=both != 0)


def intensity_counts(values: np.ndarray) -> np.ndarray:
    """Counts (256,) of intensities in [0, 1]; what lies outside counts at the end."""
    bins = np.clip((np.asarray(values, dtype=np.float64) * N_INTENSITIES).astype(int), 0, N_INTENSITIES - 1)
    return np.bincount(bins.ravel(), minlength=N_INTENSITIES)


def ahi_pixel(diseased: np.ndarray, restored: np.ndarray, healthy: np.ndarray) -> np.ndarray:
    """Anomaly-to-healthy index: max(0, 1 - W(restored, healthy) / W(diseased, healthy)).

    W is the Wasserstein distance of order 1 of two distributions of intensities. 1: the restored cases with lesion are
    distributed as the healthy ones; 0: they are no closer than they were.

    Args:
        diseased: counts (…, 256) of the input of cases with lesion.
        restored: of their pseudo-healthy images.
        healthy: of the input of healthy cases.

    Returns:
        numbers (…); NaN where one of the three is empty, or the first and the last do not differ.
    """
    curves = []
    for counts in (diseased, restored, healthy):
        total = counts.sum(axis=-1, keepdims=True)
        shares = np.divide(counts, total, out=np.full(np.shape(counts), np.nan), where=total > 0)
        curves.append(np.cumsum(shares, axis=-1))
    before, after, goal = curves
    distance = np.abs(before - goal).mean(axis=-1)
    left = np.abs(after - goal).mean(axis=-1)
    moved = 1 - np.divide(left, distance, out=np.full(np.shape(distance), np.nan), where=distance > 1e-12)
    return np.maximum(moved, 0)
