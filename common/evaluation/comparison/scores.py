"""The numbers of one bundle from its stored cases."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from common.anomaly import clean_mask
from common.evaluation.comparison.case import CaseRecord, Cost
from common.evaluation.histogram import N_BINS, ScoreHistogram
from common.evaluation.indices import intensity_counts
from common.evaluation.lesions import components, diameter, hausdorff95, match
from common.evaluation.pool import PooledScores
from common.evaluation.restoration import restoration_quality

__all__ = ["DETECTION_IOU", "PANOPTIC_IOU", "SIZES_MM", "Scores", "baseline", "cost_summary", "score_cases"]

DETECTION_IOU = 0.1
PANOPTIC_IOU = 0.5
SIZES_MM = ((0.0, 5.0), (5.0, 10.0), (10.0, 20.0), (20.0, float("inf")))
"""Ranges of lesion diameters for the breakdown."""

_NAN = float("nan")


@dataclass
class Scores:
    """What the metrics and their intervals are computed from.

    Args:
        name: of the bundle, or of a baseline.
        pool: pixel-level scores with the histogram of each case.
        rows: one mapping a case: those of the pool and more, in the order of ``pool.rows``; with a threshold, the
            case's.
        sizes: lesions by size: per range of :data:`SIZES_MM`, counts of their scores, how many, how many were found,
            and the sum of the shares found.
        intensities: of the cases, counts of input and pseudo-healthy image in the region (2, 256).
        costs: of the cases.
    """

    name: str
    pool: PooledScores
    rows: list[dict[str, Any]] = field(default_factory=list)
    sizes: list[dict[str, Any]] = field(default_factory=list)
    intensities: list[np.ndarray] = field(default_factory=list)
    costs: list[Cost] = field(default_factory=list)

    @property
    def has_mask(self) -> bool:
        """Whether a threshold made masks."""
        return self.pool.threshold is not None

    def size_table(self) -> list[dict[str, Any]]:
        """Lesions by diameter: AP of their pixels against all pixels without lesion, and how many are found."""
        table = []
        for (low, high), size in zip(SIZES_MM, self.sizes, strict=True):
            against = ScoreHistogram()
            against.counts[:] = self.pool.scores.counts[0], size["counts"]
            lesions = size["lesions"]
            table.append(
                {
                    "from_mm": low,
                    "to_mm": high,
                    "lesions": lesions,
                    "prevalence": against.prevalence if lesions else _NAN,
                    "pixel_ap": against.average_precision(),
                    "found": size["found"] / lesions if lesions and self.has_mask else _NAN,
                    "share_found": size["share"] / lesions if lesions and self.has_mask else _NAN,
                }
            )
        return table


def score_cases(
    name: str,
    records: Iterable[CaseRecord],
    threshold: float | None = None,
    min_size: int = 8,
    score: Callable[[CaseRecord], np.ndarray] | None = None,
    *,
    of_subject: Mapping[str, float] | None = None,
) -> Scores:
    """Score cases one at a time; only histograms and rows stay in memory.

    Args:
        name: of the bundle.
        records: its cases.
        threshold: calibrated; None: no number that needs one.
        min_size: smallest component of a predicted mask, in voxels.
        score: another map in place of the stored one, for a baseline; then nothing is said of the restoration.
        of_subject: thresholds by subject, in place of the one.
    """
    scores = Scores(name, PooledScores(threshold, keep=True))
    scores.sizes = [{"counts": np.zeros(N_BINS, np.int64), "lesions": 0, "found": 0, "share": 0.0} for _ in SIZES_MM]
    for record in records:
        values = record.anomaly_map if score is None else score(record)
        image = None if score is not None else record.image
        limit = threshold if of_subject is None else of_subject[record.subject]
        row = scores.pool.add(record.case, values, record.truth, record.region, image, threshold=limit)
        row = {**row, "subject": record.subject, "raw_maximum": record.raw_maximum}
        truth = record.truth & record.region
        if limit is not None:
            row["threshold"] = limit
            row |= _object_row(clean_mask(values, limit, min_size) & record.region, truth, record)
        if score is None:
            quality = (record.image, record.pseudo_healthy, record.truth, record.region, record.spacing)
            row |= restoration_quality(*quality)
            # Both in the precision that one of them was kept in, or rounding would look like a change of intensity.
            images = (each[:, record.region].astype(np.float16) for each in (record.image, record.pseudo_healthy))
            scores.intensities.append(np.stack([intensity_counts(each) for each in images]))
        _add_sizes(scores, values, truth, record, limit)
        scores.rows.append(row)
        scores.costs.append(record.cost)
    return scores


def baseline(records: Callable[[], Iterable[CaseRecord]]) -> Scores:
    """The intensity itself as the score, bright or dark, whichever has the higher pixel AP (the labels choose).

    Args:
        records: gives the cases, once for each polarity.
    """
    bright = score_cases("intensity (bright)", records(), score=lambda record: record.image.mean(axis=0).clip(0, 1))
    dark = score_cases("intensity (dark)", records(), score=lambda record: 1 - record.image.mean(axis=0).clip(0, 1))
    return max(bright, dark, key=lambda each: each.pool.scores.average_precision())


def cost_summary(costs: Iterable[Cost]) -> dict[str, Any]:
    """Cost of a slice, and highest memory; the first case of a process is left out of the time, if there are others."""
    costs = list(costs)
    slices, evaluations = sum(cost.slices for cost in costs), sum(cost.evaluations for cost in costs)
    timed = [cost for cost in costs if not cost.warm_up] or costs
    timed_slices = sum(cost.slices for cost in timed)
    flop = [cost.flop_per_evaluation for cost in costs if cost.flop_per_evaluation == cost.flop_per_evaluation]
    each = evaluations / slices if slices else _NAN
    return {
        "network_evaluations_per_slice": each,
        "gflop_per_slice": statistics.median(flop) * each / 1e9 if flop else _NAN,
        "seconds_per_slice": sum(cost.seconds for cost in timed) / timed_slices if timed_slices else _NAN,
        "peak_mib": max((cost.peak_mib for cost in costs), default=_NAN),
        "slices": slices,
        "hardware": ", ".join(sorted({cost.device for cost in costs})),
    }


def _object_row(mask: np.ndarray, truth: np.ndarray, record: CaseRecord) -> dict[str, Any]:
    found, panoptic = match(mask, truth, DETECTION_IOU), match(mask, truth, PANOPTIC_IOU)
    distance, empty = hausdorff95(mask, truth, record.spacing)
    return {
        "lesions_tp": found.tp,
        "lesions_fp": found.fp,
        "lesions_fn": found.fn,
        "panoptic_tp": panoptic.tp,
        "panoptic_fp": panoptic.fp,
        "panoptic_fn": panoptic.fn,
        "panoptic_iou": panoptic.iou,
        "hd95_mm": distance,
        "hd95_empty": int(empty),
    }


def _add_sizes(
    scores: Scores, values: np.ndarray, truth: np.ndarray, record: CaseRecord, threshold: float | None
) -> None:
    labels = components(truth)
    for label in range(1, int(labels.max()) + 1):
        lesion = labels == label
        size = diameter(int(lesion.sum()), record.spacing, flat=truth.shape[-1] == 1)
        entry = scores.sizes[next(i for i, (_, high) in enumerate(SIZES_MM) if size < high)]
        histogram = ScoreHistogram()
        histogram.update(values[lesion], np.ones(int(lesion.sum())))
        entry["counts"] += histogram.counts[1]
        entry["lesions"] += 1
        if threshold is not None:
            share = float((values[lesion] >= threshold).mean())
            entry["share"] += share
            entry["found"] += share >= DETECTION_IOU
