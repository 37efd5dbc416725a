"""Curves of quality against evaluations as Markdown: one of a bundle, and what is fast of all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["curve_summary", "curve_table"]

Curve = Mapping[str, Any]


def curve_table(curve: Curve) -> str:
    """A row a setting, fewest evaluations first; that of the fast one, as good as the reference, is bold.

    Args:
        curve: as ``curves`` makes it.
    """
    heads = ["", "evaluations", "seconds a slice", "pixel AP", f"against {curve['reference']}", "best Dice"]
    lines = [_line(heads), "|" + "---|" * len(heads)]
    for row in curve["points"]:
        mark = "**" if row["name"] == curve["fast"] else ""
        cells = [f"{mark}{row['name']}{mark}", *_cost(row), _ap(row), _change(row, curve), f"{row['oracle_dice']:.3f}"]
        lines.append(_line(cells))
    return "\n".join(lines)


def curve_summary(curves: Mapping[str, Curve]) -> str:
    """A row a bundle: the reference, the fewest evaluations that are as good, and the default, if it was measured.

    Args:
        curves: by the name of the bundle.
    """
    cost = ["evaluations", "seconds a slice", "pixel AP"]
    heads = ["", "reference", *cost, "evaluations for as much", *(f"default: {head}" for head in cost), "fewer"]
    lines = [_line(heads), "|" + "---|" * len(heads)]
    for name, curve in sorted(curves.items(), key=lambda item: -_named(item[1], "reference")[_EVALUATIONS]):
        first, fast = _named(curve, "reference"), _named(curve, "fast")
        cells = [f"`{name}`", first["name"], *_cost(first), _ap(first), f"{fast[_EVALUATIONS]:.0f}"]
        default = next((row for row in curve["points"] if row["name"] == "default"), None)
        if default is None:
            cells += [""] * 4
        else:
            times = first[_EVALUATIONS] / default[_EVALUATIONS]
            cells += [*_cost(default), _ap(default), f"{times:.0f} ×" if times > 1 else ""]
        lines.append(_line(cells))
    return "\n".join(lines)


_EVALUATIONS = "network_evaluations_per_slice"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _named(curve: Curve, key: str) -> Mapping[str, Any]:
    return next(row for row in curve["points"] if row["name"] == curve[key])


def _cost(row: Mapping[str, Any]) -> tuple[str, str]:
    return f"{row[_EVALUATIONS]:.0f}", f"{row['seconds_per_slice']:.2f}"


def _ap(row: Mapping[str, Any]) -> str:
    low, high = row["interval"]
    return f"{row['pixel_ap']:.3f} [{low:.2f}, {high:.2f}]"


def _change(row: Mapping[str, Any], curve: Curve) -> str:
    if row["name"] == curve["reference"]:
        return ""
    low, high = row["change_interval"]
    return f"{row['change']:+.3f} [{low:+.2f}, {high:+.2f}]"
