"""Making releases: a bundle with the shared package inside it, as a zip that is always the same for the same input."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from common.errors import InputError
from common.files import check_writable, sha256, write_atomic, write_json
from common.release.card import model_card
from common.release.manifest import MANIFEST, manifest_text
from common.release.versions import archive_name, parse_archive_name

__all__ = ["HASHES", "INDEX", "bundle_content", "package", "shared_package"]

HASHES = "SHA256SUMS"
INDEX = "model_info.json"
_PACKAGE = Path(__file__).resolve().parents[1]
_FOLDERS = ("configs", "docs", "models", "scripts")
_NEEDED = ("LICENSE", "configs/metadata.json", "configs/inference.json", "docs/README.md", "docs/data_license.txt")
_LEFT_OUT = frozenset({".pyc", ".pyo", ".tmp", ".partial", ".log"})
_LARGEST = 2**30  # bytes of a file; bundles are made in memory
_TIME = (1980, 1, 1, 0, 0, 0)  # the zip format's oldest
_MODE = 0o100644 << 16


def package(
    bundles: Sequence[str | Path], output: str | Path, *, base_url: str | None = None, replace: bool = False
) -> list[Path]:
    """Write ``<name>_v<version>.zip`` of each bundle, ``SHA256SUMS`` over all zips, and MONAI's ``model_info.json``.

    Every bundle is looked at before the first file is written. Zips that are in the folder already stay in both lists.

    Args:
        bundles: their folders.
        output: made if missing.
        base_url: where the zips will lie, for ``source`` in the index; without it, ``source`` is the file alone.
        replace: write over a release of the same version that has other content.

    Returns:
        the zips.

    Raises:
        InputError: files are missing, weights are not those of ``SHA256SUMS``, there is a link, the version cannot be
            sorted or is not in the change log, it was released with other content, the index of the folder cannot be
            read, or the folder cannot be written.
    """
    output = Path(output)
    made = {}
    for bundle in map(Path, bundles):
        name, data = _archive(bundle)
        made[output / name] = data
        if (output / name).is_file() and (output / name).read_bytes() != data and not replace:
            problem = "holds other content under the same version"
            raise InputError(output / name, problem, "raise 'version' in metadata.json, or give --replace")
    if not made:
        raise InputError("bundles", "are none", "name at least one bundle")
    check_writable(output)
    known = _read_index(output / INDEX)
    for path, data in made.items():
        write_atomic(path, data)
    _write_lists(output, {path.stem for path in made}, base_url, known)
    return [*made]


def bundle_content(bundle: Path) -> dict[str, bytes]:
    """Every file of a release by its path in the bundle, the manifest last.

    Raises:
        InputError: as ``package``.
    """
    for name in _NEEDED:
        if not (bundle / name).is_file():
            raise InputError(bundle / name, "does not exist", "write it; a release needs it")
    metadata = _metadata(bundle)
    _check_weights(bundle / "models")
    sources = {path.relative_to(bundle).as_posix(): path for path in _own_files(bundle)} | shared_package()
    content = {name: _content(path) for name, path in sources.items()}
    content["README.md"] = model_card(bundle, metadata).encode()
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in content.items()}
    ordered = dict(sorted(content.items()))
    return ordered | {MANIFEST: manifest_text(bundle.resolve().name, metadata["version"], hashes).encode()}


def shared_package() -> dict[str, Path]:
    """The files of this copy of ``common`` by their path in a bundle."""
    return {path.relative_to(_PACKAGE.parent).as_posix(): path for path in _files(_PACKAGE)}


def _archive(bundle: Path) -> tuple[str, bytes]:
    content = bundle_content(bundle)
    name, buffer = bundle.resolve().name, io.BytesIO()
    archive = archive_name(name, _metadata(bundle)["version"])
    # Stored, not deflated: half of the bytes are weights, which do not shrink, and the result does not hang on a zlib.
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as file:
        for path, data in content.items():
            entry = zipfile.ZipInfo(f"{name}/{path}", _TIME)
            entry.create_system, entry.external_attr = 3, _MODE
            file.writestr(entry, data)
    return archive, buffer.getvalue()


def _metadata(bundle: Path) -> dict[str, Any]:
    file = bundle / "configs" / "metadata.json"
    try:
        metadata = json.loads(file.read_text(encoding="utf-8"))
        version, changes = str(metadata["version"]), metadata["changelog"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(file, f"is not usable metadata ({error!r})", "give it 'version' and 'changelog'") from error
    archive_name(bundle.resolve().name, version)
    if version not in changes:
        raise InputError(file, f"has no entry for version {version} in 'changelog'", "say there what is new")
    return metadata


def _check_weights(folder: Path) -> None:
    from common.networks.weights import (
        HASH_FILE,
        check_weights,
    )  # imports MONAI, which the rest of this module does without

    weights = sorted(folder.glob("*.pt"))
    if not weights:
        raise InputError(folder, "holds no weights", "train the bundle and put model.pt there")
    named = (folder / HASH_FILE).read_text(encoding="utf-8").split() if (folder / HASH_FILE).is_file() else []
    for path in weights:
        if path.name not in named:
            raise InputError(path, f"is not in {HASH_FILE}", "write it with common.networks.save_weights")
        check_weights(path)


def _own_files(bundle: Path) -> Iterator[Path]:
    """What belongs to a release: the fixed folders, the licence, and modules beside them; no results, no old copy."""
    yield bundle / "LICENSE"
    yield from sorted(bundle.glob("*.py"))
    for folder in _FOLDERS:
        if (bundle / folder).is_dir():
            yield from _files(bundle / folder)


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name == "__pycache__" or path.suffix in _LEFT_OUT:
            continue
        if path.is_dir() and not path.is_symlink():
            yield from _files(path)
        else:
            yield path


def _content(path: Path) -> bytes:
    if path.is_symlink() or not path.is_file():
        raise InputError(path, "is a link or no regular file", "put the file itself there")
    if path.stat().st_size > _LARGEST:
        raise InputError(path, f"is larger than {_LARGEST >> 20} MiB", "move it out of the bundle")
    return path.read_bytes()


def _write_lists(output: Path, made: set[str], base_url: str | None, known: Mapping[str, Mapping[str, str]]) -> None:
    archives = sorted(path for path in output.glob("*.zip") if parse_archive_name(path.name))
    write_atomic(output / HASHES, "".join(f"{sha256(path)}  {path.name}\n" for path in archives).encode())
    entries = {}
    for path in archives:
        url = f"{base_url.rstrip('/')}/{path.name}" if base_url else path.name
        source = url if path.stem in made else known.get(path.stem, {}).get("source", url)
        entries[path.stem] = _entry(path, source)
    write_json(output / INDEX, entries)


def _read_index(file: Path) -> dict[str, dict[str, str]]:
    """What earlier releases of the folder stand in its index with."""
    try:
        known = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        if not isinstance(known, dict) or not all(isinstance(entry, dict) for entry in known.values()):
            raise ValueError("no mapping of releases")
    except ValueError as error:
        remedy = "remove it to have it made anew; sources of earlier releases are then the files alone"
        raise InputError(file, f"cannot be read ({error})", remedy) from error
    return known


def _entry(archive: Path, source: str) -> dict[str, str]:
    """MONAI's entry of an archive: SHA-1 and URL; also the hash of the manifest, for ``verify``."""
    parsed = parse_archive_name(archive.name)
    assert parsed is not None
    with zipfile.ZipFile(archive) as file:
        manifest = file.read(f"{parsed[0]}/{MANIFEST}")
    with open(archive, "rb") as stream:
        checksum = hashlib.file_digest(stream, "sha1").hexdigest()
    return {"checksum": checksum, "source": source, "manifest_sha256": hashlib.sha256(manifest).hexdigest()}
