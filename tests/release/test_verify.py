from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest

from common import InputError
from common.cli import main
from common.files import sha256
from common.release import Finding, verify_bundle
from common.release.archive import unpack
from common.release.manifest import manifest_text
from common.release.package import package
from tests.bundles import zoo
from tests.release.tiny import OWN_FILES, write_bundle


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("released")
    unpack(package([write_bundle(folder)], folder / "dist")[0], folder / "unpacked" / "tiny", "tiny")
    return folder / "unpacked" / "tiny"


@pytest.fixture
def bundle(released: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(released, tmp_path / "tiny"))


def small(folder: Path) -> Path:
    """A few files of several kinds under a manifest, so that hundreds of changes take seconds."""
    bundle = write_bundle(folder)
    files = [bundle / name for name in sorted(OWN_FILES - {"MANIFEST.json", "README.md"})]
    hashes = {path.relative_to(bundle).as_posix(): sha256(path) for path in files}
    (bundle / "MANIFEST.json").write_text(manifest_text("tiny", "0.1.0", hashes))
    return bundle


def test_an_untouched_release(bundle: Path) -> None:
    assert verify_bundle(bundle) == []
    assert verify_bundle(bundle, sha256(bundle / "MANIFEST.json").upper()) == []


def test_every_flipped_bit_is_found(tmp_path: Path) -> None:
    bundle = small(tmp_path)
    before = verify_bundle(bundle)  # notes on what does not belong to it
    manifest = bundle / "MANIFEST.json"
    digest, draw, found = sha256(manifest), random.Random(0), 0
    files = [path for path in (bundle / name for name in sorted(OWN_FILES)) if path.is_file()]
    for _ in range(250):
        path = draw.choice(files)
        whole = path.read_bytes()
        data = bytearray(whole)
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        path.write_bytes(data)
        if path == manifest:
            with pytest.raises(InputError, match="not the manifest of the release"):
                verify_bundle(bundle, digest)
            found += 1
        else:
            changed = Finding(path.relative_to(bundle).as_posix(), "differs from the release")
            found += set(verify_bundle(bundle, digest)) == {*before, changed}
        path.write_bytes(whole)
    assert found == 250
    assert verify_bundle(bundle, digest) == before


def test_every_truncation_is_found(bundle: Path) -> None:
    path = bundle / "models" / "model.pt"
    whole = path.read_bytes()
    for length in range(0, len(whole), max(1, len(whole) // 20)):
        path.write_bytes(whole[:length])
        assert verify_bundle(bundle) == [Finding("models/model.pt", "differs from the release")]


@pytest.mark.parametrize(
    ("file", "severity"),
    [
        ("configs/other.json", "error"),
        ("common/networks/other.py", "error"),
        ("common/__pycache__/files.cpython-311.pyc", "error"),
        ("models/other.pt", "error"),
        ("json.py", "error"),
        ("eval/json.py", "error"),
        ("eval/a_anomaly_map.nii.gz", "note"),
        ("eval/run.json", "note"),
        ("runs/checkpoints/checkpoint_1.pt", "note"),
        ("finetuned/model.pt", "note"),
        ("finetuned/json.py", "error"),
        ("notes.txt", "note"),
    ],
)
def test_extra_files(file: str, severity: str, bundle: Path) -> None:
    (bundle / file).parent.mkdir(parents=True, exist_ok=True)
    (bundle / file).write_text("x")
    assert [(each.file, each.severity) for each in verify_bundle(bundle)] == [(file, severity)]


@pytest.mark.parametrize("source", zoo.BUNDLES, ids=zoo.by_name)
def test_what_a_bundle_writes_by_default_is_no_error(source: Path, bundle: Path) -> None:
    """Results go into a folder of the bundle, and are no part of the release, whatever they are."""
    configs = [json.loads(file.read_text()) for file in sorted((source / "configs").glob("*.json"))]
    folders = {config["output_dir"] for config in configs if "output_dir" in config}
    assert folders
    for folder in folders:
        file = bundle / folder.removeprefix("$@bundle_root + '/").removesuffix("'") / "model.pt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("x")
    found = verify_bundle(bundle)
    assert len(found) == len(folders)
    assert {each.severity for each in found} == {"note"}


def test_missing_files_and_links(bundle: Path, tmp_path: Path) -> None:
    (bundle / "LICENSE").unlink()
    moved = tmp_path / "moved"
    shutil.move(bundle / "configs" / "inference.json", moved)
    (bundle / "configs" / "inference.json").symlink_to(moved)  # the same content, elsewhere
    (bundle / "loop").symlink_to(bundle)
    found = {each.file: each.problem for each in verify_bundle(bundle)}
    assert found.pop("LICENSE") == "is missing"
    assert set(found) == {"configs/inference.json", "loop"}
    assert all("link" in problem for problem in found.values())


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"sha256": {"../a": "%s"}}' % ("0" * 64), '{"sha256": {"a": "0"}}']
)
def test_manifests_that_are_none(content: str, bundle: Path) -> None:
    (bundle / "MANIFEST.json").write_text(content)
    with pytest.raises(InputError, match="not usable as a manifest"):
        verify_bundle(bundle)


def test_folders_that_are_no_release(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no unpacked release"):
        verify_bundle(tmp_path)
    with pytest.raises(InputError, match="is no folder"):
        verify_bundle(tmp_path / "no")


def test_nothing_of_the_bundle_runs(bundle: Path, tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    (bundle / "configs" / "inference.json").write_text(json.dumps({"a": f"$open({str(witness)!r}, 'w')"}))
    (bundle / "tiny_inferer.py").write_text(f"open({str(witness)!r}, 'w')")
    assert len(verify_bundle(bundle)) == 2
    assert not witness.exists()


def test_command(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (bundle / "notes.txt").write_text("x")
    main(["verify", str(bundle)])
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["note   notes.txt is not part of the release", f"{bundle}: every file is as it was released"]
    (bundle / "LICENSE").unlink()
    with pytest.raises(SystemExit) as stop:
        main(["verify", str(bundle)])
    assert stop.value.code == 1
    assert "error  LICENSE is missing" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        main(["verify", str(bundle), "--manifest_sha256", "0" * 64])
    assert stop.value.code == 2
