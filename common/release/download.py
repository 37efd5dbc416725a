"""Getting a release: found by name, checked against its hashes, and there as a whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from pathlib import Path

from filelock import FileLock

from common.errors import InputError
from common.files import check_writable, sha256
from common.release.archive import Limits, unpack
from common.release.manifest import MANIFEST, verify_bundle
from common.release.package import HASHES
from common.release.sources import Source, open_source
from common.release.versions import archive_name, check_name, check_version, versions_of

__all__ = ["download"]

_LARGEST = Limits().size


def download(name: str, source: str | Source, version: str | None = None, bundle_dir: str | Path = ".") -> Path:
    """Download a bundle, and verify archive and files before the bundle gets its name.

    The archive is kept beside the bundle as ``.<archive>.part`` until it is whole, so that a download that broke goes
    on. Two processes that want the same bundle wait for each other.

    Args:
        name: of the bundle.
        source: folder or ``http(s)`` address that holds ``SHA256SUMS`` and the zips.
        version: by default the latest.
        bundle_dir: gets the bundle as a folder.

    Returns:
        the bundle; one of the same version that lies there untouched is left as it is.

    Raises:
        InputError: no such release, a folder that cannot be written, another hash, an archive that is not as it must
            be, or a folder in the way.
    """
    check_name(name)
    opened = open_source(source) if isinstance(source, str) else source
    hashes = _hashes(opened, str(source))
    version = _choose(name, version, [*hashes], str(source))
    archive, folder = archive_name(name, version), Path(bundle_dir)
    check_writable(folder)
    with FileLock(folder / f".{name}.lock"):
        if (folder / name).exists():
            return _present(folder / name, version)
        part = folder / f".{archive}.part"
        _fetch(opened, archive, part, hashes[archive])
        _install(part, folder / name)
        part.unlink()
    return folder / name


def _hashes(source: Source, place: str) -> dict[str, str]:
    """SHA-256 of each file that the source lists."""
    lines = [line.split() for line in source.text(HASHES).splitlines() if line.strip()]
    if not lines or any(len(line) != 2 or len(line[0]) != 64 for line in lines):
        raise InputError(place, f"has no usable {HASHES}", "give the folder or the address that holds the releases")
    return {file.lstrip("*"): digest.lower() for digest, file in lines}


def _choose(name: str, version: str | None, files: list[str], place: str) -> str:
    known = versions_of(name, files)
    if not known:
        raise InputError(place, f"has no bundle '{name}'", f"choose one of: {', '.join(sorted(files))}")
    if version is None:
        return known[-1]
    if check_version(version) not in known:
        raise InputError(place, f"has no version {version} of '{name}'", f"choose one of: {', '.join(known)}")
    return version


def _present(bundle: Path, version: str) -> Path:
    """The bundle that lies there, if it is the one that is wanted."""
    remedy = "remove the folder, or give another --bundle_dir"
    try:
        have = json.loads((bundle / MANIFEST).read_text(encoding="utf-8"))["version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(bundle, "is there already, and is no release", remedy) from error
    if have != version:
        raise InputError(bundle, f"is there already, as version {have}", remedy)
    wrong = [finding.file for finding in verify_bundle(bundle) if finding.severity == "error"]
    if wrong:
        raise InputError(bundle, f"is there already, changed since its release ({', '.join(wrong[:3])}, …)", remedy)
    return bundle


def _fetch(source: Source, archive: str, part: Path, digest: str) -> None:
    """The whole archive at ``part``. What a broken download left may be of another file, so it gets a second try."""
    for fresh in (not part.is_file(), True):
        if part.is_file() and sha256(part) == digest:
            return
        if fresh:
            part.unlink(missing_ok=True)
        source.fetch(archive, part, _LARGEST)
        if part.is_file() and sha256(part) == digest:  # not if the last attempt found that it was of another file
            return
        part.unlink(missing_ok=True)
        if fresh:
            problem = f"has another SHA-256 than {HASHES} says"
            raise InputError(archive, problem, "the file is damaged or was replaced; try again, or ask its publisher")


def _install(archive: Path, target: Path) -> None:
    """Unpack beside the target, verify, and rename."""
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        unpack(archive, work / target.name, target.name)
        wrong = verify_bundle(work / target.name)
        if wrong:
            problem = f"{wrong[0].file} {wrong[0].problem}"
            raise InputError(archive, problem, "do not use this archive; get it from the zoo's releases")
        os.rename(work / target.name, target)
    except InputError:
        archive.unlink()  # its hash was right: another download would bring the same
        raise
    finally:
        with contextlib.suppress(OSError):
            shutil.rmtree(work)
