"""A hospital's tree of studies: DICOM in and out, bad ones among good ones, and a run that goes on."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import highdicom
import nibabel
import numpy as np
import pytest
from monai.bundle import ConfigWorkflow

from common import InputError
from common.inferers import Journal, inference_cases
from tests.bundles import zoo
from tests.bundles.synthetic import SHAPE, brain, oblique
from tests.data.files import nifti
from tests.dicom import PRIVATE, at_the_same_place, write_series

BUNDLE = zoo.named("dae")
KEYS = ("anomaly_map", "anomaly_mask", "pseudo_healthy")


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two series, one in folders with the patient's name, and one with a slice missing."""
    root = tmp_path_factory.mktemp("studies")
    write_series(root / "ROSENBAUM_OTTILIE_HX-48291" / "T1", brain(SHAPE, 1, 70.0).image, oblique())
    write_series(root / "two" / "T1", brain(SHAPE, 2, 70.0).image, oblique(), "1.2.826.0.8", PatientID="2")
    gap = write_series(root / "Ottilie" / "gap", brain(SHAPE, 3).image, oblique(), "1.2.826.0.9")
    next(gap.glob("*_3.dcm")).unlink()
    return root


def same_shape(config: dict[str, Any]) -> dict[str, Any]:
    """The parts of a configuration that all bundles share, without what is the method's own."""
    shared = {key: config[key] for key in ("output_format", "resume", "keep_going", "cases", "dataset", "handlers")}
    shared |= {"evaluator": config["evaluator"], "run": config["run"]}
    settings = {key: value for key, value in config["journal"]["settings"].items() if key != "statistics"}
    return {**shared, "journal": {**config["journal"], "weights": None, "settings": settings}}


def prepared(data: Path, output: Path, options: dict[str, Any]) -> ConfigWorkflow:
    """Inference that is ready to run."""
    made = zoo.workflow(BUNDLE, ["inference.json"], "infer", dataset_dir=str(data), output_dir=str(output), **options)
    made.initialize()
    return made


def refused(data: Path, output: Path, options: dict[str, Any]) -> InputError:
    """Run what must fail; return what the user is told."""
    with pytest.raises((RuntimeError, InputError)) as caught:
        zoo.infer(BUNDLE, data, output, **options)
    return zoo.input_error(caught.value)


@pytest.mark.parametrize("bundle", zoo.BUNDLES, ids=zoo.by_name)
def test_every_bundle_goes_about_it_in_one_way(bundle: Path) -> None:
    config = zoo.read(bundle, "inference.json")
    wanted = same_shape(zoo.read(BUNDLE, "inference.json"))
    found = same_shape(config)
    for part in (wanted, found):  # a method may take several channels, and write more than others
        for key in ("cases", "dataset"):
            part[key] = {name: value for name, value in part[key].items() if name != "channels"}
        part["handlers"] = [{name: each[name] for name in each if name != "keys"} for each in part["handlers"]]
    assert found == wanted
    weights = config["journal"]["weights"]
    named = {f"@{key}" for key in config if key == "weights" or key.endswith("_weights")}
    assert {weights} == named if isinstance(weights, str) else set(weights) == named


