"""Finding the cases of a data set, whatever form it comes in."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common.data.datalist import read_datalist
from common.data.kinds import dicom_series, dicom_tags, is_dicom, is_report, kind, stem, unlisted
from common.data.privacy import private_name
from common.errors import InputError

__all__ = ["Case", "dataset_name", "discover", "searched_folder"]

_LOG = logging.getLogger(__name__)

Case = dict[str, Any]
"""One case in the form of MONAI's own data lists."""

_FORMS = "a folder of NIfTI, PNG or JPEG files, a tree of DICOM series, one image, or a datalist (.json, .csv)"
_LIST = "datalist.json"
_IMAGE_FOLDERS = {"images", "imagestr", "imagests"}
_ROLE_OF_FOLDER = {"masks": "mask", "labels": "mask", "labelstr": "mask", "labelsts": "mask", "brain": "brain_mask"}
_LONGEST = 200  # bytes; names of files may have 255, with `_pseudo_healthy.nii.gz` and what marks an unfinished one
# The longer ending first: `a_brain_mask` is no mask of an image called `a_brain`.
_ROLE_OF_ENDING = {"_brain_mask": "brain_mask", "_bet_mask": "brain_mask", "_mask": "mask", "_seg": "mask"}


def discover(dataset_dir: str | Path, split: str | None = None, *, strict: bool = True) -> list[Case]:
    """Find the cases of a data set.

    Args:
        dataset_dir: one image file; a folder with NIfTI, PNG or JPEG files at any depth; a tree of DICOM series; a
            folder that holds ``datalist.json``; or a ``.json`` / ``.csv`` list (see ``read_datalist``). In the folders
            ``imagesTr`` and ``imagesTs`` of nnU-Net ``<case>_0000``, ``<case>_0001``, … are the channels of a case;
            where both are there, the cases of ``imagesTs`` are the split ``test``.
        split: take only the cases of this split of a list; None takes all.
        strict: refuse the whole data set for a missing file or a folder with several DICOM series; otherwise these are
            cases like others, and reading them fails.

    Returns:
        one dict a case with ``image`` (absolute path, or a list of them for several channels) and ``case`` (unique and
        fit for a file name; of a DICOM series whose folders tell the patient's name or number, made of the series'
        identifier instead); where known ``mask``, ``brain_mask``, ``twin`` (the same slice without its lesion),
        ``label``, ``subject`` (of DICOM made of the patient's number), ``split``, and every other column of the list.
        The order is that of the list, or of a sorted walk through the folder.

    Raises:
        InputError: nothing to be found, a list that cannot be used, a file that is missing, or an unknown split.
    """
    root = _absolute(dataset_dir)
    if not root.exists():
        raise InputError(root, "does not exist", f"give {_FORMS}")
    listed = root / _LIST if root.is_dir() else root
    if listed.is_file() and listed.suffix.lower() in (".json", ".csv"):
        cases = read_datalist(listed)
        _name_cases(cases, listed)
    else:
        cases = list(_in_folder(root, strict) if root.is_dir() else _one_file(root))
        _name_cases(cases, root if root.is_dir() else root.parent)
    cases = _of_split(cases, split, root)
    if strict:
        _refuse_missing(cases, root)
    return [{key: value for key, value in case.items() if key != "where"} for case in cases]


def searched_folder(dataset_dir: str | Path) -> Path | None:
    """The folder in which ``discover`` looks for images, at every depth; None for a list of cases or a single file."""
    root = _absolute(dataset_dir)
    return root if root.is_dir() and not (root / _LIST).is_file() else None


def dataset_name(dataset_dir: str | Path) -> str:
    """What to call a data set where results are written down: its last folder, unless that tells a patient's name."""
    root = _absolute(dataset_dir)
    first = next((path for path in ([root] if root.is_file() else _files(root)) if kind(path)), None)
    return root.name if first is None else private_name(root.name, str(first))


def _absolute(path: str | Path) -> Path:
    return Path(os.path.abspath(Path(path).expanduser()))


def _files(root: Path) -> Iterator[Path]:
    """Walk a folder in sorted order; links to folders are followed, but no folder is entered twice."""
    seen = set()

    def refuse(error: OSError) -> None:
        raise InputError(error.filename, f"cannot be read ({error.strerror})", "check the access rights") from error

    for folder, below, names in os.walk(root, onerror=refuse, followlinks=True):
        real = os.path.realpath(folder)
        below[:] = sorted(name for name in below if not name.startswith(".")) if real not in seen else []
        if real not in seen:
            yield from (Path(folder, name) for name in sorted(names) if not name.startswith("."))
        seen.add(real)


