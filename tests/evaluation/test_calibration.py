"""Thresholds come from healthy scans alone, inside the brain, and tell no subject's name."""

from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor

from common.anomaly import Threshold
from common.errors import InputError
from common.evaluation.calibration import ThresholdCalibration, subject_hash
from common.files import sha256

BRAIN = torch.zeros(1, 10, 20, 1)
BRAIN[:, :, :10] = 1


def calibrate(folder: Path, *cases: dict[str, Any]) -> Threshold:
    """Scores 0.01 to 1 inside the brain and 100 outside, the same in each case."""
    (folder / "model.pt").write_bytes(b"weights")
    scores = torch.full_like(BRAIN, 100.0)
    scores[:, :, :10, 0] = torch.arange(1, 101).reshape(1, 10, 10) / 100
    handler = ThresholdCalibration(folder / "threshold.json", 0.9, "healthy", {"level": 2}, folder / "model.pt")
    engine = Engine(lambda engine, batch: [{"anomaly_map": MetaTensor(scores)} for _ in batch])
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
