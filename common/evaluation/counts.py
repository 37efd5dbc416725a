"""Metrics of counts in ordered bins, for one histogram or for a whole batch of them (resamples, say)."""

from __future__ import annotations

import numpy as np

__all__ = [
    "above",
    "auroc",
    "average_precision",
    "dice_curve",
    "divide",
    "oracle_dice",
    "per_region_overlap",
    "ratio",
    "sensitivity_at",
]

_NAN = float("nan")


def above(counts: np.ndarray) -> np.ndarray:
    """Counts at or above every bin edge, of counts (…, bins): shape (…, bins + 1), the last entry is 0."""
    total = np.zeros((*counts.shape[:-1], counts.shape[-1] + 1), dtype=counts.dtype)
    total[..., :-1] = np.cumsum(counts[..., ::-1], axis=-1)[..., ::-1]
    return total


def average_precision(counts: np.ndarray) -> np.ndarray:
    """Step-wise average precision, Σ (R_n − R_{n−1}) P_n over falling thresholds.

    Args:
        counts: (…, 2, bins), negatives and positives in bins of rising scores.

    Returns:
        numbers (…) in [0, 1]; NaN without positives.
    """
    total = above(counts)
    both, positives = total.sum(axis=-2), total[..., 1, :]
    precision = positives[..., :-1] / np.where(both[..., :-1] > 0, both[..., :-1], 1)
    return divide((counts[..., 1, :] * precision).sum(axis=-1), positives[..., 0])


def auroc(counts: np.ndarray) -> np.ndarray:
    """Probability that a positive lies in a higher bin than a negative, the same bin counting one half.

    Args:
        counts: (…, 2, bins).

    Returns:
        numbers (…) in [0, 1]; NaN unless both classes occur.
    """
    positives = above(counts[..., 1, :])
    wins = (counts[..., 0, :] * (positives[..., 1:] + 0.5 * counts[..., 1, :])).sum(axis=-1)
    return divide(wins, counts[..., 0, :].sum(axis=-1) * positives[..., 0].astype(float))


def dice_curve(counts: np.ndarray) -> np.ndarray:
    """Dice of all bins from an edge on, 2 TP / (2 TP + FP + FN), for every edge: (…, bins + 1); NaN without positives.

    Args:
        counts: (…, 2, bins).
    """
    total = above(counts)
    lesion = total[..., 1, :1]
    return divide(2 * total[..., 1, :], np.where(lesion > 0, total.sum(axis=-2) + lesion, 0))


def oracle_dice(counts: np.ndarray) -> np.ndarray:
    """Best Dice over all edges, of counts (…, 2, bins): numbers (…); NaN without positives."""
    return dice_curve(counts).max(axis=-1)


def sensitivity_at(counts: np.ndarray, rate: float) -> np.ndarray:
    """Share of positives above the lowest edge at which at most the share ``rate`` of negatives is.

    Args:
        counts: (…, 2, bins).
        rate: of false positives, e.g. 0.01.

    Returns:
        numbers (…) in [0, 1]; NaN unless both classes occur.
    """
    total = above(counts)
    negatives, positives = total[..., 0, :], total[..., 1, :]
    edge = (negatives <= rate * negatives[..., :1] + 1e-9).argmax(axis=-1)
    hits = np.take_along_axis(positives, edge[..., None], axis=-1)[..., 0]
    return divide(hits, np.where(negatives[..., 0] > 0, positives[..., 0], 0))


def per_region_overlap(negatives: np.ndarray, overlap: np.ndarray, limit: float = 0.3) -> np.ndarray:
    """Area under the per-region overlap against the false-positive rate up to ``limit``, divided by it (AUPRO).

    Between two edges the curve is a straight line, from (0, 0) to (1, 1); it is cut at ``limit`` exactly.

    Args:
        negatives: (…, bins) counts of pixels outside every lesion.
        overlap: (…, bins) sum over lesions of the share of the lesion in each bin.
        limit: highest false-positive rate, in (0, 1].

    Returns:
        numbers (…) in [0, 1]; NaN without negatives or without lesions.

    Source: Bergmann et al., MVTec AD, IJCV 2021, section 4.
    """
    rates, mean = (divide(total, total[..., :1]) for total in (above(negatives).astype(float), above(overlap)))
    rates, mean = rates[..., ::-1], mean[..., ::-1]  # rising
    steps, rises = np.diff(rates, axis=-1), np.diff(mean, axis=-1)
    used = np.clip(limit - rates[..., :-1], 0, steps)  # of each step, what lies below the limit
    slope = np.divide(rises, steps, out=np.zeros_like(rises), where=steps > 0)
    return (used * (mean[..., :-1] + 0.5 * slope * used)).sum(axis=-1) / limit


def ratio(part: float, whole: float) -> float:
    """Quotient of two numbers, NaN instead of a division by zero."""
    return float(part / whole) if whole else _NAN


def divide(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Quotient of arrays that broadcast, NaN instead of a division by zero."""
    part, whole = np.broadcast_arrays(np.asarray(part, float), np.asarray(whole, float))
    return np.divide(part, whole, out=np.full(part.shape, _NAN), where=whole != 0)
