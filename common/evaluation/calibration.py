"""A threshold from healthy scans."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from common.anomaly import Threshold
from common.data import subject_of
from common.errors import InputError
from common.evaluation.counts import above
from common.evaluation.healthy import HealthyHandler
from common.evaluation.histogram import ScoreHistogram
from common.networks import sha256

__all__ = ["ThresholdCalibration", "level_for_others", "quantile_interval", "subject_hash"]

_HALVINGS = 30


def subject_hash(subject: str) -> str:
    """A subject's name as it may be told: 16 digits of its SHA-256. Who knows the names can still recognise them."""
    return hashlib.sha256(subject.encode()).hexdigest()[:16]


def level_for_others(histograms: Mapping[str, ScoreHistogram], quantile: float) -> float:
    """The quantile of the pooled scores that a share of the scores of *other* subjects stays below.

    The quantile itself is too low for them: of the subjects it was taken from, those with the highest scores have
    raised it. Each subject is therefore left out in turn, and the level of the pooled quantile is the lowest at which
    the scores left out exceed the threshold of the rest no more often than promised.

    Args:
        histograms: of the healthy scores of each subject.
        quantile: share that is to stay below, in (0, 1).

    Returns:
        a level from ``quantile`` to 1; 1, the highest score, where even that is not enough for so few subjects. Of a
        single subject, nothing can be left out: ``quantile``.
    """
    if len(histograms) < 2:
        return quantile
    counts = np.stack([histogram.counts[0] for histogram in histograms.values()])
    exceeding = above(counts)
    below = np.cumsum(counts.sum(axis=0) - counts, axis=1)  # of all but one
    promised = (1 - quantile) * counts.sum()

    def holds(tail: float) -> bool:
        edges = [int(np.searchsorted(each, (1 - tail) * each[-1])) + 1 for each in below]
        return bool(sum(exceeding[i, edge] for i, edge in enumerate(edges)) <= promised)

    low, high = 0.0, 1 - quantile
    if holds(high):
        return quantile
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return 1 - low


def quantile_interval(histograms: Mapping[str, ScoreHistogram], quantile: float, draws: int = 1000) -> list[float]:
    """95 % interval of a quantile of the pooled scores, from drawing the subjects anew.

    Args:
        histograms: of the healthy scores of each subject.
        quantile: in (0, 1].
        draws: how often; the random numbers are the same every time.

    Returns:
        lower and upper end; empty with fewer than two subjects.
    """
    if len(histograms) < 2:
        return []
    counts = np.stack([histogram.counts[0] for histogram in histograms.values()])
    generator = np.random.default_rng(0)
    values = []
    for weights in generator.multinomial(len(counts), np.full(len(counts), 1 / len(counts)), size=draws):
        drawn = ScoreHistogram()
        drawn.counts[0] = weights @ counts
        values.append(drawn.quantile(quantile))
    low, high = np.quantile(values, [0.025, 0.975])
    return [float(low), float(high)]


class ThresholdCalibration(HealthyHandler):
    """Ignite handler: pool the cleaned maps of healthy cases, write the threshold for other healthy subjects.

    Args:
        path: ``threshold.json`` to write.
        quantile: share of the voxels inside the brain of other subjects that shall stay below
            (:func:`level_for_others`), e.g. 0.99.
        calibrated_on: the healthy data, in words.
        settings: under which the threshold holds.
        weights: of the network; their hash is recorded.

    Attributes:
        threshold: what was written; none before the end.

    Raises:
        InputError: a quantile outside (0, 1); at run time, a case with a lesion, or maps that are zero there.
    """

    def __init__(
        self, path: str | Path, quantile: float, calibrated_on: str, settings: Mapping[str, Any], weights: str | Path
    ) -> None:
        if not 0 < quantile < 1:
            raise InputError(f"quantile {quantile}", "is not between 0 and 1", "use e.g. 0.99 for 1 % false positives")
        super().__init__(path, calibrated_on, settings, weights)
        self.quantile = quantile
        self.histograms: dict[str, ScoreHistogram] = {}
        self.threshold: Threshold | None = None

    def add(self, case: Mapping[str, Any], result: Mapping[str, Any]) -> None:
        """Take the scores inside the brain mask."""
        scores = result["anomaly_map"].as_tensor()
        histogram = self.histograms.setdefault(subject_of(case), ScoreHistogram())
        histogram.update(scores, scores.new_zeros(scores.shape), case["brain_mask"].as_tensor())

    def finish(self) -> None:
        """Write the threshold."""
        pooled = sum(self.histograms.values(), ScoreHistogram())
        level = level_for_others(self.histograms, self.quantile)
        value = pooled.quantile(level)
        if not value > 0:
            raise InputError(self.path, f"quantile {self.quantile} of the maps is {value}", "use a higher quantile")
        self.threshold = Threshold(
            value=value,
            quantile=self.quantile,
            calibrated_on=self.calibrated_on,
            cases=self.cases,
            voxels=pooled.negatives,
            settings=self.settings,
            weights_sha256=sha256(self.weights),
            interval=quantile_interval(self.histograms, level),
            subjects=sorted(map(subject_hash, self.histograms)),
        )
        self.threshold.save(self.path)
        interval = self.threshold.interval
        bounds = f" [{interval[0]:.6g}, {interval[1]:.6g}]" if interval else ""
        found = f"quantile {self.quantile:g} of {self.cases} healthy cases of {len(self.histograms)} subjects"
        if level == 1:
            found += ", too few for it: their highest score"
        print(f"threshold {value:.6g}{bounds} ({found}) → {self.path}")
