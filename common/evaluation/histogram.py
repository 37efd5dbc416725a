"""Streaming counts of anomaly scores, from which the pixel-level metrics are computed."""

from __future__ import annotations

from typing import Any, Literal

import ignite.distributed as idist
import numpy as np
import torch
from monai.utils import convert_to_tensor

from common.errors import InputError
from common.evaluation.counts import above, auroc, average_precision, dice_curve, ratio, sensitivity_at

__all__ = ["BIN_EDGES", "N_BINS", "ScoreHistogram", "bins_of"]

N_BINS = 4096
# 8 exponent bits and the first 7 of the 23 mantissa bits stay: one bin is one such pattern.
_SHIFT = 23 - 7
# Pattern of 2**-24, the lower edge of the first bin (127 is the bias of the float32 exponent).
_FIRST = (127 - 24) << 7

BIN_EDGES: np.ndarray = ((np.arange(N_BINS + 1, dtype=np.int32) + _FIRST) << _SHIFT).view(np.float32).astype(np.float64)
BIN_EDGES[0], BIN_EDGES[-1] = 0.0, np.inf
BIN_EDGES.flags.writeable = False


def bins_of(scores: torch.Tensor) -> torch.Tensor:
    """Index of the bin of each score, finite and ≥ 0; the shape stays."""
    pattern = scores.to(torch.float32).contiguous().view(torch.int32) >> _SHIFT
    return (pattern - _FIRST).clamp(0, N_BINS - 1)