def _in_folder(root: Path, strict: bool) -> Iterator[Case]:
    by_kind: dict[str, list[Path]] = {}
    for path in _files(root):
        found = kind(path)
        if found:
            by_kind.setdefault("picture" if found in ("PNG", "JPEG") else found, []).append(path)
    if len(by_kind) > 1:
        counts = ", ".join(f"{len(paths)} {name}" for name, paths in sorted(by_kind.items()))
        raise InputError(root, f"holds files of several kinds ({counts})", "keep one kind, or list them in a datalist")
    if "DICOM" in by_kind:
        yield from _in_tree(sorted({path.parent for path in by_kind["DICOM"]}), by_kind["DICOM"], strict)
        return
    files = [path for paths in by_kind.values() for path in paths]
    images = [path for path in files if _role(path, root) is None]
    if not images:
        masks = f" ({len(files)} files taken for masks by their name or folder)" if files else ""
        raise InputError(root, f"holds no image{masks}", f"give {_FORMS}")
    channels: dict[Path, list[str]] = {}
    for path in images:
        name = _case_stem(path)
        channels.setdefault(path if name == stem(path) else path.parent / name, []).append(str(path))
    tested = {path.parent for path in images if path.parent.name.lower() == "imagests"}
    splits = any(path.parent.name.lower() == "imagestr" for path in images)
    firsts = [Path(paths[0]) for paths in channels.values()]
    for case, first, paths in zip(_with_masks(firsts, files, root), firsts, channels.values(), strict=True):
        split = {"split": "test"} if splits and first.parent in tested else {}
        yield {**case, "image": paths if len(paths) > 1 else paths[0], **split}


def _case_stem(path: Path) -> str:
    """The name of a file without its ending, and without the number of the channel in a folder of nnU-Net."""
    numbered = path.parent.name.lower() in ("imagestr", "imagests")
    return re.sub(r"_\d{4}$", "", stem(path)) if numbered else stem(path)


def _one_file(path: Path) -> Iterator[Case]:
    found = kind(path)
    if found is None:
        raise InputError(path, "is neither an image nor a list of images", f"give {_FORMS}")
    siblings = [] if found == "DICOM" else [other for other in sorted(path.parent.iterdir()) if kind(other)]
    yield from _with_masks([path], siblings, path.parent)


def _in_tree(folders: list[Path], files: list[Path], strict: bool) -> Iterator[Case]:
    """Give the cases of folders with DICOM files; where some hold series, those with reports alone are left out."""
    found = {folder: dicom_series(folder) for folder in folders}
    images = {path.parent for path in files if not is_report(path)}  # damaged where there is no series
    bare = [folder for folder in folders if not found[folder] and folder not in images] if any(found.values()) else []
    if bare:
        said = "%d folder(s) with DICOM files, but no image series among them, are left out, such as %s"
        _LOG.warning(said, len(bare), bare[0])
    for folder in folders:
        if folder not in bare:
            yield from _series(folder, found[folder], strict)


def _series(folder: Path, series: dict[str, list[str]], strict: bool) -> Iterator[Case]:
    """Give the cases of a folder with the DICOM series in it."""
    if len(series) > 1 and all(len(files) == 1 for files in series.values()):
        damaged = map(str, unlisted(folder, series))  # told when their turn comes
        files = sorted([*damaged, *(file for [file] in series.values())])
        yield from ({"image": file, **_patient(file)} for file in files)
    elif len(series) == 1:
        yield {"image": str(folder), **_patient(next(iter(series.values()))[0])}
    elif not strict:
        yield {"image": str(folder)}
    elif not series:
        raise InputError(folder, "holds DICOM files, but no image series among them", "remove them, or export anew")
    else:
        # MONAI takes a list of files for channels and a folder for its first series: neither can name one of several.
        names = ", ".join(f"{uid} ({len(files)} files)" for uid, files in sorted(series.items()))
        problem = f"holds {len(series)} DICOM series: {names}"
        raise InputError(folder, problem, "put each series into a folder of its own")


def _patient(file: str) -> Case:
    """The subject of a DICOM image, made of the patient's number, so that no patient is in two splits."""
    try:
        number = dicom_tags(file).get("0010|0020", "")
    except RuntimeError:  # told when the image is read
        return {}
    return {"subject": f"patient_{hashlib.sha256(number.encode()).hexdigest()[:12]}"} if number else {}