def test_from_dicom_to_dicom(studies: Path, overrides: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    options = {**overrides(BUNDLE), "output_format": "both", "keep_going": True}
    error = refused(studies, tmp_path, options)
    assert error.source == "1 of 3 cases"
    assert "has a gap" in error.problem
    summary = json.loads((tmp_path / "run.json").read_text())
    (first,) = (name for name in summary["cases"] if name != "two_T1")
    assert sorted(summary["cases"]) == sorted([first, "two_T1"])
    assert len(summary["failed"]) == 1
    kinds = (
        "anomaly_map.nii.gz",
        "anomaly_mask.nii.gz",
        "pseudo_healthy.nii.gz",
        "anomaly_map.dcm",
        "anomaly_mask.dcm",
    )
    assert {file.name for file in tmp_path.iterdir()} == {
        *(f"{case}_{kind}" for case in summary["cases"] for kind in kinds),
        "journal.jsonl",
        "run.json",
    }
    for case in summary["cases"]:
        for key, dtype in (("anomaly_map", np.float64), ("anomaly_mask", np.uint8)):
            written = nibabel.load(tmp_path / f"{case}_{key}.nii.gz")
            found = highdicom.imread(tmp_path / f"{case}_{key}.dcm").get_volume(dtype=dtype)
            values = at_the_same_place(found, written.affine, written.shape)
            np.testing.assert_allclose(values, np.asarray(written.dataobj), rtol=1e-6)
            assert np.asarray(written.dataobj).any()

    # Whose scans these are stands in the DICOM files alone.
    said = capfd.readouterr()
    shown = [said.out.replace(os.fspath(studies), ""), said.err.replace(os.fspath(studies), ""), str(error)]
    shown += [file.read_text() for file in tmp_path.glob("*.json*")] + [file.name for file in tmp_path.iterdir()]
    for file in tmp_path.glob("*.nii.gz"):
        shown.append(nibabel.load(file).header.binaryblock.decode("latin-1"))
    for text in shown:
        assert not [part for part in PRIVATE if part in text.lower()]


def test_a_bad_series_stops_everything_unless_told_otherwise(studies: Path, overrides: Any, tmp_path: Path) -> None:
    assert "has a gap" in refused(studies, tmp_path / "output", overrides(BUNDLE)).problem
    assert not list((tmp_path / "output").glob("*"))


@pytest.mark.parametrize("keep_going", [False, True])
def test_dicom_is_written_for_dicom_alone(overrides: Any, tmp_path: Path, keep_going: bool) -> None:
    path = nifti(tmp_path / "scan.nii.gz", brain(SHAPE, 1).image, oblique())
    options = {**overrides(BUNDLE), "output_format": "dicom", "keep_going": keep_going}
    error = refused(path, tmp_path / "output", options)
    assert "is no DICOM series" in str(error)
    assert "--output_format nifti" in str(error)
    assert not list((tmp_path / "output").glob("scan*"))


def test_an_unknown_format(overrides: Any, tmp_path: Path) -> None:
    path = nifti(tmp_path / "scan.nii.gz", brain(SHAPE, 1).image, oblique())
    error = refused(path, tmp_path / "output", {**overrides(BUNDLE), "output_format": "png"})
    assert (error.source, error.problem) == ("output_format 'png'", "is not known")


@pytest.mark.parametrize("keep_going", [False, True])
def test_results_may_not_lie_in_the_input(studies: Path, overrides: Any, tmp_path: Path, keep_going: bool) -> None:
    """They would be images of the next run, or slices of the series; beside a list or a file they harm nobody."""
    scan = nifti(tmp_path / "in" / "scan.nii.gz", brain(SHAPE, 1).image, oblique())
    (tmp_path / "link").symlink_to(tmp_path / "in")
    options = {**overrides(BUNDLE), "keep_going": keep_going}
    for output in (tmp_path / "in", tmp_path / "in" / "a" / "results", tmp_path / "link" / "results"):
        error = refused(tmp_path / "in", output, options)
        assert error.source == f"output_dir {output}"
        assert f"lies in the input folder {tmp_path / 'in'}, where" in error.problem
        assert "--output_dir outside" in error.remedy
    assert [file.name for file in (tmp_path / "in").iterdir()] == ["scan.nii.gz"]

    series = studies / "two" / "T1"
    (tmp_path / "list.json").write_text(json.dumps([{"image": str(series)}]))
    assert str(series) in refused(tmp_path / "list.json", series, {**options, "output_format": "dicom"}).problem
    journal = Journal(tmp_path / "in" / "results", {}, ())
    assert [case["image"] for case in inference_cases(scan, journal)] == [str(scan)]
    (tmp_path / "in" / "datalist.json").write_text(json.dumps([{"image": "scan.nii.gz"}]))
    assert [case["image"] for case in inference_cases(tmp_path / "in", journal)] == [str(scan)]


def test_an_output_folder_that_cannot_be_written(overrides: Any, tmp_path: Path) -> None:
    path = nifti(tmp_path / "scan.nii.gz", brain(SHAPE, 1).image, oblique())
    (tmp_path / "file").touch()
    error = refused(path, tmp_path / "file" / "results", overrides(BUNDLE))
    assert (error.source, error.problem) == (str(tmp_path / "file" / "results"), "cannot be written")


def test_a_run_that_was_cut_goes_on(overrides: Any, volumes: Path, tmp_path: Path) -> None:
    """Killed while the third case is on its way: its files are whole or not there, and only what is left is done."""
    made = zoo.workflow(
        BUNDLE,
        ["inference.json"],
        "infer",
        dataset_dir=str(volumes),
        output_dir=str(tmp_path / "a"),
        **overrides(BUNDLE),
    )
    made.initialize()
    journal = made.parser.get_parsed_content("journal")
    done, count = journal.done, []

    def cut(case: str, *args: Any, **kwargs: Any) -> None:
        count.append(case)
        if len(count) == 3:
            raise KeyboardInterrupt
        done(case, *args, **kwargs)

    journal.done = cut
    with pytest.raises(KeyboardInterrupt):
        made.run()
    before = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "a").glob("*.nii.gz")}

    options = {**overrides(BUNDLE), "resume": True}
    rest = zoo.infer(BUNDLE, volumes, tmp_path / "a", **options)
    assert [case["case"] for case in rest.parser.get_parsed_content("cases")] == ["dark", "well"]
    for name, changed in before.items():
        again = (tmp_path / "a" / name).stat().st_mtime_ns
        assert (again == changed) == name.startswith(("bright", "healthy"))
    whole = zoo.infer(BUNDLE, volumes, tmp_path / "b", **overrides(BUNDLE))
    assert whole.parser["resume"] is False
    summaries = [json.loads((tmp_path / part / "run.json").read_text()) for part in "ab"]
    for summary in summaries:
        del summary["seconds"]
    assert summaries[0] == summaries[1]
    for file in (tmp_path / "b").glob("*.nii.gz"):
        np.testing.assert_array_equal(
            np.asarray(nibabel.load(file).dataobj), np.asarray(nibabel.load(tmp_path / "a" / file.name).dataobj)
        )
    # With nothing left to do it is done at once; with other settings everything is left.
    zoo.infer(BUNDLE, volumes, tmp_path / "a", **options)
    other = zoo.infer(BUNDLE, volumes, tmp_path / "a", **{**options, "median": 3})
    assert len(other.parser.get_parsed_content("cases")) == 4


