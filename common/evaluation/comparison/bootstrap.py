"""Every metric with its interval, by drawing subjects anew; and two bundles on the same draws."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from common.errors import InputError
from common.evaluation import counts
from common.evaluation.comparison.scores import Scores
from common.evaluation.counts import divide
from common.evaluation.indices import N_INTENSITIES, ahi_pixel, caci_ssim, rqi_ssim
from common.evaluation.pool import image_counts

__all__ = ["draw_subjects", "interval", "metrics_of", "paired", "pixel_ap_of", "subjects_of"]

_AT_ONCE = 50  # draws, each with three histograms
_NAN = float("nan")


def subjects_of(scores: Scores) -> list[str]:
    """The subjects of the cases, each once, sorted."""
    return sorted({row["subject"] for row in scores.rows})


def draw_subjects(subjects: int, draws: int, seed: int = 0) -> np.ndarray:
    """How often each subject comes in each draw (draws, subjects): as many as there are, with replacement."""
    if subjects < 1 or draws < 1:
        raise InputError("bootstrap", f"{draws} draws of {subjects} subjects", "give at least one of each")
    generator = np.random.default_rng(seed)
    return generator.multinomial(subjects, np.full(subjects, 1 / subjects), size=draws)


def metrics_of(scores: Scores, weights: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """The metrics of each draw.

    Args:
        scores: of a bundle.
        weights: (draws, subjects), how often each subject of :func:`subjects_of` counts; None: each once.

    Returns:
        arrays (draws,) by name; NaN where a metric is undefined.
    """
    subjects = subjects_of(scores)
    weights = np.ones((1, len(subjects)), dtype=np.int64) if weights is None else weights
    place = {subject: index for index, subject in enumerate(subjects)}
    of_case = np.array([place[row["subject"]] for row in scores.rows])
    return {
        **_pixel_metrics(scores, of_case, weights),
        **_image_metrics(scores.rows, of_case, weights),
        **_ratios(scores, of_case, weights),
    }


def pixel_ap_of(scores: Scores, weights: np.ndarray) -> np.ndarray:
    """The pixel AP of each draw alone, which is much quicker than all metrics; arguments of :func:`metrics_of`."""
    place = {subject: index for index, subject in enumerate(subjects_of(scores))}
    kept = np.zeros((weights.shape[1], *next(iter(scores.pool.kept.values()))[:2].shape))
    for row in scores.rows:
        kept[place[row["subject"]]] += scores.pool.kept[row["case"]][:2]
    kept = kept[..., kept.any(axis=(0, 1))]  # bins without a pixel, which are most of them, change nothing
    starts = range(0, len(weights), _AT_ONCE)
    drawn = (np.tensordot(weights[start : start + _AT_ONCE].astype(float), kept, axes=1) for start in starts)
    return np.concatenate([counts.average_precision(each) for each in drawn])


def interval(values: np.ndarray, level: float = 0.95) -> list[float]:
    """Percentile interval of the draws in which the metric is defined; NaN where it is in none."""
    values = values[~np.isnan(values)]
    if not values.size:
        return [_NAN, _NAN]
    return [float(each) for each in np.quantile(values, [(1 - level) / 2, (1 + level) / 2])]


def paired(first: np.ndarray, second: np.ndarray, level: float = 0.95) -> dict[str, Any]:
    """Difference of a metric of two bundles on the same draws, its interval and two-sided p-value.

    The p-value is twice the smaller share of draws on one side of 0, and never below 1 / draws.
    """
    difference = first - second
    difference = difference[~np.isnan(difference)]
    if not difference.size:
        return {"interval": [_NAN, _NAN], "p": _NAN}
    sides = min(np.mean(difference <= 0), np.mean(difference >= 0))
    return {"interval": interval(difference, level), "p": float(np.clip(2 * sides, 1 / difference.size, 1))}


def _pixel_metrics(scores: Scores, of_case: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    kept = np.zeros((weights.shape[1], *next(iter(scores.pool.kept.values())).shape))
    for index, row in zip(of_case, scores.rows, strict=True):
        kept[index] += scores.pool.kept[row["case"]]
    metrics: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "pixel_ap": lambda each: counts.average_precision(each[:, :2]),
        "oracle_dice": lambda each: counts.oracle_dice(each[:, :2]),
        "sensitivity_fpr1": lambda each: counts.sensitivity_at(each[:, :2], 0.01),
        "sensitivity_fpr5": lambda each: counts.sensitivity_at(each[:, :2], 0.05),
        "aupro": lambda each: counts.per_region_overlap(each[:, 0], each[:, 2]),
    }
    parts: dict[str, list[np.ndarray]] = {name: [] for name in metrics}
    for start in range(0, len(weights), _AT_ONCE):
        drawn = np.tensordot(weights[start : start + _AT_ONCE].astype(float), kept, axes=1)
        for name, metric in metrics.items():
            parts[name].append(metric(drawn))
    return {name: np.concatenate(values) for name, values in parts.items()}


def _image_metrics(rows: Sequence[dict[str, Any]], of_case: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    ill = [row["lesion_voxels"] + row["lesion_voxels_outside"] > 0 for row in rows]
    found = {}
    for reducer in ("top1", "mean"):
        values = [row[f"score_{reducer}"] for row in rows]
        bins = np.unique(values, return_inverse=True)[1]
        each = np.zeros((weights.shape[1], *image_counts(values, ill).shape))
        np.add.at(each, (of_case, np.asarray(ill, dtype=int), bins), 1)
        drawn = np.tensordot(weights.astype(float), each, axes=1)
        found[f"image_auroc_{reducer}"] = counts.auroc(drawn)
        found[f"image_ap_{reducer}"] = counts.average_precision(drawn)
    return found


def _ratios(scores: Scores, of_case: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Metrics that are a sum over cases divided by another."""
    rows = scores.rows
    healthy = np.array([row["lesion_voxels"] + row["lesion_voxels_outside"] == 0 for row in rows], dtype=float)
    lesion = np.array([row["lesion_voxels"] > 0 for row in rows], dtype=float)

    def column(name: str) -> np.ndarray:
        return np.array([row.get(name, _NAN) for row in rows], dtype=float)

    def drawn(values: np.ndarray) -> np.ndarray:
        total = np.zeros(weights.shape[1])
        np.add.at(total, of_case, np.nan_to_num(values))
        return weights @ total

    def mean(name: str, where: np.ndarray) -> np.ndarray:
        values = column(name)
        return divide(drawn(values * where), drawn(where * ~np.isnan(values)))

    found = {"case_ap_mean": mean("average_precision", lesion), "prevalence": divide(
        drawn(column("lesion_voxels")), drawn(column("region_voxels")))}  # fmt: skip
    if "ssim" in rows[0]:
        for name, where in (("healthy", healthy), ("outside_lesion", lesion)):
            found |= {f"{metric}_{name}": mean(metric, where) for metric in ("ssim", "mae")}
        found["lesion_change"] = mean("lesion_change", lesion)
        found |= _indices(scores, of_case, weights, healthy)
    if scores.has_mask:
        hits, marked, size = (drawn(column(f"{name}_voxels")) for name in ("detected_lesion", "detected", "lesion"))
        found["dice"] = divide(2 * hits, np.where(size > 0, marked + size, 0))
        found["healthy_fpr"] = divide(
            drawn(column("detected_voxels") * healthy), drawn(column("region_voxels") * healthy)
        )
        tp, fp, fn = (drawn(column(f"lesions_{name}")) for name in ("tp", "fp", "fn"))
        found |= {"lesion_sensitivity": divide(tp, tp + fn), "lesion_precision": divide(tp, tp + fp)}
        found["lesion_f1"] = divide(2 * tp, np.where(tp + fn > 0, 2 * tp + fp + fn, 0))
        found["false_lesions_per_case"] = mean("lesions_fp", np.ones(len(rows)))
        tp, fp, fn, iou = (drawn(column(f"panoptic_{name}")) for name in ("tp", "fp", "fn", "iou"))
        found["panoptic_quality"] = divide(iou, np.where(tp + fn > 0, tp + (fp + fn) / 2, 0))
        found["hd95_mm"] = mean("hd95_mm", lesion)
    return found


