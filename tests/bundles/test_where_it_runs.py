"""The command line, from the three places that a bundle is run from; each with another bundle if there are enough."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from common.anomaly import Threshold
from common.version import __version__
from tests.bundles import zoo
from tests.bundles.synthetic import write_volumes

VENDORED = "0.987.0"


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_volumes(tmp_path_factory.mktemp("volume"), a=70.0) / "a.nii.gz"


def options(bundle: Path, overrides: Any, volume: Path, output: Path) -> dict[str, Any]:
    """The output folder is called after the version of the package that was imported."""
    named = f"$'{output}/' + common.__version__"
    return {**overrides(bundle), "dataset_dir": str(volume), "output_dir": named}


def check(done: subprocess.CompletedProcess[str], output: Path, version: str) -> None:
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert [folder.name for folder in output.iterdir()] == [version]
    assert (output / version / "a_anomaly_map.nii.gz").is_file()


def test_from_the_root_of_the_repository(overrides: Any, volume: Path, tmp_path: Path) -> None:
    bundle = zoo.BUNDLES[0]
    config = (bundle / "configs" / "inference.json").relative_to(zoo.ROOT)
    done = zoo.command(str(config), options(bundle, overrides, volume, tmp_path), cwd=zoo.ROOT)
    check(done, tmp_path, __version__)


def test_from_a_foreign_folder(overrides: Any, volume: Path, tmp_path: Path) -> None:
    bundle = zoo.BUNDLES[1 % len(zoo.BUNDLES)]
    foreign, output = tmp_path / "foreign", tmp_path / "output"
    foreign.mkdir()
    config = str(bundle / "configs" / "inference.json")
    done = zoo.command(config, options(bundle, overrides, volume, output), cwd=foreign, path=zoo.ROOT)
    check(done, output, __version__)
    assert not list(foreign.iterdir())


def test_from_inside_a_bundle_that_carries_its_package(overrides: Any, volume: Path, tmp_path: Path) -> None:
    """With weights and threshold where they lie in a release, and the repository out of reach."""
    bundle = zoo.BUNDLES[2 % len(zoo.BUNDLES)]
    copy, output = tmp_path / bundle.name, tmp_path / "output"
    shutil.copytree(bundle / "configs", copy / "configs")
    shutil.copytree(zoo.ROOT / "common", copy / "common", ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "common" / "version.py").write_text(f'__version__ = "{VENDORED}"\n')
    given = options(bundle, overrides, volume, output)
    shutil.copytree(Path(given.pop("weights")).parent, copy / "models")
    Threshold(given.pop("threshold"), 0.99, "healthy volumes", 1, 1000, {}).save(copy / "models" / "threshold.json")
    done = zoo.command("configs/inference.json", given, cwd=copy)
    check(done, output, VENDORED)
