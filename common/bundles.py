"""Where the bundles are that a name or a path means."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from common.errors import InputError

__all__ = ["bundle_folder", "find_bundle", "find_bundles"]

_CONFIGS = ("configs/metadata.json", "configs/inference.json")


def bundle_folder(folder: str | Path | None = None) -> Path:
    """The folder that holds the bundles: the one given, that of this repository, or ``bundles`` where one stands.

    Raises:
        InputError: it is not there.
    """
    if folder is not None:
        folders = [Path(folder)]
    else:
        folders = [Path(__file__).resolve().parents[1] / "bundles", Path.cwd() / "bundles"]
    for each in folders:
        if each.is_dir():
            return each
    raise InputError(folders[-1], "is no folder", "give the folder that holds the bundles with --bundles_dir")


def find_bundle(folder: str | Path | None, name: str) -> Path:
    """A bundle by its name, or by its path, which is ``.`` or has a separator in it.

    Args:
        folder: the folder that holds the bundles, as of ``bundle_folder``; no matter for a path.
        name: or path. A bundle in the working folder that has the name of another is ``./name``.

    Raises:
        InputError: there is none.
    """
    separators = [each for each in (os.sep, os.altsep) if each]
    if name in (os.curdir, os.pardir) or any(each in name for each in separators):
        path, remedy = Path(name), "give the folder of a bundle, or the name of one (anomaly-zoo list)"
    else:
        path = bundle_folder(folder) / name
        remedy = f"name one of those in {path.parent} (anomaly-zoo list), or give a path, as ./{name}"
    if not name or not all((path / each).is_file() for each in _CONFIGS):
        raise InputError(f"bundle '{name}'", "is not there", remedy)
    return path.resolve()


def find_bundles(folder: str | Path | None, names: str | Sequence[str] = "all") -> list[Path]:
    """All bundles of a folder in alphabetical order, or those named (a list, or separated by commas).

    Args:
        folder: the folder that holds the bundles, as of ``bundle_folder``.
        names: or paths, as of ``find_bundle``.

    Raises:
        InputError: the folder holds none, one of the names is not there, or comes twice.
    """
    if names == "all":
        place = bundle_folder(folder)
        found = sorted(file.parents[1].resolve() for file in place.glob(f"*/{_CONFIGS[0]}"))
        if not found:
            raise InputError(place, "holds no bundle", "give the folder that holds the bundles with --bundles_dir")
        return found
    words = names.split(",") if isinstance(names, str) else [str(name) for name in names]
    found = [find_bundle(folder, word.strip()) for word in words if word.strip()]
    if not found or len({path.name for path in found}) < len(found):
        raise InputError(f"bundles {names}", "name none, or one twice", "name each once, as thor,dae, or say all")
    return found