def _indices(scores: Scores, of_case: np.ndarray, weights: np.ndarray, healthy: np.ndarray) -> dict[str, np.ndarray]:
    """RQI, AHI and CACI in their variants without a network; the first and the last are means over cases."""
    away, inside = (np.array([row[name] for row in scores.rows], dtype=float) for name in ("ssim", "lesion_ssim"))
    found = {}
    for name, values in (("rqi_ssim", rqi_ssim(away)), ("caci_ssim", caci_ssim(away, inside))):
        sums = np.zeros((weights.shape[1], 2))
        np.add.at(sums, of_case, np.stack([np.nan_to_num(values), ~np.isnan(values)], axis=1))
        total, count = (weights @ sums).T
        found[name] = divide(total, count)
    # Of each subject: input with lesion, what became of it, healthy input.
    counts = np.zeros((weights.shape[1], 3, N_INTENSITIES))
    for index, is_healthy, (before, after) in zip(of_case, healthy, scores.intensities, strict=True):
        counts[index] += np.stack([0 * before, 0 * after, before] if is_healthy else [before, after, 0 * before])
    drawn = np.tensordot(weights.astype(float), counts, axes=1)
    return {**found, "ahi_pixel": ahi_pixel(drawn[:, 0], drawn[:, 1], drawn[:, 2])}
