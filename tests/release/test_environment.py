"""A release in the hands of somebody who has only what its metadata name."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from common.release.versions import archive_name
from tests.bundles import zoo
from tests.bundles.synthetic import write_volumes
from tests.release.environment import build, packages_named, python
from tests.release.imports import imports, optional_packages, packages_reached

matrix = pytest.mark.parametrize("bundle", zoo.BUNDLES, ids=zoo.by_name)
SECONDS = 120  # that the environment may take


def kinds() -> list[Path]:
    """A bundle for each set of packages; the last one, so that it is not always the same as elsewhere."""
    found = {json.dumps(packages_named(zoo.read(bundle, "metadata.json"))): bundle for bundle in zoo.BUNDLES}
    return list(found.values())


@matrix
def test_names_the_packages_that_it_reaches(bundle: Path) -> None:
    named = packages_named(zoo.read(bundle, "metadata.json"))
    assert sorted(packages_reached(bundle) - set(named)) == []
    assert "fire" in named  # of MONAI's own command line
    assert "einops" in named  # of MONAI's own network
    assert not set(named) & optional_packages()


@matrix
def test_names_the_versions_that_the_tests_run_with(bundle: Path) -> None:
    lines = (zoo.ROOT / "constraints.txt").read_text().lower().splitlines()
    pins = dict(line.split("==") for line in lines if "==" in line)
    named = packages_named(zoo.read(bundle, "metadata.json"))
    assert {name: pins.get(name) for name in named} == named


def test_imports_are_seen(tmp_path: Path) -> None:
    module = tmp_path / "a.py"
    lines = ["from typing import TYPE_CHECKING", "import a.b", "def f():", "    from c import d"]
    module.write_text("\n".join([*lines, "if TYPE_CHECKING:", "    import e"]))
    assert imports(module) == ["typing.TYPE_CHECKING", "a.b", "c.d"]


@pytest.fixture(scope="module")
def environments(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The Python of the environment of a bundle, made once for each set of packages."""
    made: dict[str, Path] = {}

    def get(bundle: Path) -> Path:
        packages = packages_named(zoo.read(bundle, "metadata.json"))
        key = json.dumps(packages)
        if key not in made:
            start = time.perf_counter()
            made[key] = build(tmp_path_factory.mktemp("environment") / "venv", packages)
            assert time.perf_counter() - start < SECONDS
        return made[key]

    return get


@pytest.mark.parametrize("bundle", kinds(), ids=zoo.by_name)
def test_downloaded_by_monai_and_run(bundle: Path, environments: Any, url: str, tmp_path: Path) -> None:
    """With weights and threshold of the release, from a folder in which nothing else lies."""
    executable = environments(bundle)
    archive = archive_name(bundle.name, zoo.read(bundle, "metadata.json")["version"])
    home, scans = tmp_path / "home", tmp_path / "scans"
    home.mkdir()
    scans.mkdir()
    write_volumes(scans, a=70.0)
    for name in ("common", "pytest", "diffusers"):
        assert python(executable, "-c", f"import {name}", cwd=home).returncode == 1

    words = ["download", "--name", bundle.name, "--url", f"{url}/{archive}", "--bundle_dir", "."]
    done = python(executable, "-m", "monai.bundle", *words, cwd=home)
    assert done.returncode == 0, done.stderr[-2000:]
    assert {path.name for path in home.iterdir()} == {bundle.name, f"{bundle.name}.zip"}

    quick = [f"--{key}={value}" for key, value in zoo.few_steps(zoo.read(bundle, "inference.json")).items()]
    words = ["--config_file", "configs/inference.json", "--dataset_dir", str(scans / "a.nii.gz"), "--device", "cpu"]
    done = python(executable, "-m", "monai.bundle", "run", *words, *quick, cwd=home / bundle.name)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    written = home / bundle.name / "eval"
    anomaly_map = nibabel.load(written / "a_anomaly_map.nii.gz")
    given = nibabel.load(scans / "a.nii.gz")
    assert anomaly_map.shape == given.shape
    assert np.asarray(anomaly_map.dataobj).max() > 0
    assert not re.search(r"(?<!\w)No module named", done.stdout + done.stderr)

    script = (
        "import common; print(common.__file__); from common.release import verify_bundle; print(verify_bundle('.'))"
    )
    done = python(executable, "-c", script, cwd=home / bundle.name)
    copy, findings = done.stdout.splitlines()
    assert copy == str(home / bundle.name / "common" / "__init__.py")
    assert set(re.findall(r"file='(.+?)'", findings)) >= {"eval/run.json"}
    assert not re.search(r"differs|missing|not part of the release, and", findings)
