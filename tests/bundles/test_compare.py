"""Bundles beside each other: whatever is in the folder is compared, on the same cases, and not computed twice."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from common import InputError
from common.anomaly import clean_mask
from common.cli import main
from common.data import load_cases
from common.evaluation.calibration import subject_hash
from common.evaluation.comparison.case import CaseRecord, fingerprint
from common.evaluation.comparison.compare import compare
from common.evaluation.comparison.run import Job, Processes, run_cases
from common.files import sha256
from tests.bundles import zoo
from tests.data.files import picture

NAMES = ("dae", "ddpm")


def run(pictures: Path, output: Path, settings: Path, **changes: Any) -> dict[str, Any]:
    options = {"bundles_dir": zoo.ROOT / "bundles", "bundles": NAMES, "split": "validation", "settings": str(settings)}
    return compare(str(pictures), output, **{**options, "draws": 50, **changes})


def test_comparison(pictures: Path, settings: Path, overrides: Any, tmp_path: Path) -> None:
    output = tmp_path / "out"
    results = run(pictures, output, settings)
    assert json.loads((output / "results.json").read_text())["bundles"][0]["bundle"] == results["bundles"][0]["bundle"]
    assert {entry["bundle"] for entry in results["bundles"]} == set(NAMES)
    assert results["failures"] == []
    assert results["data"]["cases"] == 4
    for entry in results["bundles"]:
        folder = tmp_path / entry["bundle"]
        options = overrides(zoo.named(entry["bundle"]))
        zoo.infer(zoo.named(entry["bundle"]), pictures, folder, "evaluate.json", split="validation", **options)
        alone = json.loads((folder / "metrics.json").read_text())["metrics"]
        for name, value in alone.items():
            assert entry["metrics"][name] == pytest.approx(value, abs=1e-12), name
        low, high = entry["intervals"]["pixel_ap"]
        assert low <= high
        protocol = entry["protocol"]
        assert protocol["threshold"]["value"] == 0.05
        assert len(protocol["weights_sha256"]["weights"]) == 64
        assert protocol["spacing_mm"] == pytest.approx([2, 2, 1])
        assert entry["cost"]["gflop_per_slice"] > 0
        mirrored = {"dae": 2, "ddpm": 2 * 2 * 3}
        assert entry["cost"]["network_evaluations_per_slice"] == mirrored[entry["bundle"]]
    names = [row["name"] for row in csv.DictReader((output / "results.csv").open())]
    assert names[2].startswith("intensity")
    assert names[3] == "chance"
    assert {pair["metric"] for pair in results["pairs"]} == {"pixel_ap", "case_ap_mean"}
    assert len((output / "cases.csv").read_text().splitlines()) == 1 + 2 * 4
    page = (output / "report.html").read_text()
    assert page.count("<svg") == 5
    assert page.count("data:image/png") == 2 * 4
    for outside in ('src="http', 'href="http', "url(", "@import", str(zoo.ROOT), str(tmp_path)):
        assert outside not in page.replace("url(#", ""), outside


def test_what_is_there_is_not_computed_again(
    pictures: Path, settings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    first = run(pictures, output, settings, bundles="dae")
    stored = {path: path.stat().st_mtime_ns for path in output.rglob("*.npz")}
    assert len(stored) == 4
    lost = next(iter(stored))
    lost.unlink()
    again = run(pictures, output, settings, bundles="dae")
    assert {path for path in stored if path.stat().st_mtime_ns != stored[path]} == {lost}
    assert again["bundles"][0]["metrics"] == pytest.approx(first["bundles"][0]["metrics"], nan_ok=True)

    content = json.loads(settings.read_text())
    settings.write_text(json.dumps({**content, "dae": {**content["dae"], "median": 5}}))
    with pytest.raises(InputError, match=r"4 of 4 cases are missing"):
        run(pictures, output, settings, bundles="dae", score_only=True)
    changed = run(pictures, output, settings, bundles="dae")
    assert changed["bundles"][0]["metrics"]["pixel_ap"] != first["bundles"][0]["metrics"]["pixel_ap"]
    settings.write_text(json.dumps({**content, "dae": {**content["dae"], "median": 5, "threshold": 0.2}}))
    monkeypatch.setattr("common.evaluation.comparison.collect.Meter.__call__", None)
    other = run(pictures, output, settings, bundles="dae")  # a threshold needs no new maps
    assert other["bundles"][0]["metrics"]["threshold"] == 0.2


def test_a_bundle_that_fails_does_not_stop_the_others(
    pictures: Path, settings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And a bundle is compared because its folder is there."""
    folder = tmp_path / "bundles"
    for name, source in (("mine", "dae"), ("broken", "ddpm")):
        shutil.copytree(zoo.named(source), folder / name, ignore=shutil.ignore_patterns("models", "docs"))
    content = json.loads(settings.read_text())
    (tmp_path / "not.pt").write_bytes(b"no weights")
    broken = {**content["ddpm"], "weights": str(tmp_path / "not.pt")}
    settings.write_text(json.dumps({"mine": content["dae"], "broken": broken}))
    words = ["compare", pictures, tmp_path / "out", "--split", "validation", "--settings", settings, "--draws", 20]
    with pytest.raises(SystemExit) as stop:
        main([*map(str, words), "--bundles_dir", str(folder)])
    assert stop.value.code == 1
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [entry["bundle"] for entry in results["bundles"]] == ["mine"]
    (failure,) = results["failures"]
    assert failure["bundle"] == "broken"
    assert "not.pt: cannot be read as weights" in failure["error"]
    assert "failed: broken" in capsys.readouterr().out
    assert "broken" in (tmp_path / "out" / "report.html").read_text()


