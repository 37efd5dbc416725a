"""A Markdown table of the figures that bundles carry in ``docs/results.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.errors import InputError

__all__ = ["results_table"]

# Heading, key of the metric, digits, factor, unit.
_COLUMNS: tuple[tuple[str, str, int, float, str], ...] = (
    ("pixel AP", "pixel_ap", 3, 1, ""),
    ("AP per case", "case_ap_mean", 3, 1, ""),
    ("best Dice", "oracle_dice", 3, 1, ""),
    ("Dice at threshold", "dice", 3, 1, ""),
    ("healthy FPR", "healthy_fpr", 2, 100, " %"),
    ("image AUROC", "image_auroc_top1", 3, 1, ""),
)
_BASELINE = {"pixel_ap": "intensity_ap", "oracle_dice": "intensity_oracle_dice"}


def results_table(bundles: Sequence[Path], name: str) -> str:
    """The table of one experiment: a row for each bundle that has it, best AP first, then intensity and chance.

    Args:
        bundles: folders of bundles.
        name: of the experiment (``id`` in ``docs/results.json``). ``<name>_random``, the same with random weights,
            gives a column where a bundle has it.

    Raises:
        InputError: no bundle has such results, or a file of results cannot be read.
    """
    found: dict[str, Mapping[str, Any]] = {}
    random: dict[str, float] = {}
    for bundle in bundles:
        results = {str(each.get("id")): each for each in _read(bundle / "docs" / "results.json")}
        if name in results:
            found[bundle.name] = results[name]
        if f"{name}_random" in results:
            random[bundle.name] = results[f"{name}_random"]["metrics"]["pixel_ap"]
    if not found:
        raise InputError(f"results '{name}'", "are in no bundle", "see 'id' in docs/results.json of a bundle")
    heads = ["", *(head for head, *_ in _COLUMNS), "AP, random weights", "evaluations", "seconds a slice"]
    lines = [_line(heads), "|" + "---|" * len(heads)]
    for bundle_name, result in sorted(found.items(), key=lambda each: -each[1]["metrics"]["pixel_ap"]):
        cells = _cells(result["metrics"])
        cost = [_cell(result.get("network_evaluations_per_slice"), 0), _cell(result.get("seconds_per_slice"), 2)]
        lines.append(_line([f"`{bundle_name}`", *cells, _cell(random.get(bundle_name), 3), *cost]))
    metrics = next(iter(found.values()))["metrics"]
    baseline = {key: metrics[intensity] for key, intensity in _BASELINE.items() if intensity in metrics}
    for label, row in (("intensity alone", baseline), ("chance", {"pixel_ap": metrics["prevalence"]})):
        lines.append(_line([label, *_cells(row), "", "", ""]))
    return "\n".join(lines)


def _read(file: Path) -> list[Mapping[str, Any]]:
    try:
        return json.loads(file.read_text(encoding="utf-8"))["results"]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(file, f"is no file of results ({error})", "restore it from the release") from error


def _cells(metrics: Mapping[str, float]) -> list[str]:
    return [_cell(metrics.get(key), digits, factor, unit) for _, key, digits, factor, unit in _COLUMNS]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell(value: float | None, digits: int, factor: float = 1, unit: str = "") -> str:
    return "" if value is None else f"{value * factor:.{digits}f}{unit}"
