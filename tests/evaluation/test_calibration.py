"""Thresholds come from healthy scans alone, inside the brain, and tell no subject's name."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor

from common.anomaly import Threshold
from common.errors import InputError
from common.evaluation.calibration import ThresholdCalibration, level_for_others, subject_hash
from common.evaluation.histogram import ScoreHistogram
from common.files import sha256

BRAIN = torch.zeros(1, 10, 20, 1)
BRAIN[:, :, :10] = 1


def calibrate(folder: Path, *cases: dict[str, Any]) -> Threshold:
    """Scores 0.01 to 1 inside the brain and 100 outside, the same in each case but for its ``scale``."""
    (folder / "model.pt").write_bytes(b"weights")
    scores = torch.full_like(BRAIN, 100.0)
    scores[:, :, :10, 0] = torch.arange(1, 101).reshape(1, 10, 10) / 100
    handler = ThresholdCalibration(folder / "threshold.json", 0.9, "healthy", {"level": 2}, folder / "model.pt")
    engine = Engine(
        lambda engine, batch: [{"anomaly_map": MetaTensor(case.get("scale", 1) * scores)} for case in batch]
    )
    handler.attach(engine)
    engine.run([[{"brain_mask": MetaTensor(BRAIN), **case}] for case in cases])
    return Threshold.load(folder / "threshold.json")


def test_a_share_of_the_brains_lies_above_it(tmp_path: Path) -> None:
    empty = MetaTensor(torch.zeros_like(BRAIN))
    cases: list[dict[str, Any]] = [
        {"case": "a", "subject": "anna", "label": 0},
        {"case": "b", "subject": "anna"},
        {"case": "c", "mask": empty},
    ]
    found = calibrate(tmp_path, *cases)
    assert found.value == pytest.approx(0.9, rel=0.02)
    assert (found.quantile, found.cases, found.voxels, found.settings) == (0.9, 3, 300, {"level": 2})
    assert found.subjects == sorted([subject_hash("anna"), subject_hash("c")])
    assert found.interval == [found.value, found.value]
    assert found.weights_sha256 == sha256(tmp_path / "model.pt")


@pytest.mark.parametrize("ill", [{"label": 1}, {"mask": MetaTensor(torch.ones_like(BRAIN))}], ids=["label", "mask"])
def test_a_case_with_a_lesion_is_refused(ill: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="b: has a lesion"):
        calibrate(tmp_path, {"case": "a"}, {"case": "b", **ill})
    assert not (tmp_path / "threshold.json").exists()


def histograms(scales: np.ndarray, seed: int = 0, count: int = 500) -> dict[str, ScoreHistogram]:
    """Subjects whose scores are exponential, each with its own mean."""
    generator = np.random.default_rng(seed)
    found = {str(index): ScoreHistogram() for index in range(len(scales))}
    for histogram, scale in zip(found.values(), scales, strict=True):
        histogram.update(generator.exponential(scale, count), np.zeros(count))
    return found


def test_a_threshold_keeps_its_promise_for_other_subjects() -> None:
    """Of ten subjects that differ much, the pooled quantile has half as many false positives again as it says."""
    others = sum(histograms(np.exp(np.random.default_rng(99).normal(0, 0.6, 2000)), 99).values(), ScoreHistogram())
    rates: dict[str, list[float]] = {"pooled": [], "promised": []}
    for seed in range(80):
        subjects = histograms(np.exp(np.random.default_rng(seed).normal(0, 0.6, 10)), seed)
        pooled = sum(subjects.values(), ScoreHistogram())
        for name, level in (("pooled", 0.99), ("promised", level_for_others(subjects, 0.99))):
            rates[name].append(others.false_positive_rate(pooled.quantile(level)))
    assert np.mean(rates["pooled"]) > 0.015
    assert np.mean(rates["promised"]) == pytest.approx(0.01, rel=0.25)


def left_out_rate(subjects: dict[str, ScoreHistogram], level: float) -> float:
    exceeding = 0.0
    for name, own in subjects.items():
        rest = sum((each for key, each in subjects.items() if key != name), ScoreHistogram())
        exceeding += own.false_positive_rate(rest.quantile(level)) * own.negatives
    return exceeding / sum(each.negatives for each in subjects.values())


def test_the_level_is_the_lowest_that_holds_for_subjects_left_out() -> None:
    subjects = histograms(np.array([1, 1.2, 0.8, 1, 2.5, 1.1, 0.9, 1.3]))
    level = level_for_others(subjects, 0.95)
    assert level > 0.95
    assert left_out_rate(subjects, level) <= 0.05
    assert left_out_rate(subjects, level - 0.002) > 0.05


def test_a_single_subject_or_too_few_promise_what_they_can(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = histograms(np.array([1.0]))
    assert level_for_others(one, 0.9) == 0.9
    assert level_for_others({**one, "far": histograms(np.array([50.0]))["0"]}, 0.9) == 1
    calibrate(tmp_path, {"case": "a"})
    assert "too few" not in capsys.readouterr().out
    calibrate(tmp_path, {"case": "a"}, {"case": "b", "scale": 50})
    assert "of 2 subjects, too few for it: their highest score)" in capsys.readouterr().out