COMMANDS = {
    "compare": "compare {data} {out} --bundles dae",
    "curve": "curve dae {data} {out}",
    "robustness": "robustness dae {data} {out} --attack_cases 0",
    "robustness of two": "robustness dae,ddpm {data} {out} --attack_cases 0",
    "calibrate": "calibrate dae {data} --out {out}",
}


@pytest.mark.parametrize("words", COMMANDS.values(), ids=[*COMMANDS])
def test_slips_stop_a_command_before_a_network_runs(
    words: str,
    pictures: Path,
    settings: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(torch.nn.Module, "__call__", None)

    def told(out: Path) -> str:
        given = words.format(data=pictures, out=out).split()
        with pytest.raises(SystemExit) as stop:
            main([*given, "--split", "training", "--settings", str(settings)])
        assert stop.value.code == 2
        return capsys.readouterr().err

    (tmp_path / "file").touch()
    assert "cannot be written → give another folder" in told(tmp_path / "file" / "out")
    settings.write_text('{"*": {"nosie_level": 1, "spatial_size": [32, 32]}}')
    assert "sets nosie_level under '*', which no bundle has" in told(tmp_path / "out")
    settings.write_text('{"dae": {"nosie_level": 1}}')
    assert "settings of 'dae': has no nosie_level" in told(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_processes_share_the_cases(pictures: Path, settings: Path, tmp_path: Path) -> None:
    cases = load_cases(pictures, "validation", truth="mask")
    data = {case["case"]: fingerprint(case) for case in cases}
    given = json.loads(settings.read_text())["dae"]
    maps = {}
    for count in (1, 2):
        job = Job(zoo.named("dae"), tmp_path / str(count), str(pictures), "validation", given)
        for rank in range(count):
            run_cases(job, cases, data, Processes(rank, count), "dae")
            if (rank, count) == (0, 2):
                assert len(list(job.folder.glob("*.npz"))) == 2
        assert job.failures() == []
        maps[count] = [each.anomaly_map for each in job.records(cases)]
    for one, two in zip(maps[1], maps[2], strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"settings": {"thorr": {}}}, "not there: thorr"), ({"settings": {"dae": {"medain": 1}}}, "has no medain")],
)
def test_slips_are_refused_before_anything_runs(
    pictures: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    file = tmp_path / "settings.json"
    file.write_text(json.dumps(changes["settings"]))
    with pytest.raises(InputError, match=message):
        run(pictures, tmp_path / "out", file)
    assert not (tmp_path / "out").exists()


def test_calibration_from_the_command_line(
    healthy: Path,
    pictures: Path,
    settings: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    content = json.loads(settings.read_text())["dae"]
    weights = shutil.copy(content["weights"], tmp_path / "model.pt")
    settings.write_text(json.dumps({"dae": {key: value for key, value in content.items() if key != "weights"}}))
    words = ["calibrate", "dae", pictures, "--split", "training", "--fpr", 0.05, "--settings", settings]
    main([*map(str, words), "--weights", str(weights)])
    assert "quantile 0.95 of 4 healthy cases of 4 subjects" in capsys.readouterr().out
    found = json.loads((tmp_path / "threshold.json").read_text())  # beside the weights
    assert found["interval"][0] <= found["value"] <= found["interval"][1]
    assert found["subjects"] == sorted(subject_hash(f"training_{index}") for index in (0, 2, 4, 6))
    with pytest.raises(SystemExit) as stop:
        main(["calibrate", "dae", str(healthy), "--fpr", "1.5"])
    assert stop.value.code == 2

    # Inference takes it, and a comparison sees that it does not come from its cases, or that it does.
    use = {**content, "weights": str(weights), "threshold": str(tmp_path / "threshold.json")}
    settings.write_text(json.dumps({"dae": use}))
    for split, status in (("validation", "ok"), ("training", "leak")):
        results = run(pictures, tmp_path / split, settings, bundles="dae", split=split)
        checks = {leak["check"]: leak["status"] for leak in results["leaks"]}
        assert checks["threshold is not from the test cases"] == status
        assert checks["threshold belongs to settings and weights"] == "ok"
        assert results["bundles"][0]["metrics"]["threshold"] == found["value"]

    # Or it takes thresholds from other subjects, at the rate of the bundle's own.
    shown: list[float] = []

    def noting(values: Any, threshold: float, min_size: int) -> Any:
        shown.append(threshold)
        return clean_mask(values, threshold, min_size)

    monkeypatch.setattr("common.evaluation.comparison.page.clean_mask", noting)
    folded = run(pictures, tmp_path / "training", settings, bundles="dae", split="training", folds=2)
    checks = {leak["check"]: leak["status"] for leak in folded["leaks"]}
    assert checks["threshold is not from the test cases"] == "ok"
    (entry,) = folded["bundles"]
    assert entry["protocol"]["threshold"]["quantile"] == 0.95
    assert "other 1 of 2 folds" in entry["protocol"]["threshold"]["calibrated_on"]
    assert entry["metrics"]["pixel_ap"] == results["bundles"][0]["metrics"]["pixel_ap"]
    assert folded["command"].endswith("--folds 2")
    rows = list(csv.DictReader((tmp_path / "training" / "cases.csv").open()))
    limits = {float(row["threshold"]) for row in rows}
    assert len(limits) == 2
    assert entry["metrics"]["threshold"] == pytest.approx(sum(limits) / 2)
    assert set(shown) <= limits
    assert len(shown) == 4
    with pytest.raises(InputError, match="--folds 99: does not divide"):
        run(pictures, tmp_path / "none", settings, bundles="dae", split="training", folds=99)
    assert not (tmp_path / "none").exists()


def test_sets_of_weights(pictures: Path, overrides: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All files of a bundle come from the folder: networks, what is calibrated on healthy scans, thresholds."""
    folder, file = tmp_path / "weights", tmp_path / "settings.json"
    given = {}
    for name in ("classifier_guided_ddim", "ensemble"):
        given[name] = overrides(zoo.named(name))
        (folder / name).mkdir(parents=True)
        for key, target in (("weights", "model.pt"), ("classifier_weights", "classifier.pt")):
            if key in given[name]:
                shutil.copy(given[name].pop(key), folder / name / target)
        del given[name]["threshold"]
    file.write_text(json.dumps(given))
    words = ["calibrate", "all", pictures, "--split", "training", "--settings", file, "--weights", folder]
    main([*map(str, words)])
    assert "statistics of 4 healthy cases" in capsys.readouterr().out
    shipped = zoo.named("ensemble") / "models" / "statistics.json"
    assert (folder / "ensemble" / "statistics.json").read_text() != shipped.read_text()
    with pytest.raises(SystemExit):
        main([*map(str, words[:1]), "dae", *map(str, words[2:])])
    assert f"{folder}: holds no weights of dae" in capsys.readouterr().err

    results = run(pictures, tmp_path / "out", file, bundles=list(given), weights=str(folder), draws=5)
    assert results["failures"] == []
    for entry in results["bundles"]:
        own = json.loads((folder / entry["bundle"] / "threshold.json").read_text())
        assert entry["protocol"]["threshold"]["value"] == own["value"]
        assert entry["cost"]["gflop_per_slice"] > 0
        assert entry["cost"]["hardware"].endswith("float32")
        assert "IXI" not in entry["protocol"]["training_set"]
    hashes = {entry["bundle"]: entry["protocol"]["weights_sha256"] for entry in results["bundles"]}
    names = {"weights": "model.pt", "classifier_weights": "classifier.pt", "statistics": "statistics.json"}
    for bundle, keys in (
        ("classifier_guided_ddim", ("weights", "classifier_weights")),
        ("ensemble", ("weights", "statistics")),
    ):
        assert hashes[bundle] == {key: sha256(folder / bundle / names[key]) for key in keys}

    (folder / "classifier_guided_ddim" / "classifier.pt").unlink()
    with pytest.raises(InputError, match=r"classifier_guided_ddim: has no classifier\.pt"):
        run(pictures, tmp_path / "other", file, bundles="classifier_guided_ddim", weights=str(folder))


def test_healthy_cases_alone_and_stored_cases_are_small(healthy: Path, settings: Path, tmp_path: Path) -> None:
    results = run(healthy, tmp_path, settings, bundles="dae", split=None)
    assert np.isnan(results["bundles"][0]["metrics"]["pixel_ap"])
    assert results["bundles"][0]["metrics"]["healthy_fpr"] >= 0
    assert "warning" in {leak["status"] for leak in results["leaks"]}
    (first, second) = sorted((tmp_path / "cases" / "dae").glob("*.npz"))
    assert first.stat().st_size < 150_000
    assert CaseRecord.load(second).anomaly_map.dtype == np.float32


def test_an_empty_mask_makes_no_lesion(pictures: Path, settings: Path, tmp_path: Path) -> None:
    entries = json.loads((pictures / "datalist.json").read_text())["validation"]
    empty = picture(tmp_path / "empty.png", np.zeros((90, 108), np.uint8))
    for entry in entries:
        mask = pictures / entry["mask"] if entry.pop("label") else empty
        entry.update(image=str(pictures / entry["image"]), mask=str(mask))
    (tmp_path / "datalist.json").write_text(json.dumps({"validation": entries}))
    results = run(tmp_path / "datalist.json", tmp_path / "out", settings, bundles="dae")
    assert (results["data"]["lesion_cases"], results["data"]["healthy_cases"]) == (2, 2)
    chance = next(entry for entry in results["baselines"] if entry["name"] == "chance")
    assert chance["metrics"]["image_ap_top1"] == 0.5
