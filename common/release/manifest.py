"""The manifest of a released bundle: every file with its hash, so that nothing unknown is read, least of all run."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from common.errors import InputError
from common.files import sha256

__all__ = ["MANIFEST", "Finding", "manifest_text", "verify_bundle"]

MANIFEST = "MANIFEST.json"
_HASH = re.compile(r"[0-9a-f]{64}")
# What Python or MONAI would import, load or parse from a bundle; anything else that is new there is a result.
_READ_FOLDERS = frozenset({"common", "configs", "models", "scripts"})
_READ_SUFFIXES = frozenset({".py", ".pyc", ".pyd", ".so", ".pth", ".pt", ".ts", ".json", ".yaml", ".yml", ".conf"})
# Where the configs of bundles write by default.
_RESULT_FOLDERS = frozenset({"eval", "finetuned", "runs"})


@dataclass(frozen=True)
class Finding:
    """One file that is not as it was released.

    Args:
        file: relative to the bundle.
        problem: what is wrong.
        severity: an ``error`` is a file that would be read or run; a ``note`` is a file that nothing reads.
    """

    file: str
    problem: str
    severity: Literal["error", "note"] = "error"


def manifest_text(name: str, version: str, hashes: Mapping[str, str]) -> str:
    """The manifest as it is written.

    Args:
        name: of the bundle.
        version: of the bundle.
        hashes: SHA-256 of each file by its path in the bundle.
    """
    content = {"name": name, "version": version, "sha256": dict(sorted(hashes.items()))}
    return json.dumps(content, indent=2) + "\n"


def verify_bundle(bundle: str | Path, manifest_sha256: str | None = None) -> list[Finding]:
    """Compare every file of an unpacked bundle with its manifest. Nothing of the bundle is imported or parsed.

    Args:
        bundle: its folder.
        manifest_sha256: of the manifest itself, from the release. Without it a change is found, but not one that
            rewrote the manifest too.

    Returns:
        what differs, by file; an empty list for an untouched release.

    Raises:
        InputError: no manifest, or one that cannot be read or is not the one of the release.
    """
    bundle = Path(bundle)
    expected = _read(bundle / MANIFEST, manifest_sha256)
    findings: list[Finding] = []
    present = set()
    for path in _walk(bundle):
        name = path.relative_to(bundle).as_posix()
        present.add(name)
        if path.is_symlink() or not path.is_file():
            findings.append(Finding(name, "is a link or no regular file; a release has none"))
        elif name not in expected:
            if name != MANIFEST:
                findings.append(_extra(name))
        elif sha256(path) != expected[name]:
            findings.append(Finding(name, "differs from the release"))
    findings += [Finding(name, "is missing") for name in expected if name not in present]
    return sorted(findings, key=lambda finding: finding.file)


def _read(file: Path, manifest_sha256: str | None) -> dict[str, str]:
    if not file.parent.is_dir():
        raise InputError(file.parent, "is no folder", "give the folder of an unpacked release")
    if file.is_symlink() or not file.is_file():
        problem = "does not exist: the folder is no unpacked release"
        raise InputError(file, problem, "unpack a zip made by 'anomaly-zoo package', or download the bundle again")
    again = "download the bundle again"
    if manifest_sha256 is not None and sha256(file) != manifest_sha256.lower():
        raise InputError(file, "is not the manifest of the release", again)
    try:
        hashes = json.loads(file.read_text(encoding="utf-8"))["sha256"]
        for name, digest in hashes.items():
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts or not _HASH.fullmatch(digest):
                raise ValueError(f"entry {name!r}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(file, f"is not usable as a manifest ({error})", again) from error
    return dict(hashes)


def _walk(folder: Path) -> Iterator[Path]:
    """Everything below a folder that is no folder; links are given, not followed."""
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.is_symlink():
            yield from _walk(path)
        else:
            yield path


def _extra(name: str) -> Finding:
    path = PurePosixPath(name)
    if "__pycache__" in path.parts:
        return Finding(name, "is compiled code, which Python runs in place of its source: delete __pycache__")
    top = path.parts[0]
    results = top in _RESULT_FOLDERS and path.suffix not in {".py", ".pyc", ".pyd", ".so", ".pth"}
    if not results and (top in _READ_FOLDERS or path.suffix in _READ_SUFFIXES):
        return Finding(name, "is not part of the release, and would be read")
    return Finding(name, "is not part of the release", "note")
