from __future__ import annotations

import hashlib
import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

import common
from common import InputError
from common.release import package, verify_bundle
from common.release.versions import archive_name, versions_of
from tests.bundles import zoo
from tests.release.tiny import OWN_FILES, write_bundle

PACKAGE = Path(common.__file__).parent

matrix = pytest.mark.parametrize("bundle", zoo.BUNDLES, ids=zoo.by_name)


def names(archive: Path) -> list[str]:
    with zipfile.ZipFile(archive) as file:
        return file.namelist()


def test_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    first = package([write_bundle(tmp_path / "a")], tmp_path / "one")[0]
    again = write_bundle(tmp_path / "b")
    for path in again.rglob("*"):  # neither times nor permissions nor the order of writing
        os.utime(path, (1_000_000_000, 1_000_000_000))
        path.chmod(0o700)
    assert package([again], tmp_path / "two")[0].read_bytes() == first.read_bytes()
    assert first.name == "tiny_v0.1.0.zip"


def test_holds_the_bundle_and_the_package_and_nothing_else(tmp_path: Path) -> None:
    archive = package([write_bundle(tmp_path)], tmp_path / "dist")[0]
    found = {name.removeprefix("tiny/") for name in names(archive)}
    shared = {f"common/{path.relative_to(PACKAGE)}" for path in PACKAGE.rglob("*") if path.is_file()}
    assert found == OWN_FILES | {path for path in shared if "__pycache__" not in path}
    assert names(archive) == [*sorted(names(archive)[:-1]), "tiny/MANIFEST.json"]
    with zipfile.ZipFile(archive) as file:
        for path in PACKAGE.rglob("*.py"):
            assert file.read(f"tiny/common/{path.relative_to(PACKAGE)}") == path.read_bytes()


def test_manifest_names_every_file(tmp_path: Path) -> None:
    archive = package([write_bundle(tmp_path)], tmp_path / "dist")[0]
    with zipfile.ZipFile(archive) as file:
        manifest = json.loads(file.read("tiny/MANIFEST.json"))
        assert (manifest["name"], manifest["version"]) == ("tiny", "0.1.0")
        hashes = {
            name.removeprefix("tiny/"): hashlib.sha256(file.read(name)).hexdigest()
            for name in file.namelist()
            if name != "tiny/MANIFEST.json"
        }
    assert manifest["sha256"] == hashes


def test_lists_of_all_releases(tmp_path: Path) -> None:
    output = tmp_path / "dist"
    package([write_bundle(tmp_path / "a")], output, base_url="https://example.org/one/")
    package([write_bundle(tmp_path / "b", version="0.2.0")], output, base_url="https://example.org/two")
    lines = [line.split() for line in (output / "SHA256SUMS").read_text().splitlines()]
    assert [name for _, name in lines] == ["tiny_v0.1.0.zip", "tiny_v0.2.0.zip"]
    index = json.loads((output / "model_info.json").read_text())
    assert {key: entry["source"] for key, entry in index.items()} == {
        "tiny_v0.1.0": "https://example.org/one/tiny_v0.1.0.zip",
        "tiny_v0.2.0": "https://example.org/two/tiny_v0.2.0.zip",
    }
    for digest, name in lines:
        data = (output / name).read_bytes()
        assert digest == hashlib.sha256(data).hexdigest()
        assert index[name.removesuffix(".zip")]["checksum"] == hashlib.sha1(data).hexdigest()


@pytest.mark.parametrize("text", ["{", "[]", '{"tiny_v0.1.0": 3}'])
def test_a_damaged_index_stops_before_a_zip_is_written(text: str, tmp_path: Path) -> None:
    output = tmp_path / "dist"
    output.mkdir()
    (output / "model_info.json").write_text(text)
    with pytest.raises(InputError, match=r"model_info\.json.*cannot be read.*remove it"):
        package([write_bundle(tmp_path / "a")], output)
    assert [path.name for path in output.iterdir()] == ["model_info.json"]


