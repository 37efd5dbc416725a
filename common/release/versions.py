"""Versions of bundles, and the names of the archives that hold them."""

from __future__ import annotations

import re
from collections.abc import Iterable

from common.errors import InputError

__all__ = ["archive_name", "check_name", "check_version", "parse_archive_name", "versions_of"]

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_VERSION = re.compile(r"\d\.\d\.\d")
_ARCHIVE = re.compile(rf"({_NAME.pattern})_v({_VERSION.pattern})\.zip")


def check_name(name: str) -> str:
    """Return the name of a bundle.

    Raises:
        InputError: it cannot be a folder, a Python module and part of a URL alike, or MONAI would cut it.
    """
    if not _NAME.fullmatch(name):
        raise InputError(f"name '{name}'", "is no name of a bundle", "use letters, digits and _, a letter first")
    if re.search(r"_v\d", name):  # MONAI looks for the first `_v` and a digit to find where the name ends
        raise InputError(f"name '{name}'", "reads like a name with a version", "leave out '_v' before a digit")
    return name


def check_version(version: str) -> str:
    """Return a version whose order as text, by which MONAI looks for the latest, is its order.

    Raises:
        InputError: it is not three single digits: as text ``0.10.0`` comes before ``0.9.0``.
    """
    if not _VERSION.fullmatch(version):
        problem = "is not three single digits, so MONAI, which compares versions as text, would sort it wrongly"
        raise InputError(f"version '{version}'", problem, "use 0.1.0 to 9.9.9; 1.0.0 follows 0.9.9")
    return version


def archive_name(name: str, version: str) -> str:
    """Name of the zip of a release, as MONAI's ``--source github`` asks for it.

    Raises:
        InputError: as ``check_name`` and ``check_version``.
    """
    return f"{check_name(name)}_v{check_version(version)}.zip"


def parse_archive_name(file: str) -> tuple[str, str] | None:
    """Name and version of a zip, ``None`` if it is called otherwise."""
    found = _ARCHIVE.fullmatch(file)
    return (found[1], found[2]) if found else None


def versions_of(name: str, files: Iterable[str]) -> list[str]:
    """All versions of a bundle among the names of files, oldest first."""
    parsed = [parse_archive_name(file) for file in files]
    return sorted(each[1] for each in parsed if each is not None and each[0] == name)