class ScoreHistogram:
    """Counts of non-negative scores in 4096 fixed bins, separately for negatives and positives.

    A bin is one value of the upper bits of the float32 pattern: 32 powers of two, 2**-24 … 2**8, with 128 steps
    each. No range has to be known beforehand, memory is constant, and histograms of several cases or processes add
    up. Scores below 2**-24 fall into the first bin, scores from 2**8 on into the last.

    Cost of the binning: two scores closer than 1/128 of their size may share a bin and then count as tied. Scores
    that lie on bin edges give the exact AP, AUROC and Dice. For continuous scores (24 random gamma mixtures, 200,000
    pixels, 0.5 % positives) AP came out low by 0.0015 on average and 0.0022 at most, oracle Dice by 0.0011 and
    0.0039, AUROC was off by 0.00004 at most. A threshold acts at the lower edge of its bin, at most 1/128 of its
    value lower. A constant offset under all the scores wastes the resolution: a map should be near 0 where nothing
    is found.

    A score is called anomalous when it is at or above the threshold (``score >= threshold``).
    """

    def __init__(self) -> None:
        self.counts: np.ndarray = np.zeros((2, N_BINS), dtype=np.int64)
        """Counts, shape (2, 4096): row 0 negatives, row 1 positives."""

    def update(self, scores: Any, truth: Any, region: Any = None, *, source: str = "scores") -> None:
        """Count the scores of one or more images.

        Args:
            scores: torch or numpy array of any shape, finite and ≥ 0.
            truth: array of the same shape; non-zero means positive.
            region: array of the same shape; only pixels where it is non-zero count. None: all.
            source: what an error names as the cause.

        Raises:
            InputError: shapes differ, or a score inside the region is negative or not finite.
        """
        score, positive, *inside = (
            convert_to_tensor(item, track_meta=False, wrap_sequence=True)
            for item in (scores, truth, region)
            if item is not None
        )
        for name, item in zip(("truth", "region"), (positive, *inside), strict=False):
            if item.shape != score.shape:
                raise InputError(
                    source,
                    f"the shape {tuple(item.shape)} of the {name} differs from the scores' {tuple(score.shape)}",
                    "resample it to the grid of the anomaly map",
                )
        score = score.detach().to(torch.float32)
        positive = positive.to(score.device) != 0
        if inside:
            keep = inside[0].to(score.device) != 0
            score, positive = score[keep], positive[keep]
        if not bool(torch.isfinite(score).all()) or bool((score < 0).any()):
            raise InputError(
                source,
                "negative, infinite or NaN scores",
                "hand in an anomaly map that is finite and ≥ 0, such as an absolute difference",
            )
        index = bins_of(score).flatten() + N_BINS * positive.flatten()
        self.counts += torch.bincount(index, minlength=2 * N_BINS).reshape(2, N_BINS).cpu().numpy()

    def __add__(self, other: ScoreHistogram) -> ScoreHistogram:
        total = ScoreHistogram()
        total.counts = self.counts + other.counts
        return total

    def all_reduce(self) -> None:
        """Replace the counts by their sum over all processes of ``torch.distributed``; alone, do nothing."""
        if idist.get_world_size() > 1:
            total: Any = idist.all_reduce(torch.from_numpy(self.counts))
            self.counts = total.cpu().numpy()

    @property
    def negatives(self) -> int:
        """Number of pixels whose truth is negative."""
        return int(self.counts[0].sum())

    @property
    def positives(self) -> int:
        """Number of pixels whose truth is positive."""
        return int(self.counts[1].sum())

    @property
    def prevalence(self) -> float:
        """Share of positives, which is also the AP of a random score; NaN when nothing was counted."""
        return ratio(self.positives, int(self.counts.sum()))

    def average_precision(self) -> float:
        """Step-wise average precision, Σ (R_n − R_{n−1}) P_n over falling thresholds.

        Definition of ``sklearn.metrics.average_precision_score``: no interpolation between the steps.

        Returns:
            a number in [0, 1]; NaN without positives.
        """
        return float(average_precision(self.counts))

    def auroc(self) -> float:
        """Probability that a positive scores above a negative, ties counting one half.

        Returns:
            a number in [0, 1]; NaN unless both classes occur.
        """
        return float(auroc(self.counts))

    def oracle_dice(self) -> tuple[float, float]:
        """Best Dice over all bin edges: an upper bound, since the labels choose the threshold.

        Returns:
            the Dice and the threshold it needs, the highest one when several are as good; NaN, NaN without positives.
        """
        if self.positives == 0:
            return float("nan"), float("nan")
        dice = dice_curve(self.counts)[::-1]
        best = int(np.argmax(dice))
        return float(dice[best]), float(BIN_EDGES[::-1][best])

    def dice_at(self, threshold: float) -> float:
        """Dice of ``score >= threshold``, 2 TP / (2 TP + FP + FN).

        Args:
            threshold: ≥ 0; lowered to the edge of its bin.

        Returns:
            a number in [0, 1]; NaN without positives.
        """
        return float(dice_curve(self.counts)[_bin_of(threshold)])

    def false_positive_rate(self, threshold: float) -> float:
        """Share of negatives with ``score >= threshold``.

        Args:
            threshold: ≥ 0; lowered to the edge of its bin.

        Returns:
            a number in [0, 1]; NaN without negatives.
        """
        return ratio(above(self.counts)[0, _bin_of(threshold)], self.negatives)

    def sensitivity_at(self, rate: float) -> float:
        """Share of positives found where at most the share ``rate`` of the negatives is called anomalous.

        Args:
            rate: of false positives, in [0, 1].

        Returns:
            a number in [0, 1]; NaN unless both classes occur.
        """
        return float(sensitivity_at(self.counts, rate))

    def quantile(self, q: float, of: Literal["negatives", "all"] = "negatives") -> float:
        """Lowest bin edge that at least the share ``q`` of the scores lies below.

        As a threshold it therefore calls at most the share ``1 − q`` anomalous: the calibration on healthy data.

        Args:
            q: share in [0, 1].
            of: the negatives, or all scores.

        Returns:
            a bin edge; NaN when nothing was counted, infinity when the edge would be that of the last, open bin.
        """
        if not 0 <= q <= 1:
            raise InputError("q", f"{q} is not a share", "give a number from 0 to 1")
        counts = self.counts[0] if of == "negatives" else self.counts.sum(axis=0)
        below = np.concatenate(([0], np.cumsum(counts)))
        return float(BIN_EDGES[np.searchsorted(below, q * below[-1])]) if below[-1] else float("nan")


def _bin_of(threshold: float) -> int:
    """Index of the bin that holds the threshold; 4096 for infinity."""
    if not threshold >= 0:
        raise InputError("threshold", f"{threshold} is not a number ≥ 0", "give the threshold in units of the map")
    return int(np.searchsorted(BIN_EDGES, threshold, side="right")) - 1