@pytest.mark.parametrize("stage", ["inferer", "writer"])
def test_a_case_that_fails_on_the_way_does_not_stop_the_rest(
    stage: str, overrides: Any, volumes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = prepared(volumes, tmp_path, {**overrides(BUNDLE), "keep_going": True})
    calls: list[int] = []

    def fail_once(method: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            calls.append(1)
            if len(calls) == 2:
                raise RuntimeError("out of memory")
            return method(*args, **kwargs)

        return call

    if stage == "inferer":
        inferer = made.parser.get_parsed_content("inferer")
        inferer.restore = fail_once(inferer.restore)
    else:
        (writer,) = made.parser.get_parsed_content("handlers")
        writer._write_case = fail_once(writer._write_case)
    with pytest.raises((RuntimeError, InputError)) as caught:
        made.run()
    assert "healthy: RuntimeError: out of memory" in zoo.input_error(caught.value).problem
    summary = json.loads((tmp_path / "run.json").read_text())
    assert summary["cases"] == ["bright", "dark", "well"]
    assert not list(tmp_path.glob("healthy*"))


def test_a_full_disk_stops_everything(overrides: Any, volumes: Path, tmp_path: Path) -> None:
    made = prepared(volumes, tmp_path, {**overrides(BUNDLE), "keep_going": True})
    (writer,) = made.parser.get_parsed_content("handlers")

    def full(*_: Any) -> list[str]:
        raise OSError(28, "No space left on device")

    writer._write_case = full
    with pytest.raises((RuntimeError, OSError)) as caught:
        made.run()
    assert "No space left" in str(caught.value.__cause__ or caught.value)
    assert not (tmp_path / "journal.jsonl").exists()


def test_two_processes_share_the_work(overrides: Any, volumes: Path, tmp_path: Path) -> None:
    """One of the cases is bad: the other process is waited for, and the exit code tells."""
    entries = json.loads((volumes / "datalist.json").read_text())
    listed = [{"case": entry["case"], "image": str(volumes / entry["image"])} for entry in entries]
    listed[1]["image"] = str(tmp_path / "no.nii.gz")
    (tmp_path / "list.json").write_text(json.dumps(listed))
    options = {**overrides(BUNDLE), "dataset_dir": str(tmp_path / "list.json"), "keep_going": True}
    options |= {"bundle_root": str(BUNDLE), "output_dir": str(tmp_path / "output")}
    done = zoo.command(str(BUNDLE / "configs" / "inference.json"), options, cwd=zoo.ROOT, nproc=2)
    assert done.returncode != 0
    assert "error: 1 of 4 cases: failed" in done.stderr
    assert "healthy: does not exist" in done.stderr
    summary = json.loads((tmp_path / "output" / "run.json").read_text())
    assert summary["cases"] == ["bright", "dark", "well"]
    assert set(summary["failed"]) == {"healthy"}
    assert {file.name for file in (tmp_path / "output").glob("*.jsonl")} == {"journal.jsonl", "journal-1.jsonl"}
