"""Markdown tables of the figures that bundles carry in ``docs/results.json``, and the pages that show them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.errors import InputError
from common.evaluation.card_tables import card_table, summary_table
from common.evaluation.columns import COST, IMAGES, LESIONS, RANKING, Column, number
from common.evaluation.curve_tables import curve_summary, curve_table
from common.files import write_atomic

__all__ = [
    "bundle_table",
    "curve_overview",
    "curve_section",
    "read_results",
    "results_table",
    "robustness_overview",
    "robustness_section",
    "update_tables",
]

_AP, *_OTHERS = RANKING[:5]
_COLUMNS = (*_OTHERS, LESIONS[2]._replace(head="lesion F1"), IMAGES[0]._replace(head="image AUROC"))
_HEADS = [column.head for column in (_AP, *_COLUMNS)]
_COST = (
    COST[0]._replace(head="evaluations", digits=0),
    COST[1],
    COST[2]._replace(digits=2),
)
_COST_HEADS = [column.head for column in _COST]
_BASELINE = {"pixel_ap": "intensity_ap", "oracle_dice": "intensity_oracle_dice"}
_MARKED = re.compile(r"(<!-- (results|robustness|curve): (\S+) -->\n).*?(<!-- /\2 -->)", re.DOTALL)

Result = Mapping[str, Any]


def results_table(bundles: Sequence[Path], name: str, place: str = "bundles") -> str:
    """The table of one experiment: a row for each bundle that has it, best AP first, then intensity and chance.

    Args:
        bundles: folders of bundles.
        name: of the experiment (``id`` in ``docs/results.json``). ``<name>_random``, the same with random weights,
            gives a column where a bundle has it.
        place: the folder of the bundles, seen from the page, for links.

    Raises:
        InputError: no bundle has such results, or a file of results cannot be read.
    """
    found: dict[str, Result] = {}
    random: dict[str, float] = {}
    for bundle in bundles:
        results = read_results(bundle)
        if name in results:
            found[bundle.name] = results[name]
        if f"{name}_random" in results:
            random[bundle.name] = results[f"{name}_random"]["metrics"]["pixel_ap"]
    if not found:
        raise InputError(f"results '{name}'", "are in no bundle", "see 'id' in docs/results.json of a bundle")
    lines = [["", *_HEADS, "AP, random weights", *_COST_HEADS]]
    for bundle_name, result in sorted(found.items(), key=lambda each: -(each[1]["metrics"]["pixel_ap"] or 0)):
        cells = [*_cells(result), number(random.get(bundle_name), empty=""), *_cost(result)]
        lines.append([f"[`{bundle_name}`]({place}/{bundle_name}/docs/README.md)", *cells])
    first = max(found.values(), key=lambda result: "intervals" in result)
    for label, sources in (("intensity alone", _BASELINE), ("chance", {"pixel_ap": "prevalence"})):
        baseline = {
            kind: {key: first[kind][source] for key, source in sources.items() if source in first.get(kind, {})}
            for kind in ("metrics", "intervals")
        }
        lines.append([label, *_cells(baseline), "", *("" for _ in _COST)])
    return _table(lines)


def bundle_table(bundle: Path) -> str:
    """The table of one bundle: a row for each experiment, with the AP of the intensity alone and of chance.

    Args:
        bundle: its folder.

    Raises:
        InputError: its file of results cannot be read.
    """
    lines = [["", *_HEADS, "AP, intensity", "AP, chance", *_COST_HEADS]]
    for result in read_results(bundle).values():
        metrics = result["metrics"]
        beside = [number(metrics.get(key), empty="") for key in ("intensity_ap", "prevalence")]
        lines.append([str(result["name"]), *_cells(result), *beside, *_cost(result)])
    return _table(lines)


def robustness_section(bundle: Path) -> str:
    """What a bundle's recorded robustness card says: a sentence and a table; empty without one.

    Args:
        bundle: its folder.

    Raises:
        InputError: its file of results cannot be read.
    """
    card = _file(bundle).get("robustness")
    if card is None:
        return ""
    clean = card["clean"]
    low, high = clean["interval"]
    attack = f" Attack: {card['attack']['method']}." if card["attack"] else ""
    return (
        f"**Robustness** ({card['data']}): pixel AP {clean['pixel_ap']:.3f} [{low:.2f}, {high:.2f}] as they are; "
        f"below, under the middle strength of each kind, of two the one with the larger loss.{attack}\n\n"
        f"{card_table(card)}\n"
    )


def robustness_overview(bundles: Sequence[Path]) -> str:
    """The recorded robustness cards of all bundles in one table; empty without any.

    Args:
        bundles: their folders.

    Raises:
        InputError: a file of results cannot be read.
    """
    cards = _measured(bundles, "robustness")
    return f"{summary_table(cards)}\n" if cards else ""


def curve_section(bundle: Path) -> str:
    """What a bundle's recorded curve says: a sentence and a table; empty without one.

    Args:
        bundle: its folder.

    Raises:
        InputError: its file of results cannot be read.
    """
    curve = _file(bundle).get("curve")
    if curve is None:
        return ""
    return (
        f"**Quality against evaluations** ({curve['data']}; {curve['points'][0]['hardware']}): bold is the cheapest "
        f"whose pixel AP is at most 0.01 below that of {curve['reference']}.\n\n{curve_table(curve)}\n"
    )


def curve_overview(bundles: Sequence[Path]) -> str:
    """The recorded curves of all bundles in one table; empty without any.

    Args:
        bundles: their folders.

    Raises:
        InputError: a file of results cannot be read.
    """
    found = _measured(bundles, "curve")
    return f"{curve_summary(found)}\n" if found else ""


def update_tables(page: Path, bundles: Sequence[Path]) -> str:
    """A page with fresh tables between its marks; writes it if it changed.

    Args:
        page: Markdown with ``<!-- results: NAME -->`` and ``<!-- /results -->``, or the same with ``robustness`` or
            ``curve``. NAME is an experiment (for these two: ``all``), or ``bundle`` for what belongs to the bundle of
            the page.
        bundles: folders of all bundles.

    Raises:
        InputError: the page has no such lines, or results are missing or cannot be read.
    """
    text = page.read_text(encoding="utf-8")
    if not _MARKED.search(text):
        raise InputError(page, "has no place for results", "add <!-- results: NAME --> and <!-- /results -->")

    place = Path(os.path.relpath(bundles[0].parent, page.parent)).as_posix() if bundles else ""

    def fresh(match: re.Match[str]) -> str:
        mark, kind, name, end = match.groups()
        if kind == "robustness":
            made = robustness_section(page.parents[1]) if name == "bundle" else robustness_overview(bundles)
        elif kind == "curve":
            made = curve_section(page.parents[1]) if name == "bundle" else curve_overview(bundles)
        else:
            made = (bundle_table(page.parents[1]) if name == "bundle" else results_table(bundles, name, place)) + "\n"
        return f"{mark}{made}{end}"

    updated = _MARKED.sub(fresh, text)
    if updated != text:
        write_atomic(page, updated.encode())
    return updated


def read_results(bundle: Path) -> dict[str, Result]:
    """The entries of a bundle's ``docs/results.json`` by their id; those without one are left out.

    Raises:
        InputError: the file cannot be read.
    """
    return {str(result["id"]): result for result in _file(bundle)["results"] if "id" in result}


def _measured(bundles: Sequence[Path], kind: str) -> dict[str, Any]:
    """What bundles have recorded beside experiments, by their names; those without are left out."""
    return {bundle.name: found for bundle in bundles if (found := _file(bundle).get(kind))}


def _file(bundle: Path) -> dict[str, Any]:
    file = bundle / "docs" / "results.json"
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if not all(isinstance(result, dict) for result in content["results"]):
            raise TypeError("its results are no mappings")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(file, f"is no file of results ({error})", "restore it from the release") from error
    return content


def _cells(result: Result) -> list[str]:
    """Pixel AP with its interval, where it has one, and the other numbers."""
    metrics = result["metrics"]
    interval = result.get("intervals", {}).get(_AP.key)
    bounds = f" [{interval[0]:.2f}, {interval[1]:.2f}]" if interval else ""
    return [_cell(metrics, _AP) + bounds, *(_cell(metrics, column) for column in _COLUMNS)]


def _cost(result: Result) -> list[str]:
    return [_cell(result, column) for column in _COST]


def _cell(numbers: Mapping[str, Any], column: Column) -> str:
    return number(numbers.get(column.key), *column[2:], empty="")


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Markdown of a head and its rows, without the columns that are empty."""
    used = [index for index, column in enumerate(zip(*rows[1:], strict=True)) if any(column)]
    lines = ["| " + " | ".join(row[index] for index in used) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(used), *lines[1:]])
