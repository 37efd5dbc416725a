"""Where the bundles are that the words of a command mean."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from common.errors import InputError

__all__ = ["bundle_folder", "named"]


def bundle_folder(bundles: str | None) -> Path:
    """The folder that holds the bundles: the one given, that of this repository, or ``bundles`` where one stands.

    Raises:
        InputError: it is not there.
    """
    if bundles is not None:
        folders = [Path(str(bundles))]
    else:
        folders = [Path(__file__).resolve().parents[2] / "bundles", Path.cwd() / "bundles"]
    for folder in folders:
        if folder.is_dir():
            return folder
    raise InputError(folders[-1], "is no folder", "give the folder that holds the bundles with --bundles")


def named(names: Sequence[str], bundles: str | None) -> list[Path]:
    """Folders of bundles given by name or as folders; of all bundles if none is given."""
    if not names:
        return sorted(file.parents[1] for file in bundle_folder(bundles).glob("*/configs/metadata.json"))
    found = []
    for name in map(str, names):
        folder = Path(name) if Path(name, "configs").is_dir() else bundle_folder(bundles) / name
        if not (folder / "configs" / "metadata.json").is_file():
            raise InputError(name, "is no bundle", "give the name of a bundle (see 'anomaly-zoo list'), or its folder")
        found.append(folder)
    return found