def test_monai_reads_the_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And finds the latest version by its own rule, which compares text."""
    from monai.bundle import scripts

    for version in ("0.9.0", "0.1.0", "1.0.0"):
        package([write_bundle(tmp_path / version, version=version)], tmp_path / "dist", base_url="https://example.org")

    class Response:
        text = (tmp_path / "dist" / "model_info.json").read_text()

        def raise_for_status(self) -> None:
            pass

    asked: list[str] = []

    def get(url: str) -> Response:
        asked.append(url)
        return Response()

    monkeypatch.setattr(scripts.requests, "get", get)
    found = scripts.get_bundle_versions("tiny", repo="owner/zoo", tag="dev")
    assert found == {"latest_version": "1.0.0", "all_versions": ["0.1.0", "0.9.0", "1.0.0"]}
    assert scripts.get_all_bundles_list(repo="owner/zoo", tag="dev") == [("tiny", "1.0.0")]
    assert asked[0].endswith("owner/zoo/dev/models/model_info.json")
    assert versions_of("tiny", [path.name for path in (tmp_path / "dist").iterdir()]) == found["all_versions"]


@pytest.mark.parametrize("version", ["0.10.0", "1", "0.1", "0.1.0rc1", "v0.1.0", "0.1.0.0", ""])
def test_versions_that_monai_would_sort_wrongly(version: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="three single digits"):
        package([write_bundle(tmp_path, version=version)], tmp_path / "dist")
    assert not (tmp_path / "dist").exists()


@pytest.mark.parametrize("name", ["my-method", "1st", "", "a/b", "net_v2"])
def test_names_that_cannot_be(name: str) -> None:
    with pytest.raises(InputError, match="name"):
        archive_name(name, "0.1.0")


def test_a_version_is_released_once(tmp_path: Path) -> None:
    bundle, output = write_bundle(tmp_path), tmp_path / "dist"
    first = package([bundle], output)[0].read_bytes()
    assert package([bundle], output)[0].read_bytes() == first
    (bundle / "configs" / "inference.json").write_text('{"a": 1}')
    with pytest.raises(InputError, match="other content under the same version"):
        package([bundle], output)
    assert (output / "tiny_v0.1.0.zip").read_bytes() == first
    assert package([bundle], output, replace=True)[0].read_bytes() != first


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "dist").touch()
    with pytest.raises(InputError, match="dist: cannot be written"):
        package([write_bundle(tmp_path)], tmp_path / "dist")


def _link(bundle: Path) -> None:
    (bundle / "configs" / "train.json").symlink_to(bundle / "LICENSE")


def _other_weights(bundle: Path) -> None:
    data = bytearray((bundle / "models" / "model.pt").read_bytes())
    data[100] ^= 1
    (bundle / "models" / "model.pt").write_bytes(data)


def _unlisted_weights(bundle: Path) -> None:
    shutil.copy(bundle / "models" / "model.pt", bundle / "models" / "other.pt")


def _old_change_log(bundle: Path) -> None:
    (bundle / "configs" / "metadata.json").write_text(json.dumps({"version": "0.2.0", "changelog": {"0.1.0": ""}}))


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (_link, "is a link"),
        (_other_weights, "SHA-256 differs"),
        (_unlisted_weights, "is not in SHA256SUMS"),
        (_old_change_log, "no entry for version 0.2.0"),
        (lambda bundle: (bundle / "LICENSE").unlink(), "does not exist"),
        (lambda bundle: (bundle / "models" / "model.pt").unlink(), "holds no weights"),
        (lambda bundle: (bundle / "configs" / "metadata.json").write_text("{"), "is not usable metadata"),
    ],
)
def test_what_cannot_be_released(spoil: Any, problem: str, tmp_path: Path) -> None:
    good, bad = write_bundle(tmp_path / "good", "good"), write_bundle(tmp_path)
    spoil(bad)
    with pytest.raises(InputError, match=problem):
        package([good, bad], tmp_path / "dist")
    assert not (tmp_path / "dist").exists()


@matrix
def test_page_for_the_hub(bundle: Path, dist: Path, tmp_path: Path) -> None:
    """As the Hub's own library reads it; MONAI's files lie where its download from the Hub wants them."""
    with zipfile.ZipFile(dist / archive_name(bundle.name, zoo.read(bundle, "metadata.json")["version"])) as file:
        file.extractall(tmp_path)
    card = ModelCard.load(tmp_path / bundle.name / "README.md")
    assert card.data.library_name == "monai"
    assert card.data.license == ["apache-2.0", "cc-by-sa-3.0"]
    assert {"monai", "medical", "anomaly-detection"} <= set(card.data.tags)
    assert card.text.strip() == (bundle / "docs" / "README.md").read_text().strip()
    assert (tmp_path / bundle.name / "configs" / "metadata.json").is_file()
    assert verify_bundle(tmp_path / bundle.name) == []
