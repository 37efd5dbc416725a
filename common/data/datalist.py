"""Reading a list of cases from a JSON or CSV file."""

from __future__ import annotations

import csv
import json
import logging
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from common.data.kinds import kind
from common.errors import InputError

__all__ = ["read_datalist"]

_LOG = logging.getLogger(__name__)
Case = dict[str, Any]
_EXAMPLE = '{"training": [{"image": "images/a.nii.gz", "subject": "a"}], "validation": [...]}'
_KNOWN = ("image", "twin", "mask", "brain_mask", "label", "subject", "case", "id", "split", "slice_mm")
_TEXT = ("image", "twin", "mask", "brain_mask", "subject", "case", "id", "split")


def read_datalist(file: Path) -> list[Case]:
    """Read the cases of a ``.json`` or ``.csv`` list; paths become absolute, whether they exist is not looked at.

    A column whose name is a known one in another spelling (``Mask``, ``brain-mask``) is refused, one whose name is
    nearly so (``lable``) is kept, with a warning: what it holds would not be used.

    A JSON list is a dict of lists by split, or a plain list whose entries may hold ``split``. In a CSV the channels
    of one image are separated by ``|``. A ``label`` that is a path (as in the Decathlon lists) is taken as the mask.

    Args:
        file: the list; relative paths in it start from its own folder.

    Returns:
        the cases in the order of the list, each with its line or position under ``where``.

    Raises:
        InputError: the file cannot be read or parsed, or an entry is not usable.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(file, f"cannot be read ({error})", "give a readable text file in UTF-8") from error
    entries = list(_from_csv(file, text) if file.suffix.lower() == ".csv" else _from_json(file, text))
    _check_names(file, entries)
    cases = [_clean(file, where, entry) for where, entry in entries]
    if not cases:
        raise InputError(file, "lists no case", f"add entries, for example {_EXAMPLE}")
    return cases


def _from_json(file: Path, text: str) -> Iterator[tuple[str, Any]]:
    try:
        tree = json.loads(text)
    except json.JSONDecodeError as error:
        problem = f"is not valid JSON (line {error.lineno}, column {error.colno}: {error.msg})"
        raise InputError(file, problem, "correct that line") from error
    if isinstance(tree, list):
        yield from ((f"entry {index}", entry) for index, entry in enumerate(tree))
        return
    splits = {name: part for name, part in tree.items() if isinstance(part, list)} if isinstance(tree, dict) else {}
    # Lists of plain words beside the splits (channel names, say) are descriptions; Decathlon's test list holds paths.
    for name, part in splits.items():
        if part and all(isinstance(entry, str) and kind(file.parent / entry) is None for entry in part):
            continue
        for index, entry in enumerate(part):
            entry = {"image": entry} if isinstance(entry, str) else entry
            yield f"{name}[{index}]", {**entry, "split": name} if isinstance(entry, dict) else entry
    if not splits:
        raise InputError(file, "holds no list of cases", f"write a list, or lists by split: {_EXAMPLE}")


def _from_csv(file: Path, text: str) -> Iterator[tuple[str, Any]]:
    header = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=header.count)
    rows = csv.DictReader(text.splitlines(), delimiter=delimiter, strict=True)
    try:
        names = [name.strip() for name in rows.fieldnames or []]
        if "image" not in names:
            raise InputError(file, f"line 1 has no column 'image' (found: {', '.join(names) or 'nothing'})", "add it")
        rows.fieldnames = names
        for row in rows:
            where = f"line {rows.line_num}"
            if None in row:
                raise InputError(file, f"{where} has more cells than the header", "quote cells that hold commas")
            entry: Case = {name: _number(name, (cell or "").strip()) for name, cell in row.items()}
            if any(value != "" for value in entry.values()):
                if "|" in entry["image"]:
                    entry["image"] = entry["image"].split("|")
                yield where, entry
    except csv.Error as error:
        problem = f"is not valid CSV (line {rows.reader.line_num}: {error})"
        raise InputError(file, problem, "correct that line") from error


def _check_names(file: Path, entries: Sequence[tuple[str, Any]]) -> None:
    """Look for names of columns that are not known, but may be meant so."""
    names = dict.fromkeys(str(name) for _, entry in entries if isinstance(entry, dict) for name in entry)
    plain = {_plain(known): known for known in _KNOWN}
    for name in names:
        if name in _KNOWN:
            continue
        meant = plain.get(_plain(name))
        if meant and meant not in names:
            problem = f"has the column '{name}', which is not known, and no '{meant}'"
            raise InputError(file, problem, f"call it '{meant}'")
        if meant := meant or _similar(_plain(name), plain):
            _LOG.warning("%s: the column '%s' is not used → call it '%s', if that is meant", file, name, meant)


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]", "", name.casefold())


def _similar(name: str, plain: Mapping[str, str]) -> str | None:
    """The known name that has the same letters in another order, or nearly the same."""
    for known in (*(each for each in plain if sorted(each) == sorted(name)), *get_close_matches(name, plain, 1, 0.85)):
        return plain[known]
    return None


def _number(name: str, cell: str) -> str | int | float:
    if name in _TEXT:
        return cell  # an identifier such as 007 stays as it is written
    for read in (int, float):
        try:
            return read(cell)
        except ValueError:
            continue
    return cell


def _clean(file: Path, where: str, entry: Any) -> Case:
    if not isinstance(entry, dict):
        raise InputError(file, f"{where} is not an object with named fields", 'write {"image": "..."} for each case')
    case = {str(key): value for key, value in entry.items() if value is not None and value != ""}
    if not case.get("image"):
        raise InputError(file, f"{where} has no 'image'", "name the image file of each case")
    label = case.get("label")
    if isinstance(label, str) and kind(file.parent / label):
        case.setdefault("mask", case.pop("label"))
    elif label is not None:
        case["label"] = _integer(file, where, label)
    if "slice_mm" in case:
        case["slice_mm"] = _level(file, where, case["slice_mm"])
    for key in ("image", "twin", "mask", "brain_mask"):
        if key in case:
            case[key] = _absolute(file, where, key, case[key])
    for key in ("subject", "case", "id", "split"):
        if key in case:
            case[key] = str(case[key])
    return {**case, "where": where}


def _integer(file: Path, where: str, label: Any) -> int:
    try:
        if float(label) == int(float(label)):
            return int(float(label))
    except (TypeError, ValueError, OverflowError):
        pass
    raise InputError(file, f"{where} has the label {label!r}", "use whole numbers, 0 for healthy")


def _level(file: Path, where: str, level: Any) -> float:
    try:
        if math.isfinite(float(level)):
            return float(level)
    except (TypeError, ValueError):
        pass
    raise InputError(file, f"{where} has the slice_mm {level!r}", "use a number: the level of the slice in mm")


def _absolute(file: Path, where: str, key: str, value: Any) -> str | list[str]:
    if isinstance(value, list) and key == "image" and all(isinstance(part, str) and part for part in value):
        paths = [os.path.abspath(file.parent / Path(part).expanduser()) for part in value]
        return paths if len(paths) > 1 else paths[0]
    if isinstance(value, str):
        return os.path.abspath(file.parent / Path(value).expanduser())
    remedy = "give a path, or a list of paths" if key == "image" else "give one path"
    raise InputError(file, f"{where} has {key} = {value!r}", remedy)
