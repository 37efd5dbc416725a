"""Thresholds from the healthy cases of the test set itself, for each subject from other subjects."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from common.anomaly import Threshold
from common.data import Case, subject_of
from common.errors import InputError
from common.evaluation.calibration import level_for_others
from common.evaluation.comparison.case import CaseRecord
from common.evaluation.histogram import ScoreHistogram
from common.options import whole_number

__all__ = ["PROMISED", "check_folds", "fold_thresholds"]

PROMISED = 0.99
"""Share of healthy voxels below the threshold, of a bundle that has no calibrated one."""


def check_folds(folds: int, cases: Sequence[Case], ill: Mapping[str, bool]) -> None:
    """Stop where the cases cannot be divided.

    Args:
        folds: how many; 0 for none.
        cases: that are scored.
        ill: by name of the case, whether it has a lesion.

    Raises:
        InputError: one fold, more than there are subjects, or fewer than two with healthy cases outside some fold.
    """
    if whole_number("--folds", folds, 0) == 0:
        return
    subjects = {subject_of(case) for case in cases}
    if not 2 <= folds <= len(subjects):
        remedy = f"give 2 to {len(subjects)}, or leave it away" if len(subjects) > 1 else "leave it away"
        raise InputError(f"--folds {folds}", f"does not divide {len(subjects)} subjects", remedy)
    healthy = {subject_of(case) for case in cases if not ill[case["case"]]}
    fold_of = _folds(subjects, healthy, folds)
    fewest = min(sum(fold_of[subject] != fold for subject in healthy) for fold in range(folds))
    if fewest < 2:
        problem = f"leaves healthy cases of {fewest} subjects for the threshold of some fold"
        raise InputError(f"--folds {folds}", problem, "add healthy cases, or leave it away")


def fold_thresholds(
    records: Iterable[CaseRecord], quantile: float, folds: int, settings: Mapping[str, Any]
) -> tuple[dict[str, float], Threshold]:
    """The threshold of each subject, calibrated on the healthy cases of the subjects of the other folds.

    Args:
        records: stored cases; healthy is what has no lesion, and the label 0 or none.
        quantile: share of healthy voxels that shall stay below, as of ``ThresholdCalibration``.
        folds: subjects are dealt out to them in turn, first those with healthy cases, by name.
        settings: under which the maps were made.

    Returns:
        thresholds by subject, in units of the map; and what a protocol says of them, with their median as value.
    """
    histograms: dict[str, ScoreHistogram] = {}
    subjects, cases = set(), 0
    for record in records:
        subjects.add(record.subject)
        if record.label <= 0 and not record.truth.any():
            cases += 1
            histogram = histograms.setdefault(record.subject, ScoreHistogram())
            histogram.update(record.anomaly_map, record.truth, record.region, source=f"case {record.case}")
    fold_of = _folds(subjects, histograms, folds)
    values = []
    for fold in range(folds):
        others = {subject: histogram for subject, histogram in histograms.items() if fold_of[subject] != fold}
        pooled = sum(others.values(), ScoreHistogram())
        values.append(pooled.quantile(level_for_others(others, quantile)))
    words = (
        f"healthy cases of the test set, for each subject those of the other {folds - 1} of {folds} folds of subjects"
    )
    voxels = sum(histogram.negatives for histogram in histograms.values())
    origin = Threshold(float(np.median(values)), quantile, words, cases, voxels, dict(settings))
    return {subject: values[fold] for subject, fold in fold_of.items()}, origin


def _folds(subjects: Iterable[str], healthy: Container[str], folds: int) -> dict[str, int]:
    ordered = sorted(subjects, key=lambda subject: (subject not in healthy, subject))
    return {subject: index % folds for index, subject in enumerate(ordered)}
