from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import monai
import pytest

from tests.bundles import zoo
from tests.bundles.synthetic import write_pictures, write_volumes


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Undo what a bundle does to the process that it believes to be its own."""
    path, hook = list(sys.path), sys.excepthook
    yield
    sys.path[:], sys.excepthook = path, hook
    monai.utils.set_determinism(None)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Slices with splits, masks and labels."""
    return write_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="session")
def healthy_pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Healthy slices with splits."""
    return write_pictures(tmp_path_factory.mktemp("healthy_pictures"), healthy=True)


@pytest.fixture(scope="session")
def lessons(pictures: Path, healthy_pictures: Path) -> Callable[[Path], Path]:
    """What a bundle is trained on: healthy slices, or all of them where it learns from labels or masks."""
    return lambda bundle: healthy_pictures if zoo.learns_from_healthy(bundle) else pictures


@pytest.fixture(scope="session")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two volumes with a lesion, two without."""
    return write_volumes(tmp_path_factory.mktemp("volumes"), bright=70.0, healthy=0.0, dark=-25.0, well=0.0)


@pytest.fixture(scope="session")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two volumes without a lesion."""
    return write_volumes(tmp_path_factory.mktemp("healthy"), healthy=0.0, well=0.0)


@pytest.fixture(scope="session")
def overrides(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Inference overrides of a bundle, its weights written once."""
    folder = tmp_path_factory.mktemp("weights")
    return lambda bundle: zoo.inference_overrides(bundle, folder / bundle.name)


@pytest.fixture
def settings(overrides: Any, tmp_path: Path) -> Path:
    """Tiny networks for two bundles."""
    file = tmp_path / "settings.json"
    file.write_text(json.dumps({name: overrides(zoo.named(name)) for name in ("dae", "ddpm")}))
    return file
