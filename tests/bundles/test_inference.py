from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from common import InputError
from common.networks import sha256
from tests.bundles import zoo
from tests.bundles.synthetic import write_volumes

KEYS = ("anomaly_map", "anomaly_mask", "pseudo_healthy")
METRICS = ("pixel_ap", "oracle_dice", "dice", "healthy_fpr", "image_auroc_top1", "image_auroc_mean", "intensity_ap")

matrix = pytest.mark.parametrize("bundle", zoo.BUNDLES, ids=zoo.by_name)


def read_map(output: Path, case: str) -> np.ndarray:
    return np.asarray(nibabel.load(output / f"{case}_anomaly_map.nii.gz").dataobj)


@matrix
def test_results_lie_where_the_input_lies(bundle: Path, overrides: Any, volumes: Path, tmp_path: Path) -> None:
    zoo.infer(bundle, volumes, tmp_path, **overrides(bundle))
    cases = [entry["case"] for entry in json.loads((volumes / "datalist.json").read_text())]
    keys = zoo.read(bundle, "inference.json")["handlers"][0].get("keys", KEYS)
    assert set(keys) >= set(KEYS)
    names = {f"{case}_{key}.nii.gz" for case in cases for key in keys}
    assert {path.name for path in tmp_path.iterdir()} == names | {"run.json", "journal.jsonl"}
    for case in cases:
        given = nibabel.load(volumes / f"{case}.nii.gz")
        outside = np.asarray(given.dataobj) == 0
        for key in keys:
            result = nibabel.load(tmp_path / f"{case}_{key}.nii.gz")
            values = np.asarray(result.dataobj)
            assert result.shape == given.shape
            np.testing.assert_allclose(result.affine, given.affine, atol=1e-4)
            assert np.isfinite(values).all()
            assert values.min() >= 0
            assert values.any() or key == "anomaly_mask"
            assert values.max() <= 1 + 1e-3 or key == "anomaly_map"
        assert not read_map(tmp_path, case)[outside].any()
        assert set(np.unique(nibabel.load(tmp_path / f"{case}_anomaly_mask.nii.gz").dataobj)) <= {0, 1}
    summary = json.loads((tmp_path / "run.json").read_text())
    assert summary["cases"] == cases
    assert summary["network_evaluations"] > 0


@matrix
def test_result_depends_on_the_case_alone(bundle: Path, overrides: Any, volumes: Path, tmp_path: Path) -> None:
    first = json.loads((volumes / "datalist.json").read_text())[0]
    alone = tmp_path / "alone.json"
    alone.write_text(json.dumps([{**first, **{key: str(volumes / first[key]) for key in ("image", "mask")}}]))
    behind = tmp_path / "behind.json"
    behind.write_text(json.dumps([{"image": str(volumes / "well.nii.gz")}, *json.loads(alone.read_text())]))
    maps = {}
    for name, data, batch_size in (
        ("once", alone, 16),
        ("again", alone, 16),
        ("behind", behind, 16),
        ("one by one", alone, 1),
    ):
        size = {"batch_size": batch_size} if "batch_size" in zoo.read(bundle, "inference.json") else {}
        zoo.infer(bundle, data, tmp_path / name, **{**overrides(bundle), **size})
        maps[name] = read_map(tmp_path / name, first["case"])
    np.testing.assert_array_equal(maps["again"], maps["once"])
    np.testing.assert_array_equal(maps["behind"], maps["once"])
    np.testing.assert_allclose(maps["one by one"], maps["once"], atol=1e-3)


@matrix
def test_pictures_are_images_too(bundle: Path, overrides: Any, pictures: Path, tmp_path: Path) -> None:
    """Of a size that the network cannot take without padding."""
    zoo.infer(bundle, pictures / "validation_8.png", tmp_path, **overrides(bundle))
    assert read_map(tmp_path, "validation_8").shape == (108, 90, 1)


@matrix
def test_evaluation(bundle: Path, overrides: Any, volumes: Path, tmp_path: Path) -> None:
    made = zoo.infer(bundle, volumes, tmp_path, "evaluate.json", **overrides(bundle))
    written = json.loads((tmp_path / "metrics.json").read_text())
    for key in METRICS:
        assert math.isfinite(written["metrics"][key]), key
        assert 0 <= written["metrics"][key] <= 1
    assert written["metrics"]["cases"] == 4
    assert written["metrics"]["lesion_cases"] == 2
    assert written["metrics"]["threshold"] == 0.05
    assert written["protocol"]["weights_sha256"] == sha256(made.parser["weights"])
    assert written["protocol"]["training_set"] == "that of the weights that were given"
    assert written["protocol"]["threshold_from"] == "a number that was given"
    assert written["protocol"]["settings"] == made.parser.get_parsed_content("settings")
    assert len((tmp_path / "cases.csv").read_text().splitlines()) == 5


@matrix
def test_calibration(bundle: Path, overrides: Any, healthy: Path, tmp_path: Path) -> None:
    file = tmp_path / "threshold.json"
    # Not the threshold that is to be found: `calibrate.json` needs none.
    options = {key: value for key, value in overrides(bundle).items() if key != "threshold"}
    made = zoo.infer(bundle, healthy, tmp_path / "nothing", "calibrate.json", threshold_file=str(file), **options)
    threshold = json.loads(file.read_text())
    assert threshold["value"] > 0
    assert threshold["quantile"] == 0.99
    assert threshold["cases"] == 2
    assert threshold["weights_sha256"] == sha256(options["weights"])
    assert threshold["settings"] == made.parser.get_parsed_content("settings")
    assert not (tmp_path / "nothing").exists()

    loaded = zoo.infer(bundle, healthy, tmp_path / "found", threshold=str(file), **options)
    assert loaded.parser.get_parsed_content("clean").threshold == threshold["value"]
    inside = np.asarray(nibabel.load(healthy / "well.nii.gz").dataobj) > 0
    marked = np.asarray(nibabel.load(tmp_path / "found" / "well_anomaly_mask.nii.gz").dataobj) > 0
    assert marked.sum() <= 0.05 * inside.sum()


@matrix
def test_calibration_refuses_a_lesion(bundle: Path, overrides: Any, tmp_path: Path) -> None:
    """Where no label says which cases are healthy, masks do."""
    data = write_volumes(tmp_path, healthy=0.0, ill=70.0)
    listed = [{**entry, "label": None} for entry in json.loads((data / "datalist.json").read_text())]
    (data / "datalist.json").write_text(json.dumps(listed))
    file = tmp_path / "models" / "threshold.json"
    options = {key: value for key, value in overrides(bundle).items() if key != "threshold"}
    with pytest.raises((RuntimeError, InputError)) as caught:
        zoo.infer(bundle, data, tmp_path / "output", "calibrate.json", threshold_file=str(file), **options)
    error = zoo.input_error(caught.value)
    assert "1 of 2 cases" in error.source
    assert "ill.nii.gz" in error.source
    assert "by their mask" in error.problem
    assert "healthy" in error.remedy
    assert not file.exists()
