from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from common import demo
from common.data import discover
from common.data.brain_mask import MNI_AFFINE, MNI_SHAPE
from common.errors import InputError
from common.evaluation import evaluate_map

SLAB = slice(90, 101)  # z from +18 to +28 mm


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "scan"
    demo.demo_scan(folder)
    return folder


def volume(path: Path) -> np.ndarray:
    return np.asarray(nibabel.load(path).dataobj, dtype=np.float32)


def test_the_scan_is_in_mni_space(scan: Path) -> None:
    (case,) = discover(scan)
    assert case["case"] == "icbm152"
    assert case["label"] == 1
    for key, name in (("image", "t1"), ("mask", "lesion"), ("brain_mask", "brain_mask")):
        assert case[key] == str(scan / f"icbm152_{name}.nii.gz")
        file: Any = nibabel.load(case[key])
        assert file.shape == MNI_SHAPE
        assert np.allclose(file.affine, MNI_AFFINE)
        assert int(file.header["sform_code"]) == int(file.header["qform_code"]) == 4
        assert np.allclose(file.header.get_qform(), MNI_AFFINE)
        assert nibabel.aff2axcodes(file.affine) == ("R", "A", "S")


def test_the_lesion_is_in_the_brain_and_no_outlier(scan: Path) -> None:
    image, lesion, brain = (volume(scan / f"icbm152_{name}.nii.gz") for name in ("t1", "lesion", "brain_mask"))
    inside, positive = brain > 0, lesion > 0
    assert positive[..., 95].sum() > 200  # z = +23 mm
    assert inside[positive].all()
    assert (np.argwhere(positive)[:, 0] < 98).all()  # left of the midline
    assert 2500 < positive.sum() < 9000
    healthy = image[inside & ~positive]
    assert healthy.min() <= image[positive].min()
    assert image[positive].max() <= healthy.max()
    low, high = np.percentile(image[inside], [1, 99])
    assert (image[positive] >= low).all()
    mirrored = image[::-1][positive]  # the template is symmetric, so that this is what was there before
    assert -0.4 < np.median(image[positive] - mirrored) / (high - low) < -0.2
    scaled = np.clip((image - low) / (high - low), 0, 1)[..., SLAB]
    scores = evaluate_map(scaled, lesion[..., SLAB], brain[..., SLAB], scaled)
    assert scores["prevalence"] < scores["intensity_ap"] < 0.35


def stand_in(monkeypatch: pytest.MonkeyPatch, repository: Path, commands: list[list[str]], spoil: str = "") -> None:
    """Instead of a bundle: a map that finds the lesion with some noise, in a slab of the scan."""

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[bytes]:
        commands.append(command)
        assert options["env"]["PYTHONPATH"].startswith(str(repository))
        assert options["cwd"] == repository
        arguments = dict(zip(command[4::2], command[5::2], strict=True))
        (case,), output = discover(arguments["--dataset_dir"]), Path(arguments["--output_dir"])
        affine, lesion = MNI_AFFINE.copy(), volume(Path(case["mask"]))
        brain = volume(Path(case["brain_mask"]))
        results = {"pseudo_healthy": 0.5 * brain, "anomaly_mask": lesion}
        results["anomaly_map"] = (0.2 * lesion + 0.1 * np.random.default_rng(0).random(MNI_SHAPE)) * brain
        affine[0, 3] += 2 * (spoil == "geometry")
        for name, array in results.items():
            slab = np.zeros(MNI_SHAPE, np.float32)
            if spoil != "empty":
                slab[..., SLAB] = array[..., SLAB]
            nibabel.save(nibabel.Nifti1Image(slab, affine), output / f"icbm152_{name}.nii.gz")
        details = {"network_evaluations": 110, "network_evaluations_per_slice": 10, "seconds": 1.5, "cases": []}
        if spoil != "details":
            (output / "run.json").write_text(json.dumps(details))
        return subprocess.CompletedProcess(command, 3 if spoil == "code" else 0)

    monkeypatch.setattr(subprocess, "run", run)


@pytest.fixture
def bundles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scan: Path) -> Path:
    """A repository of one empty bundle; the scan is not drawn anew."""
    config = tmp_path / "bundles" / "some" / "configs" / "inference.json"
    config.parent.mkdir(parents=True)
    config.write_text("{}")
    monkeypatch.setattr(demo, "_REPOSITORY", tmp_path)
    (case,) = discover(scan)

    def copy(folder: Path) -> dict[str, Any]:
        folder.parent.mkdir(parents=True, exist_ok=True)
        if not folder.exists():
            folder.symlink_to(scan)
        return case

    monkeypatch.setattr(demo, "demo_scan", copy)
    return tmp_path / "bundles"


def test_run(bundles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    commands: list[list[str]] = []
    stand_in(monkeypatch, tmp_path, commands)
    monkeypatch.chdir(tmp_path)
    summary = demo.run("out", "some", 7)
    out, root = tmp_path / "out", bundles / "some"
    assert commands == [
        [sys.executable, "-m", "monai.bundle", "run", "--config_file", str(root / "configs" / "inference.json"),
         "--bundle_root", str(root), "--dataset_dir", str(out / "scan"), "--output_dir", str(out),
         "--num_inference_steps", "7"]
    ]  # fmt: skip
    assert summary == json.loads((out / "summary.json").read_text())
    # The lesion always scores higher than the rest: 0.2 against at most 0.1.
    assert summary["anomaly_ap"] > 0.99
    assert summary["oracle_dice"] > 0.99
    assert summary["dice"] == 1
    assert summary["prevalence"] < summary["intensity_ap"] < 0.35
    expected: dict[str, Any] = {
        "seconds": 1.5,
        "network_evaluations": 110,
        "network_evaluations_per_slice": 10,
        "slices": 11,
    }
    expected |= {"bundle": "some"}
    assert {key: summary[key] for key in expected} == expected
    page = (out / "report.html").read_text()
    assert page.count("<img ") == 3
    for level in ("+18", "+28"):
        assert f"z = {level} mm" in page
    assert (out / "figure.png").read_bytes().startswith(b"\x89PNG")
    line = capsys.readouterr().out
    assert str(out / "report.html") in line
    assert "110 network evaluations" in line


@pytest.mark.parametrize(
    ("spoil", "message"),
    [("code", "exit code 3"), ("geometry", "not in the geometry"), ("empty", "is empty"), ("details", "run.json")],
)
def test_what_a_bundle_did_wrong_is_said(
    bundles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: str, message: str
) -> None:
    stand_in(monkeypatch, tmp_path, [], spoil)
    with pytest.raises(InputError, match=message):
        demo.run(tmp_path / "out", "some")
    assert not (tmp_path / "out" / "summary.json").exists()


def test_an_unknown_bundle_is_refused(bundles: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"inference\.json: does not exist"):
        demo.run(tmp_path / "out", "other")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_refused_before_the_scan_is_drawn(
    bundles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "demo_scan", None)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file/out: cannot be written → give another folder"):
        demo.run(tmp_path / "file" / "out", "some")
