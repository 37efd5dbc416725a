"""What was measured, into the ``docs/results.json`` of the bundles, from which their tables are made."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.errors import InputError
from common.evaluation.bundle import find_bundle
from common.files import write_json

__all__ = ["entry_of", "record", "record_cards"]

_COST = ("network_evaluations_per_slice", "seconds_per_slice", "gflop_per_slice", "peak_mib", "hardware")
# A path that begins at the root: in the middle of words, or with a drive.
_PATH = re.compile(r"""(?:^|[\s'"=(\[,])(?:/[\w.~-]+/|~/|[A-Za-z]:[\\/])""")


def record(
    folder: str | Path,
    *,
    bundles_dir: Path,
    name: str,
    title: str | None = None,
    data: str | None = None,
    command: str | None = None,
    bundles: str | Sequence[str] = "all",
) -> list[Path]:
    """Write the numbers of a comparison into the bundles, in place of those that were recorded under the same name.

    Args:
        folder: of the comparison.
        bundles_dir: the folder of the bundles.
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


def record_cards(
    folder: str | Path,
    *,
    bundles_dir: Path,
    data: str | None = None,
    command: str | None = None,
    bundles: str | Sequence[str] = "all",
) -> list[Path]:
    """Write robustness cards into the bundles as ``robustness``, in place of those that were there.

    Args:
        folder: of one card, or of a card in each folder.
        bundles_dir: the folder of the bundles.
        data: the cases in words; by default how many they are.
        command: that repeats it; by default that of the card.
        bundles: names separated by commas, or all that have a card.

    Returns:
        the files that were written.

    Raises:
        InputError: no card, or a path of this machine in the words; nothing is written then.
    """
    files = [*Path(folder).glob("robustness.json"), *sorted(Path(folder).glob("*/robustness.json"))]
    if not files:
        remedy = "make one with 'anomaly-zoo compare' or 'anomaly-zoo robustness'"
        raise InputError(folder, "holds no comparison and no robustness card", remedy)
    cards = {card["bundle"]: card for card in (_read(file, "perturbations", "make it anew") for file in files)}
    contents: dict[Path, dict[str, Any]] = {}
    for bundle in _chosen(cards, bundles, ()):
        card, file = cards[bundle], find_bundle(bundles_dir, bundle) / "docs" / "results.json"
        protocol = _protocol(card["protocol"])
        recorded = {
            "command": command or card["command"],
            "data": data or f"{card['cases']} cases of {card['subjects']} subjects",
            **{key: card[key] for key in ("cases", "subjects", "clean", "perturbations", "attack")},
            "protocol": {**protocol, "split": card["protocol"]["split"]},
        }
        refuse_paths(recorded, file)
        contents[file] = {**_content(file), "robustness": recorded}
    for file, content in contents.items():
        write_json(file, content)
    return list(contents)


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
