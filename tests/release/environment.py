"""A virtual environment with the packages that a bundle names, those that they need, and nothing else.

The files are those of the packages that run the tests, linked into place: the same bits that ``pip install`` with the
same versions would bring, in seconds and without a network. A package that nothing names is not there.
"""

from __future__ import annotations

import os
import subprocess
import sysconfig
import venv
from collections.abc import Iterable, Mapping
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

_SITE = Path(sysconfig.get_paths()["purelib"])


def packages_named(metadata: Mapping[str, object]) -> dict[str, str]:
    """Version of each package that a bundle names, by the package's name."""
    fixed = {"monai": "monai_version", "torch": "pytorch_version", "numpy": "numpy_version"}
    named = {package: str(metadata[key]) for package, key in fixed.items()}
    others = metadata["required_packages_version"]
    assert isinstance(others, Mapping)
    return named | {str(package): str(version) for package, version in others.items()}


def build(folder: Path, packages: Mapping[str, str]) -> Path:
    """Make the environment and return its Python.

    Args:
        folder: where it goes.
        packages: versions by name; the ones installed here must be the same.
    """
    have = {name: distribution(name).version.split("+")[0] for name in packages}  # torch says +cpu or +cu
    wrong = {name: version for name, version in packages.items() if have[name] != version}
    if wrong:
        pytest.skip(f"other versions are installed than the bundle names: {wrong}")
    venv.create(folder, with_pip=False, symlinks=True)
    site = next((folder / "lib").glob("python*")) / "site-packages"
    for each in closure(packages):
        for file in each.files or ():
            _link(file.locate(), site)
    return folder / "bin" / "python"


def closure(names: Iterable[str]) -> list[Distribution]:
    """The packages of these names and what they require on this machine, extras only where they are asked for."""
    found: dict[str, Distribution] = {}
    waiting = [Requirement(name) for name in names]
    seen: set[tuple[str, str]] = set()
    while waiting:
        wanted = waiting.pop()
        for extra in ("", *wanted.extras):
            key = (canonicalize_name(wanted.name), extra)
            if key in seen:
                continue
            seen.add(key)
            try:
                each = found.setdefault(key[0], distribution(wanted.name))
            except PackageNotFoundError:  # pip would fail where this is required; what runs here was installed by it
                raise AssertionError(f"{wanted.name} is required and not installed") from None
            for line in each.requires or ():
                requirement = Requirement(line)
                if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                    waiting.append(requirement)
    return [*found.values()]


def python(executable: Path, *words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the environment's Python with nothing of this process's paths."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
    environment = kept | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    line = [str(executable), *map(str, words)]
    return subprocess.run(line, cwd=cwd, env=environment, capture_output=True, text=True, timeout=200, check=False)


def _link(source: object, site: Path) -> None:
    path = Path(os.path.abspath(str(source)))
    if not path.is_relative_to(_SITE) or not path.is_file():
        return  # scripts, which the environment does not need
    target = site / path.relative_to(_SITE)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(path, target)
    except FileExistsError:  # namespace packages of two distributions may both list a file
        pass
    except OSError:  # another disk
        target.symlink_to(path)
