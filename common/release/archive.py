"""Unpacking the zip of a bundle that somebody else may have made."""

from __future__ import annotations

import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from common.errors import InputError

__all__ = ["Limits", "unpack"]

_ENCRYPTED = 0x1
_CHUNK = 2**20


class Limits(NamedTuple):
    """What an archive may claim or unpack to; beyond it lies no bundle, but a bomb.

    Args:
        size: bytes of all files together.
        ratio: unpacked to packed bytes, of any one file.
        files: how many.
    """

    size: int = 2 * 2**30
    ratio: int = 100
    files: int = 10_000


_LIMITS = Limits()


def unpack(archive: str | Path, folder: str | Path, name: str, limits: Limits = _LIMITS) -> None:
    """Write the files of an archive into a folder; every entry is looked at before the first is written.

    Args:
        archive: a zip with one folder at its top.
        folder: gets the content of that folder.
        name: of the top folder.
        limits: of sizes.

    Raises:
        InputError: not a zip, damaged, a path that leads elsewhere, a link or device, the same file twice, an
            encrypted file, or more than the limits allow.
    """
    archive, folder = Path(archive), Path(folder)
    try:
        with zipfile.ZipFile(archive) as file:
            entries = _checked(archive, file.infolist(), name, limits)
            for path, entry in entries.items():
                _write(archive, file, entry, folder / path)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, UnicodeDecodeError) as error:
        raise InputError(archive, f"is no usable zip ({error})", "download it again") from error


def _checked(
    archive: Path, infos: list[zipfile.ZipInfo], name: str, limits: Limits
) -> dict[PurePosixPath, zipfile.ZipInfo]:
    """The entries by their path below the top folder."""

    def refuse(entry: str, problem: str) -> InputError:
        return InputError(archive, f"{entry!r} {problem}", "do not use this archive; get it from the zoo's releases")

    entries: dict[PurePosixPath, zipfile.ZipInfo] = {}
    seen: set[str] = set()
    for info in infos:
        # ZipInfo.filename has been cut and mended already; the name as it was is what says whether to trust it.
        path, given = PurePosixPath(info.filename), info.orig_filename
        if given.startswith("/") or ".." in path.parts or any(mark in given for mark in ("\\", ":", "\0")):
            raise refuse(given, "leads out of the folder")
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFDIR if info.is_dir() else stat.S_IFREG):
            raise refuse(given, "is a link or a special file")
        if path.parts[:1] != (name,):
            raise refuse(given, f"is not in the folder '{name}'")
        if info.is_dir():
            continue
        if len(path.parts) < 2 or given.lower() in seen:
            raise refuse(given, "stands where another entry stands")
        seen.add(given.lower())
        if info.flag_bits & _ENCRYPTED:
            raise refuse(given, "is encrypted")
        if info.file_size > limits.ratio * max(info.compress_size, 1):
            raise refuse(given, f"would unpack to more than {limits.ratio} times its size")
        entries[path.relative_to(name)] = info
    if len(entries) > limits.files:
        raise refuse("it", f"has more than {limits.files} files")
    if sum(info.file_size for info in entries.values()) > limits.size:
        raise refuse("it", f"would unpack to more than {limits.size >> 20} MiB")
    return entries


def _write(archive: Path, file: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with file.open(info) as source, open(path, "xb") as target:
        while chunk := source.read(_CHUNK):  # zipfile stops at the size that the entry claims, and checks its CRC
            written += len(chunk)
            target.write(chunk)
    if written != info.file_size:
        raise InputError(archive, f"{info.filename!r} is shorter than it says", "download it again")
