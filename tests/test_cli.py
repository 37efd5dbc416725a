from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from common.cli import main
from tests.data.files import RANDOM, dicom_folder, nifti, picture


def code(*words: object) -> int:
    """Run the command line and give its exit code."""
    try:
        main([str(word) for word in words])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def bundle(folder: Path, name: str, **metadata: object) -> None:
    configs = folder / name / "configs"
    configs.mkdir(parents=True)
    (configs / "metadata.json").write_text(json.dumps(metadata))


def test_check_of_a_good_data_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nifti(tmp_path / "a.nii.gz")
    nifti(tmp_path / "a_mask.nii.gz", np.eye(12, 10, dtype=np.uint8)[..., None].repeat(9, 2))
    nifti(tmp_path / "b.nii.gz", RANDOM)
    nifti(tmp_path / "b_mask.nii.gz", np.eye(12, 10, dtype=np.uint8)[..., None].repeat(9, 2))
    assert code("check", tmp_path) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["2 cases, no problem found", "2 NIfTI; 12 x 10 x 9; 2 with mask, 0 with brain_mask, 0 with label"]


def test_check_names_every_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "b.png").touch()
    assert code("check", tmp_path, "--channels", 3) == 1
    out = capsys.readouterr().out
    assert f"{tmp_path / 'a.png'}  has 1 channel(s), 3 expected" in out
    assert f"{tmp_path / 'b.png'}  is empty (0 bytes)" in out
    assert out.splitlines()[-1] == "2 cases, 2 error(s), 1 warning(s)"  # 12 x 10 pixels are no head


def test_check_for_machines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dicom_folder(tmp_path / "good")
    dicom_folder(tmp_path / "gap", "1.2.3.5", depths=(0, 2, 6, 8))
    for uid in ("1.2.3.6", "1.2.3.7"):
        dicom_folder(tmp_path / "mixed", uid)
    assert code("check", tmp_path, "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert {case["case"]: case["image"] for case in found["cases"]} == {
        name: str(tmp_path / name) for name in ("gap", "good", "mixed")
    }
    assert (found["errors"], found["warnings"]) == (2, 0)
    told = {problem["file"]: problem["problem"] for problem in found["problems"]}
    assert "DICOM series 1.2.3.5 has a gap" in told[str(tmp_path / "gap")]
    assert "1.2.3.6" in told[str(tmp_path / "mixed")]
    assert "1.2.3.7" in told[str(tmp_path / "mixed")]


def test_check_of_warnings_only_succeeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    noise = np.random.default_rng(0)
    picture(tmp_path / "a.png", noise.integers(0, 255, (120, 100), dtype=np.uint8))
    picture(tmp_path / "a_mask.png", np.zeros((120, 100), np.uint8))
    assert code("check", tmp_path) == 0
    assert "1 cases, 0 error(s), 1 warning(s)" in capsys.readouterr().out


def test_check_takes_one_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture(tmp_path / "a.png")
    listed = tmp_path / "list.csv"
    listed.write_text("image,split\na.png,1\nno.png,2\n")
    assert code("check", listed, "--split", 1) == 0
    assert code("check", listed, "--split", "3") == 2
    assert "has no split '3'" in capsys.readouterr().err


def test_input_that_cannot_be_used_gives_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from common.cli import main; main()", "check", str(tmp_path / "no")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"error: {tmp_path / 'no'}: does not exist → give a folder")
    assert len(done.stderr.splitlines()) == 1


def test_help_is_fast() -> None:
    heavy = "{'torch', 'monai', 'itk', 'nibabel', 'numpy'} & set(sys.modules)"
    check = f"import sys\nfrom common.cli import main\ntry: main(['--help'])\nfinally: print({heavy} or 'light')"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=False)
    assert done.stdout.strip().endswith("light")
    assert all(command in done.stdout + done.stderr for command in ("check", "list", "demo"))


def test_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle(tmp_path, "thor", version="0.1.0", supervision="unsupervised", description="Temporal\n harmonisation.")
    bundle(tmp_path, "andi", version="0.2.0")
    assert code("list", "--bundles_dir", tmp_path) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["name", "version", "supervision", "description"]
    assert lines[1].split() == ["andi", "0.2.0", "?"]
    assert lines[2].split(maxsplit=3) == ["thor", "0.1.0", "unsupervised", "Temporal harmonisation."]


def test_list_refuses_what_it_cannot_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder, problem in ((tmp_path / "no", "is no folder"), (tmp_path, "holds no bundle")):
        assert code("list", "--bundles_dir", folder) == 2
        assert f"error: {folder}: {problem} → give the folder that holds the bundles" in capsys.readouterr().err
    bundle(tmp_path, "thor")
    file = tmp_path / "thor" / "configs" / "metadata.json"
    file.write_text("{")
    assert code("list", "--bundles_dir", tmp_path) == 2
    assert f"error: {file}: is not usable metadata" in capsys.readouterr().err


def test_list_looks_below_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle(tmp_path / "bundles", "thor", version="9.8.7")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("common.bundles.__file__", str(tmp_path / "elsewhere" / "common" / "bundles.py"))
    assert code("list") == 0
    assert "9.8.7" in capsys.readouterr().out


def test_demo_runs_the_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[object, ...]] = []
    module = type(sys)("common.demo")
    module.run = lambda *given: calls.append(given)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "common.demo", module)
    assert code("demo") == 0
    assert code("demo", "--output_dir", "elsewhere", "--bundle", "ddpm", "--num_inference_steps", 351) == 0
    assert calls == [("demo_output", "thor", None), ("elsewhere", "ddpm", 351)]


def test_table_brings_the_pages_that_are_there_up_to_date(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    docs = tmp_path / "zoo" / "bundles" / "thor" / "docs"
    docs.mkdir(parents=True)
    (docs / "results.json").write_text('{"results": []}')
    words = ("table", "--update", "--bundles_dir", docs.parents[1])
    assert code(*words) == 2
    assert f"error: {docs.parents[1]}: has no page with tables" in capsys.readouterr().err
    page = docs / "README.md"
    page.write_text("<!-- results: bundle -->\n<!-- /results -->\n")
    assert code(*words) == 0
    assert capsys.readouterr().out.split() == [str(page)]
    assert page.read_text() != "<!-- results: bundle -->\n<!-- /results -->\n"


def test_a_full_disk_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def full(*given: object) -> None:
        raise RuntimeError("writer failed") from OSError(errno.ENOSPC, "No space left on device")

    module = type(sys)("common.demo")
    module.run = full  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "common.demo", module)
    assert code("demo") == 2
    assert capsys.readouterr().err == "error: output: No space left on device → make room and run it again\n"
