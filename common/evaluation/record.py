"""What was measured, into the ``docs/results.json`` of the bundles, from which their tables are made."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from common.bundles import find_bundle
from common.errors import InputError
from common.files import write_json

__all__ = ["entry_of", "record", "record_measured"]

_COST = ("network_evaluations_per_slice", "seconds_per_slice", "gflop_per_slice", "peak_mib", "hardware")
# A path that begins at the root: in the middle of words, or with a drive.
_PATH = re.compile(r"""(?:^|[\s'"=(\[,])(?:/[\w.~-]+/|~/|[A-Za-z]:[\\/])""")


def record(
    folder: str | Path,
    *,
    bundles_dir: str | Path | None = None,
    name: str,
    title: str | None = None,
    data: str | None = None,
    command: str | None = None,
    bundles: str | Sequence[str] = "all",
) -> list[Path]:
    """Write the numbers of a comparison into the bundles, in place of those that were recorded under the same name.

    Args:
        folder: of the comparison.
        bundles_dir: the folder of the bundles, as of ``bundle_folder``.
        name: of the experiment, ``id`` in the files.
        title: of its rows; by default what the entry of this name has had.
        data: the cases in words; by default how many they are.
        command: that repeats it; by default that of the comparison, with TEST_SET, WEIGHTS and SETTINGS as names.
        bundles: names separated by commas, or all that were compared.

    Returns:
        the files that were written.

    Raises:
        InputError: no comparison, a bundle that it does not have, no title, or a path of this machine in the words;
            nothing is written then.
    """
    results = _read(Path(folder) / "results.json", "bundles", "make it with 'anomaly-zoo compare'")
    found = {entry["bundle"]: entry for entry in results["bundles"]}
    entries: dict[Path, dict[str, Any]] = {}
    for bundle in _chosen(found, bundles, results.get("failures", ())):
        file = find_bundle(bundles_dir, bundle) / "docs" / "results.json"
        before: dict[str, Any] = next((each for each in _content(file)["results"] if each.get("id") == name), {})
        heading = title or before.get("name")
        if not heading:
            raise InputError(f"results '{name}'", f"are new in {bundle}", "say what the rows are to be called: --name")
        words = {"id": name, "name": heading, "command": command or results["command"], "data": data or _words(results)}
        entries[file] = {**words, **entry_of(found[bundle], results)}
        refuse_paths(entries[file], file)
    for file, entry in entries.items():
        content = _content(file)
        listed = content["results"]
        place = next((i for i, each in enumerate(listed) if each.get("id") == name), None)
        if place is None:  # before what is told without an id, which no table shows
            place = max((i + 1 for i, each in enumerate(listed) if "id" in each), default=0)
            listed.insert(place, entry)
        else:
            listed[place] = entry
        write_json(file, content)
    return list(entries)


def record_measured(
    folder: str | Path,
    *,
    bundles_dir: str | Path | None = None,
    data: str | None = None,
    command: str | None = None,
    bundles: str | Sequence[str] = "all",
) -> list[Path]:
    """Write robustness cards and curves into the bundles, as ``robustness`` and ``curve``, in place of older ones.

    Args:
        folder: of one of them, or of one in each folder.
        bundles_dir: the folder of the bundles, as of ``bundle_folder``.
        data: the cases in words; by default how many they are.
        command: that repeats it; by default that of the card or curve.
        bundles: names separated by commas, or all that have one.

    Returns:
        the files that were written.

    Raises:
        InputError: neither card nor curve, or a path of this machine in the words; nothing is written then.
    """
    contents: dict[Path, dict[str, Any]] = {}
    for kind, (key, entry_of_kind) in _MEASURED.items():
        files = [*Path(folder).glob(f"{kind}.json"), *sorted(Path(folder).glob(f"*/{kind}.json"))]
        found = {each["bundle"]: each for each in (_read(file, key, "make it anew") for file in files)}
        for bundle in _chosen(found, bundles, ()) if found else ():
            measured, file = found[bundle], find_bundle(bundles_dir, bundle) / "docs" / "results.json"
            recorded = {
                "command": command or measured["command"],
                "data": data or f"{measured['cases']} cases of {measured['subjects']} subjects",
                **entry_of_kind(measured),
            }
            refuse_paths(recorded, file)
            contents[file] = {**contents.get(file, _content(file)), kind: recorded}
    if not contents:
        remedy = "make one with 'anomaly-zoo compare', 'robustness' or 'curve'"
        raise InputError(folder, "holds no comparison, robustness card or curve", remedy)
    for file, content in contents.items():
        write_json(file, content)
    return list(contents)


def _card(card: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: card[key] for key in ("cases", "subjects", "clean", "perturbations", "attack")}
    return {**kept, "protocol": {**_protocol(card["protocol"]), "split": card["protocol"]["split"]}}


def _curve(curve: Mapping[str, Any]) -> dict[str, Any]:
    """Without the draws, which only serve to compare."""
    points = [{key: value for key, value in row.items() if key not in ("drawn", "identity")} for row in curve["points"]]
    for row in points:
        row["settings"] = {key: _nameless(value) for key, value in row["settings"].items()}
    return {**{key: curve[key] for key in ("cases", "subjects", "reference", "fast")}, "points": points}


# By the name of the file: an entry that tells what it is, and what is recorded of it.
_MEASURED: dict[str, tuple[str, Callable[[Mapping[str, Any]], dict[str, Any]]]] = {
    "robustness": ("perturbations", _card),
    "curve": ("reference", _curve),
}


def entry_of(entry: Mapping[str, Any], results: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of one bundle in the form of ``docs/results.json``.

    Args:
        entry: of the bundle, as ``results.json`` of a comparison has it.
        results: the whole of that file.
    """
    protocol, cost = _protocol(entry["protocol"]), entry["cost"]
    intensity, _ = results["baselines"]
    intervals = {**entry["intervals"], "intensity_ap": intensity["intervals"]["pixel_ap"]}
    told = [finding for finding in results["leaks"] if finding["bundle"] in ("", entry["bundle"])]
    return {
        "metrics": entry["metrics"],
        "intervals": {key: [round(end, 6) for end in ends] for key, ends in intervals.items() if None not in ends},
        "bootstrap": results["bootstrap"],
        "sizes": entry["sizes"],
        "protocol": {
            **protocol,
            "split": results["data"]["split"],
            "subjects": results["data"]["subjects"],
            "versions": results["versions"],
            # Their details may name subjects.
            "leaks": {finding["check"]: finding["status"] for finding in told if finding["status"] != "ok"},
        },
        **{key: cost[key] for key in _COST if cost.get(key) is not None},
    }


def refuse_paths(value: Any, file: Path) -> None:
    """Stop where a text holds a path of this machine, which is nobody's business and of no use to others.

    Raises:
        InputError: it does.
    """
    if isinstance(value, Mapping):
        for each in value.values():
            refuse_paths(each, file)
    elif isinstance(value, list):
        for each in value:
            refuse_paths(each, file)
    elif isinstance(value, str) and _PATH.search(value):
        raise InputError(file, f"would hold a path of this machine: {value!r}", "give --data and --command without it")


def _read(file: Path, key: str, remedy: str) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        content[key]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(file, f"cannot be read ({type(error).__name__}: {error})", remedy) from error
    return content


def _content(file: Path) -> dict[str, Any]:
    """A bundle's file of results; a fresh one where it has none."""
    return _read(file, "results", "restore it from the release") if file.exists() else {"results": []}


def _chosen(found: Mapping[str, Any], bundles: str | Sequence[str], failures: Sequence[Mapping[str, str]]) -> list[str]:
    if bundles == "all":
        return list(found)
    names = [name.strip() for name in bundles.split(",")] if isinstance(bundles, str) else [str(n) for n in bundles]
    for name in names:
        if name not in found:
            failed = [f"it failed: {each['error']}" for each in failures if each["bundle"] == name]
            problem = f"is not among them ({'; '.join(failed) or 'was not compared'})"
            raise InputError(f"bundle '{name}'", problem, f"choose from {', '.join(found)}")
    return names


def _protocol(stated: Mapping[str, Any]) -> dict[str, Any]:
    """A protocol without the names of this machine, and the hash of the main network by itself."""
    hashes = dict(stated["weights_sha256"])
    return {
        **{key: value for key, value in stated.items() if key not in ("name", "key")},
        "test_set": "TEST_SET",
        "overrides": {key: _nameless(value) for key, value in stated["overrides"].items()},
        "weights_sha256": hashes.pop("weights", None),
        "other_files_sha256": hashes,
    }


def _words(results: Mapping[str, Any]) -> str:
    data = results["data"]
    return f"{data['cases']} cases of {data['subjects']} subjects, {data['lesion_cases']} with lesion"


def _nameless(value: Any) -> Any:
    """A path as the name of its file."""
    return Path(value).name if isinstance(value, str) and os.path.isabs(value) else value
