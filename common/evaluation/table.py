"""Markdown tables of the figures that bundles carry in ``docs/results.json``, and the pages that show them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.errors import InputError
from common.files import write_atomic

__all__ = ["bundle_table", "results_table", "update_tables"]

# Heading, key of the metric, digits, factor, unit.
_COLUMNS: tuple[tuple[str, str, int, float, str], ...] = (
    ("pixel AP", "pixel_ap", 3, 1, ""),
    ("AP per case", "case_ap_mean", 3, 1, ""),
    ("best Dice", "oracle_dice", 3, 1, ""),
    ("Dice at threshold", "dice", 3, 1, ""),
    ("healthy FPR", "healthy_fpr", 2, 100, " %"),
    ("image AUROC", "image_auroc_top1", 3, 1, ""),
)
_HEADS = [column[0] for column in _COLUMNS]
_COST = (("network_evaluations_per_slice", 0), ("seconds_per_slice", 2))
_COST_HEADS = ["evaluations", "seconds a slice"]
_BASELINE = {"pixel_ap": "intensity_ap", "oracle_dice": "intensity_oracle_dice"}
_MARKED = re.compile(r"(<!-- results: (\S+) -->\n).*?(<!-- /results -->)", re.DOTALL)

Result = Mapping[str, Any]


def results_table(bundles: Sequence[Path], name: str) -> str:
    """The table of one experiment: a row for each bundle that has it, best AP first, then intensity and chance.

    Args:
        bundles: folders of bundles.
        name: of the experiment (``id`` in ``docs/results.json``). ``<name>_random``, the same with random weights,
            gives a column where a bundle has it.

    Raises:
        InputError: no bundle has such results, or a file of results cannot be read.
    """
    found: dict[str, Result] = {}
    random: dict[str, float] = {}
    for bundle in bundles:
        results = _read(bundle)
        if name in results:
            found[bundle.name] = results[name]
        if f"{name}_random" in results:
            random[bundle.name] = results[f"{name}_random"]["metrics"]["pixel_ap"]
    if not found:
        raise InputError(f"results '{name}'", "are in no bundle", "see 'id' in docs/results.json of a bundle")
    lines = [["", *_HEADS, "AP, random weights", *_COST_HEADS]]
    for bundle_name, result in sorted(found.items(), key=lambda each: -each[1]["metrics"]["pixel_ap"]):
        cells = [*_cells(result["metrics"]), _cell(random.get(bundle_name), 3), *_cost(result)]
        lines.append([f"[`{bundle_name}`](bundles/{bundle_name}/docs/README.md)", *cells])
    metrics = next(iter(found.values()))["metrics"]
    baseline = {key: metrics[intensity] for key, intensity in _BASELINE.items() if intensity in metrics}
    for label, row in (("intensity alone", baseline), ("chance", {"pixel_ap": metrics["prevalence"]})):
        lines.append([label, *_cells(row), "", "", ""])
    return _table(lines)


def bundle_table(bundle: Path) -> str:
    """The table of one bundle: a row for each experiment, with the AP of the intensity alone and of chance.

    Args:
        bundle: its folder.

    Raises:
        InputError: its file of results cannot be read.
    """
    lines = [["", *_HEADS, "AP, intensity", "AP, chance", *_COST_HEADS]]
    for result in _read(bundle).values():
        metrics = result["metrics"]
        beside = [_cell(metrics.get("intensity_ap"), 3), _cell(metrics.get("prevalence"), 3)]
        lines.append([str(result["name"]), *_cells(metrics), *beside, *_cost(result)])
    return _table(lines)


def update_tables(page: Path, bundles: Sequence[Path]) -> str:
    """A page with fresh tables between ``<!-- results: NAME -->`` and ``<!-- /results -->``; writes it if it changed.

    Args:
        page: Markdown. NAME is an experiment, or ``bundle`` for the table of the bundle that the page belongs to.
        bundles: folders of all bundles.

    Raises:
        InputError: the page has no such lines, or results are missing or cannot be read.
    """
    text = page.read_text(encoding="utf-8")
    if not _MARKED.search(text):
        raise InputError(page, "has no place for results", "add <!-- results: NAME --> and <!-- /results -->")

    def fresh(match: re.Match[str]) -> str:
        table = bundle_table(page.parents[1]) if match[2] == "bundle" else results_table(bundles, match[2])
        return f"{match[1]}{table}\n{match[3]}"

    updated = _MARKED.sub(fresh, text)
    if updated != text:
        write_atomic(page, updated.encode())
    return updated


def _read(bundle: Path) -> dict[str, Result]:
    file = bundle / "docs" / "results.json"
    try:
        results = json.loads(file.read_text(encoding="utf-8"))["results"]
        return {str(result["id"]): result for result in results if "id" in result}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(file, f"is no file of results ({error})", "restore it from the release") from error


def _cost(result: Result) -> list[str]:
    return [_cell(result.get(key), digits) for key, digits in _COST]


def _cells(metrics: Mapping[str, float]) -> list[str]:
    return [_cell(metrics.get(key), digits, factor, unit) for _, key, digits, factor, unit in _COLUMNS]


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Markdown of a head and its rows, without the columns that are empty."""
    used = [index for index, column in enumerate(zip(*rows[1:], strict=True)) if any(column)]
    lines = ["| " + " | ".join(row[index] for index in used) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(used), *lines[1:]])


def _cell(value: float | None, digits: int, factor: float = 1, unit: str = "") -> str:
    return "" if value is None else f"{value * factor:.{digits}f}{unit}"
