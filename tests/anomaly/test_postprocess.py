import json
import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from common.anomaly import PostProcessd, Threshold, clean_map, clean_mask, resolve_threshold
from common.errors import InputError
from common.files import sha256


def test_median_removes_single_pixels_and_keeps_blobs():
    raw = np.zeros((20, 20, 2), np.float32)
    raw[5, 5, 0] = 1
    raw[10:16, 10:16, 1] = 1
    cleaned = clean_map(raw, np.ones_like(raw), median=5, erosion=0)
    assert cleaned[..., 0].max() == 0
    assert cleaned[12, 12, 1] == 1
    assert np.array_equal(clean_map(raw, np.ones_like(raw), median=1, erosion=0), raw)


def test_rim_of_the_brain_is_zero():
    brain = np.zeros((20, 20, 1))
    brain[4:16, 4:16] = 1
    cleaned = clean_map(np.ones_like(brain), brain, median=1, erosion=2)
    assert cleaned.sum() == 8 * 8
    assert cleaned[6:14, 6:14].min() == 1


def test_small_components_go():
    values = np.zeros((10, 10, 3), np.float32)
    values[1, 1, 0] = values[2, 2, 1] = values[3, 3, 2] = 1  # one component of 3, across corners
    values[6:9, 6:9, 1] = 1
    assert clean_mask(values, 0.5, min_size=4).sum() == 9
    assert clean_mask(values, 0.5, min_size=3).sum() == 12
    for threshold in (0.5, 1.0):  # at or above it
        assert clean_mask(values, threshold, min_size=1).sum() == 12


def test_transform_keeps_the_geometry():
    affine = torch.diag(torch.tensor([2.0, -2.0, 3.0, 1.0]))
    raw = MetaTensor(torch.rand(1, 20, 20, 2), affine=affine)
    case = PostProcessd(0.1)({"anomaly_map": raw, "brain_mask": torch.ones(1, 20, 20, 2)})
    for key in ("anomaly_map", "anomaly_mask"):
        assert case[key].shape == raw.shape
        assert torch.equal(case[key].affine, raw.affine)
    assert set(case["anomaly_mask"].unique().tolist()) <= {0.0, 1.0}
    assert case["anomaly_mask"].any()


THRESHOLD = Threshold(value=0.2, quantile=0.99, calibrated_on="x", cases=3, voxels=9, settings={"noise_level": 350})


def test_threshold_survives_the_file(tmp_path):
    THRESHOLD.save(tmp_path / "models" / "threshold.json")
    assert Threshold.load(tmp_path / "models" / "threshold.json") == THRESHOLD
    assert resolve_threshold(str(tmp_path / "models" / "threshold.json")) == 0.2


def test_other_settings_are_named(tmp_path, caplog):
    path = tmp_path / "threshold.json"
    THRESHOLD.save(path)
    with caplog.at_level(logging.WARNING):
        resolve_threshold(path, {"noise_level": 350})
        assert not caplog.records
        resolve_threshold(path, {"noise_level": 200, "mirror": True})
    assert "noise_level: 350 → 200, mirror: not known then → True" in caplog.text


def test_other_weights_are_named(tmp_path, caplog):
    path, weights, others = (tmp_path / name for name in ("threshold.json", "model.pt", "others.pt"))
    weights.write_bytes(b"weights")
    others.write_bytes(b"others")
    replace(THRESHOLD, weights_sha256=sha256(weights)).save(path)
    with caplog.at_level(logging.WARNING):
        PostProcessd(path, weights=weights)
        assert not caplog.records
        PostProcessd(path, weights=others)
    assert "with other weights than" in caplog.text


@pytest.mark.parametrize("content", ["{", "{}", json.dumps({"value": 1}), None])
def test_bad_threshold_files_are_refused(tmp_path, content):
    path = tmp_path / "threshold.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=r"threshold\.json"):
        resolve_threshold(path)


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf")])
def test_thresholds_are_positive(value):
    with pytest.raises(InputError, match="positive"):
        resolve_threshold(value)