def _role(path: Path, root: Path) -> tuple[str, str] | None:
    """Say which mask a file is by its name, and the stem of the image that it belongs to; None for an image."""
    name = stem(path)
    for ending, role in _ROLE_OF_ENDING.items():
        if name.lower().endswith(ending) and len(name) > len(ending):
            return role, name[: -len(ending)]
    folders = [part.lower() for part in path.relative_to(root).parts[:-1]]
    return next(((_ROLE_OF_FOLDER[part], name) for part in folders if part in _ROLE_OF_FOLDER), None)


def _place(path: Path, root: Path) -> tuple[str, ...]:
    """Give the folders of a file without those that only say images or masks."""
    parts = path.relative_to(root).parts[:-1]
    return tuple(part for part in parts if part.lower() not in _IMAGE_FOLDERS | _ROLE_OF_FOLDER.keys())


def _with_masks(images: list[Path], files: list[Path], root: Path) -> Iterator[Case]:
    masks: dict[tuple[tuple[str, ...], str, str], list[Path]] = {}
    for path in files:
        role = _role(path, root)
        if role and path not in images:
            masks.setdefault((_place(path, root), role[1], role[0]), []).append(path)
    for image in images:
        case: Case = {"image": str(image)}
        for role_name in ("mask", "brain_mask"):
            key = (_place(image, root), _case_stem(image), role_name)
            if len(masks.get(key, ())) == 1:  # two candidates are no clear pair
                case[role_name] = str(masks.pop(key)[0])
        yield case
    if left := sorted(str(path) for paths in masks.values() for path in paths):
        _LOG.warning("%d mask(s) without an image of the same name are not used, such as %s", len(left), left[0])


def _safe(text: str) -> str:
    """A text as part of a file's name: of letters, digits, dots and dashes, and short enough for file systems."""
    name = re.sub(r"[^\w.-]+", "_", text).strip("._-") or "case"
    if len(name.encode()) <= _LONGEST:
        return name
    kept = name.encode()[: _LONGEST - 13].decode(errors="ignore")
    return f"{kept}_{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _name_of(case: Case, base: Path) -> str:
    path = Path(case["image"] if isinstance(case["image"], str) else case["image"][0])
    folders = path.relative_to(base).parts[:-1] if path.is_relative_to(base) else ()
    parts = [*(part for part in folders if part.lower() not in _IMAGE_FOLDERS), _case_stem(path)]
    name = _safe(path.name if path == base else "_".join(parts))
    return private_name(name, str(next(filter(is_dicom, _files(path)), path)) if path.is_dir() else str(path))


def _name_cases(cases: list[Case], source: Path) -> None:
    """Give each case its identifier; those that the user gave come first and must differ."""
    base = source.parent if source.is_file() else source
    given: dict[str, str] = {}
    for case in cases:
        name = case.get("case", case.get("id"))
        if name is None:
            continue
        case["case"] = _safe(name)
        # Identifiers become file names, and some file systems do not tell A from a.
        if (key := case["case"].casefold()) in given:
            problem = f"{case['where']} has the case {name!r}, which {given[key]} has already"
            raise InputError(source, problem, "give each case a name of its own, or leave the column out")
        given[key] = case["where"]
    taken = set(given)
    for case in cases:
        if "case" not in case:
            name, number = _name_of(case, base), 1
            case["case"] = name
            while case["case"].casefold() in taken:
                number += 1
                case["case"] = f"{name}_{number}"
            taken.add(case["case"].casefold())


def _of_split(cases: list[Case], split: str | None, root: Path) -> list[Case]:
    if split is None:
        return cases
    known = Counter(case["split"] for case in cases if "split" in case)
    if split not in known:
        there = ", ".join(f"{name} ({count})" for name, count in sorted(known.items()))
        remedy = f"use one of: {there}" if there else "leave the split out, or name the splits in a datalist"
        raise InputError(root, f"has no split '{split}'", remedy)
    return [case for case in cases if case.get("split") == split]


def _refuse_missing(cases: list[Case], root: Path) -> None:
    missing: list[str] = []
    for case in cases:
        images = case["image"] if isinstance(case["image"], list) else [case["image"]]
        paths = [*images, *(case[key] for key in ("twin", "mask", "brain_mask") if key in case)]
        missing += [path for path in paths if not os.path.exists(path)]
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        problem = f"names {len(missing)} file(s) that do not exist: {', '.join(missing[:5])}{more}"
        raise InputError(root, problem, "correct the paths; relative ones start from the folder of the list")
