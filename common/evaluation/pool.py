"""Scoring of anomaly maps against lesion masks, case by case and pooled."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from monai.utils import convert_to_tensor

from common.errors import InputError
from common.evaluation.counts import auroc, average_precision, per_region_overlap, ratio
from common.evaluation.histogram import N_BINS, ScoreHistogram, bins_of
from common.evaluation.lesions import components

__all__ = ["PooledScores", "evaluate_map", "image_counts"]

_NAN = float("nan")


class PooledScores:
    """The metrics of a set of cases, collected one case at a time in constant memory (but for one row a case).

    Args:
        threshold: calibrated threshold, in units of the map; a pixel at or above it is called anomalous. None: no
            number that needs a threshold.
        keep: the histogram of each case too, for intervals by resampling.

    Attributes:
        rows: one row a case, as :meth:`add` returns it, by the case's name.
        kept: with ``keep``, per case, counts of negatives and of positives, and the sum over its lesions of the share
            of the lesion in each bin: (3, 4096).
    """

    def __init__(self, threshold: float | None = None, *, keep: bool = False) -> None:
        if threshold is not None and not 0 <= float(threshold) < math.inf:
            raise InputError("threshold", f"{threshold} is not a finite number ≥ 0", "calibrate it on healthy cases")
        self.threshold = None if threshold is None else float(threshold)
        self.scores, self.bright, self.dark = ScoreHistogram(), ScoreHistogram(), ScoreHistogram()
        self.overlap: np.ndarray = np.zeros(N_BINS)
        self.keep = keep
        self.kept: dict[str, np.ndarray] = {}
        self.rows: dict[str, dict[str, Any]] = {}

    def add(
        self,
        case: str,
        anomaly_map: Any,
        truth: Any,
        region: Any = None,
        image: Any = None,
        *,
        threshold: float | None = None,
    ) -> dict[str, Any]:
        """Score one case and add it to the pool.

        Args:
            case: name of the case, unique in the pool.
            anomaly_map: (…) or (1, …), finite and ≥ 0.
            truth: lesion mask of the same shape, with values in [0, 1] or 0/255; positive from one half on.
            region: mask of the pixels that count, of the same form as ``truth``. None: all.
            image: (…) or (C, …) with values in [0, 1], for the intensity baseline; the mean of its channels is taken.
            threshold: of this case, in place of the pool's.

        Returns:
            the case's row; AP and Dice are NaN without lesion. Counts of pixels are inside the region.

        Raises:
            InputError: the case is known already, or its arrays do not fit each other or are out of range.
        """
        if case in self.rows:
            raise InputError(f"case {case}", "evaluated twice", "give every entry of the data list its own case name")
        score = convert_to_tensor(anomaly_map, track_meta=False, wrap_sequence=True).detach()
        score = score[0] if score.ndim > 2 and score.shape[0] == 1 else score
        positive = _binary(_on_grid(truth, score, case, "truth"), case, "truth")
        inside = torch.ones_like(positive)
        if region is not None:
            inside = _binary(_on_grid(region, score, case, "region"), case, "region")
        if not bool(inside.any()):
            raise InputError(f"case {case}", "the region is empty", "check the brain or body mask of this case")
        outside = int((positive & ~inside).sum())
        overlap = _overlap(score, positive & inside)
        score, positive = score[inside].float(), positive[inside]

        histogram = ScoreHistogram()
        histogram.update(score, positive, source=f"case {case}")
        if image is not None:
            intensity = _intensity(image, inside, case)
            self.bright.update(intensity, positive)
            self.dark.update(1 - intensity, positive)
        self.scores += histogram
        self.overlap += overlap
        if self.keep:
            self.kept[case] = np.concatenate([histogram.counts, overlap[None]])

        lesion, detected, hits, dice = int(positive.sum()), _NAN, _NAN, _NAN
        threshold = self.threshold if threshold is None else threshold
        if threshold is not None:
            mask = score >= threshold
            detected, hits = int(mask.sum()), int((mask & positive).sum())
            dice = 2 * hits / (detected + lesion) if lesion else _NAN
        row = {
            "case": case,
            "average_precision": histogram.average_precision(),
            "dice": dice,
            "score_mean": float(score.double().mean()),
            "score_top1": float(score.topk(math.ceil(0.01 * score.numel())).values.double().mean()),
            "lesion_voxels": lesion,
            "lesion_voxels_outside": outside,
            "region_voxels": score.numel(),
            "detected_voxels": detected,
            "detected_lesion_voxels": hits,
        }
        self.rows[case] = row
        return row

    def gather(self) -> None:
        """Pool over all processes of ``torch.distributed``; alone, do nothing.

        Raises:
            InputError: a case was evaluated by more than one process.
        """
        if idist.get_world_size() > 1:
            for histogram in (self.scores, self.bright, self.dark):
                histogram.all_reduce()
            total: Any = idist.all_reduce(torch.from_numpy(self.overlap))
            self.overlap = total.cpu().numpy()
            shares: Any = idist.all_gather(self.rows)
            merged = {name: row for share in shares for name, row in share.items()}
            self.rows = {name: merged[name] for name in sorted(merged)}
            if len(self.rows) < sum(map(len, shares)):
                twice = sorted(name for name in self.rows if sum(name in share for share in shares) > 1)
                raise InputError(
                    f"cases {twice}",
                    "evaluated by more than one process, which would count them twice",
                    "give the sampler even_divisible=False, so that it pads no process with repeated cases",
                )

    def summary(self) -> dict[str, float]:
        """All numbers of the pool; NaN where one is undefined. ``report.EXPLANATIONS`` says what each means."""
        rows = self.rows.values()
        is_healthy = [row["lesion_voxels"] + row["lesion_voxels_outside"] == 0 for row in rows]
        healthy = [row for row, alone in zip(rows, is_healthy, strict=True) if alone]
        lesion = [row for row in rows if row["lesion_voxels"]]
        ill = [not alone for alone in is_healthy]

        lesion_voxels, outside = _total("lesion_voxels", rows), _total("lesion_voxels_outside", rows)
        hits, detected = _total("detected_lesion_voxels", rows), _total("detected_voxels", rows)
        oracle_dice, oracle_threshold = self.scores.oracle_dice()
        bright, dark = self.bright.average_precision(), self.dark.average_precision()
        return {
            "cases": len(rows),
            "lesion_cases": len(rows) - len(healthy),
            "healthy_cases": len(healthy),
            "prevalence": self.scores.prevalence,
            "lesion_outside_region": ratio(outside, lesion_voxels + outside),
            "pixel_ap": self.scores.average_precision(),
            "oracle_dice": oracle_dice,
            "oracle_threshold": oracle_threshold,
            "sensitivity_fpr1": self.scores.sensitivity_at(0.01),
            "sensitivity_fpr5": self.scores.sensitivity_at(0.05),
            "aupro": float(per_region_overlap(self.scores.counts[0], self.overlap)),
            "threshold": _NAN if self.threshold is None else self.threshold,
            "dice": ratio(2 * hits, detected + lesion_voxels) if lesion_voxels else _NAN,
            "healthy_fpr": ratio(_total("detected_voxels", healthy), _total("region_voxels", healthy)),
            "case_ap_mean": ratio(_total("average_precision", lesion), len(lesion)),
            "case_ap_cases": len(lesion),
            **{
                f"image_{name}_{reducer}": float(metric(image_counts([row[f"score_{reducer}"] for row in rows], ill)))
                for name, metric in (("auroc", auroc), ("ap", average_precision))
                for reducer in ("top1", "mean")
            },
            "intensity_ap": max(bright, dark),
            "intensity_oracle_dice": max(self.bright.oracle_dice()[0], self.dark.oracle_dice()[0]),
            "intensity_polarity": _NAN if math.isnan(bright) else 1.0 if bright >= dark else -1.0,
        }


def evaluate_map(
    map: Any, truth: Any, region: Any = None, image: Any = None, threshold: float | None = None
) -> dict[str, float]:
    """Metrics of one anomaly map, the same numbers as over a test set.

    Args:
        map: (…) or (1, …), finite and ≥ 0.
        truth: lesion mask of the same shape, in [0, 1] or 0/255.
        region: mask of the pixels that count. None: all.
        image: (…) or (C, …) in [0, 1], for the intensity baseline. None: no baseline.
        threshold: calibrated threshold. None: no number that needs one.

    Returns:
        :meth:`PooledScores.summary` of the one case, with ``score_mean`` and ``score_top1``; NaN where undefined.

    Raises:
        InputError: the arrays do not fit each other or are out of range.
    """
    pool = PooledScores(threshold)
    row = pool.add("map", map, truth, region, image)
    return {**pool.summary(), "score_mean": row["score_mean"], "score_top1": row["score_top1"]}


def _on_grid(value: Any, score: torch.Tensor, case: str, name: str) -> torch.Tensor:
    """Tensor of the shape and device of ``score``, without a channel dimension of one."""
    tensor: torch.Tensor = convert_to_tensor(value, track_meta=False, wrap_sequence=True).detach().to(score.device)
    if tensor.shape == (1, *score.shape):
        tensor = tensor[0]
    if tensor.shape != score.shape:
        raise InputError(
            f"case {case}",
            f"the {name} has shape {tuple(tensor.shape)}, the anomaly map {tuple(score.shape)}",
            "bring both to one grid, one channel each, with the same transforms",
        )
    return tensor


def _binary(mask: torch.Tensor, case: str, name: str) -> torch.Tensor:
    """Boolean mask of a mask in [0, 1] or 0/255; refuses label maps, which would come out empty."""
    top, bottom = float(mask.max()), float(mask.min())
    if not (bottom >= 0 and (top <= 1 or 127.5 <= top <= 255)):
        raise InputError(
            f"case {case}",
            f"the {name} has values from {bottom:g} to {top:g}: neither a mask in [0, 1] nor one of 0 and 255",
            "turn a label map into a mask first, for example by LabelToMaskd",
        )
    return mask.to(torch.float32) >= (0.5 if top <= 1 else 127.5)


def _intensity(image: Any, inside: torch.Tensor, case: str) -> torch.Tensor:
    """Intensities inside the region, channels averaged, as scores in [0, 1]."""
    tensor = convert_to_tensor(image, track_meta=False, wrap_sequence=True).detach().to(inside.device, torch.float32)
    if tensor.shape[1:] == inside.shape:
        tensor = tensor.mean(dim=0)
    values = _on_grid(tensor, inside, case, "image")[inside]
    # Interpolation may overshoot a little; anything else is another range, and would be a wrong baseline.
    if not bool(((values >= -0.01) & (values <= 1.01)).all()):
        raise InputError(
            f"case {case}",
            f"image values from {float(values.min()):g} to {float(values.max()):g} inside the region, not in [0, 1]",
            "scale the image to [0, 1], or set image_key to null to leave the intensity baseline out",
        )
    return values.clamp(0, 1)


def image_counts(scores: list[float], ill: list[bool]) -> np.ndarray:
    """Cases as counts in bins of their distinct scores, (2, bins), healthy and ill: exact, ties share a bin."""
    bins, place = np.unique(scores, return_inverse=True)
    counts = np.zeros((2, bins.size), dtype=np.int64)
    np.add.at(counts, (np.asarray(ill, dtype=int), place), 1)
    return counts


def _overlap(score: torch.Tensor, positive: torch.Tensor) -> np.ndarray:
    """Sum over the lesions of the share of the lesion in each bin."""
    overlap = np.zeros(N_BINS)
    if bool(positive.any()):
        lesion = components(positive.cpu().numpy())[positive.cpu().numpy()]
        share = 1 / np.bincount(lesion)[lesion]
        overlap += np.bincount(bins_of(score[positive]).cpu().numpy(), weights=share, minlength=N_BINS)
    return overlap


def _total(name: str, rows: Iterable[dict[str, Any]]) -> float:
    """Sum of one column."""
    return float(sum(row[name] for row in rows))
