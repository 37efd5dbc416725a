"""Charts as SVG that takes the colours of the page, light or dark."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from common.evaluation.counts import above

__all__ = ["COLOURS", "cost_chart", "interval_chart", "precision_recall_chart", "size_chart"]

COLOURS = ("#3987cf", "#dd8500", "#2ba074", "#d0568f", "#8f74dd", "#b8762f")
"""Of the first bundles in the ranking; the others are grey. Readable on white and on black."""

_TEXT, _FAINT, _LINE = "#010101", "#020202", "#030303"  # stand for the page's own colours
_VARIABLES = {_TEXT: "var(--text)", _FAINT: "var(--faint)", _LINE: "var(--line)"}
_Interval = tuple[str, float, Sequence[float]]


def interval_chart(rows: Sequence[_Interval], lines: Mapping[str, float], label: str, one_colour: bool = False) -> str:
    """A point and its interval for each bundle, best at the top, and vertical lines for baselines.

    Args:
        rows: name, value and (low, high).
        lines: value of each baseline.
        label: of the axis.
        one_colour: for rows that are no ranking.
    """
    with _chart("intervals", (8.6, 0.9 + 0.27 * len(rows))) as (axis, done):
        for index, (name, value, (low, high)) in enumerate(rows):
            colour = colour_of(0 if one_colour else index)
            axis.plot([low, high], [index, index], color=colour, linewidth=2.2, alpha=0.55, solid_capstyle="butt")
            axis.plot([value], [index], "o", color=colour, markersize=5.5, label=name)
        for place, value in enumerate(lines.values()):
            axis.axvline(value, color=_FAINT, linewidth=0.9, linestyle=(0, (4, 3)) if place else "-")
        axis.set_yticks(range(len(rows)), [row[0] for row in rows])
        axis.set_ylim(len(rows) - 0.5, -0.5)
        axis.set_xlim(left=0)
        axis.set_xlabel(label)
        axis.grid(visible=False, axis="y")
    return done[0]


def precision_recall_chart(counts: Mapping[str, np.ndarray], baseline: tuple[str, np.ndarray], chance: float) -> str:
    """Precision against recall, pooled over all pixels.

    Args:
        counts: histogram (2, bins) of each bundle, best first.
        baseline: name and histogram of the intensity.
        chance: prevalence.
    """
    with _chart("precision-recall", (8.6, 4.4)) as (axis, done):
        for index, (name, each) in reversed(list(enumerate(counts.items()))):
            first = index < len(COLOURS)
            axis.plot(
                *_curve(each), color=colour_of(index), linewidth=1.7 if first else 0.9, label=name, zorder=3 - index
            )
        axis.plot(*_curve(baseline[1]), color=_TEXT, linewidth=1.2, linestyle=(0, (4, 3)), label=baseline[0])
        axis.axhline(chance, color=_FAINT, linewidth=0.9, linestyle=":", label="chance")
        axis.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
        handles, labels = axis.get_legend_handles_labels()
        order = [*range(len(counts) - 1, -1, -1), *range(len(counts), len(labels))]
        box = {"loc": "center left", "bbox_to_anchor": (1.01, 0.5), "frameon": False, "labelcolor": _TEXT}
        axis.legend([handles[i] for i in order], [labels[i] for i in order], fontsize=8.5, **box)
    return done[0]


def cost_chart(points: Mapping[str, tuple[float, float]], baseline: float, label: str) -> str:
    """Pixel AP against a cost, on a logarithmic axis.

    Args:
        points: cost and AP of each bundle, best first.
        baseline: AP of the intensity.
        label: of the cost.
    """
    shown = {name: point for name, point in points.items() if point[0] > 0 and not math.isnan(point[1])}
    with _chart(f"cost {label}", (8.6, 3.9)) as (axis, done):
        axis.axhline(baseline, color=_TEXT, linewidth=1, linestyle=(0, (4, 3)))
        axis.set_xscale("log")
        for name, (x, y) in shown.items():
            axis.plot([x], [y], "o", color=colour_of(list(points).index(name)), markersize=6)
        axis.set(xlabel=label, ylabel="pixel AP")
        axis.set_ylim(0, 1.12 * max([y for _, y in shown.values()] + [baseline, 0.05]))
        if shown:
            costs = [x for x, _ in shown.values()]
            axis.set_xlim(min(costs) / 1.6, max(costs) * 2.6)
        from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.figure.draw_without_rendering()
        _label_points(axis, shown)
    return done[0]


def size_chart(tables: Mapping[str, Sequence[Mapping[str, Any]]], key: str, label: str) -> str:
    """A number by lesion size: one line a bundle.

    Args:
        tables: rows by size (``Scores.size_table``) of each bundle, best first.
        key: the number.
        label: of its axis.
    """
    rows = next(iter(tables.values()))
    used = [index for index, row in enumerate(rows) if row["lesions"]]
    names = [f"{size_name(rows[index])}\n{rows[index]['lesions']} lesions" for index in used]
    with _chart(f"sizes {key}", (8.6, 3.6)) as (axis, done):
        for place, (name, table) in reversed(list(enumerate(tables.items()))):
            first = place < len(COLOURS)
            values = [table[index][key] for index in used]
            style = {"color": colour_of(place), "linewidth": 1.7 if first else 0.9, "markersize": 5 if first else 3}
            axis.plot(range(len(used)), values, "o-", label=name, zorder=3 - place, **style)
        axis.set_xticks(range(len(used)), names)
        axis.set(ylabel=label, ylim=(0, None), xlim=(-0.3, len(used) - 0.7))
        handles, labels = axis.get_legend_handles_labels()
        box = {"loc": "center left", "bbox_to_anchor": (1.01, 0.5), "frameon": False, "labelcolor": _TEXT}
        axis.legend(handles[::-1], labels[::-1], fontsize=8.5, **box)
    return done[0]


def colour_of(rank: int) -> str:
    """The colour of a bundle by its place in the ranking, from 0 on."""
    return COLOURS[rank] if rank < len(COLOURS) else _FAINT


def size_name(row: Mapping[str, Any]) -> str:
    """The range of a row of sizes, in words."""
    low, high = row["from_mm"], row["to_mm"]
    if low == 0:
        return f"under {high:g} mm"
    return f"{low:g} to {high:g} mm" if math.isfinite(high) else f"{low:g} mm and more"


def _curve(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Recall and precision over the edges, without those where nothing is above; at most 400 points."""
    total = above(counts)
    both = total.sum(axis=0)
    keep = np.flatnonzero(np.append(np.diff(both) != 0, True) & (both > 0))
    recall, precision = total[1, keep] / max(total[1, 0], 1), total[1, keep] / both[keep]
    step = max(1, len(keep) // 400)
    return recall[::-1][::step], precision[::-1][::step]


def _label_points(axis: Any, points: Mapping[str, tuple[float, float]]) -> None:
    """Write a name beside each point where it covers no other name or point."""
    taken: list[tuple[float, float, float, float]] = []
    centres = {name: axis.transData.transform(point) for name, point in points.items()}
    scale = axis.figure.dpi / 72
    for x, y in centres.values():
        taken.append((x - 4 * scale, y - 4 * scale, x + 4 * scale, y + 4 * scale))
    for name, (x, y) in centres.items():
        width, height = 5.2 * scale * len(name), 10 * scale
        places = [(side, shift) for shift in (0, 9, -9, 18, -18, 27, -27) for side in (1, -1)]
        for side, shift in places:
            left = x + 7 * scale if side == 1 else x - 7 * scale - width
            box = (left, y + shift * scale - height / 2, left + width, y + shift * scale + height / 2)
            if not any(box[0] < o[2] and o[0] < box[2] and box[1] < o[3] and o[1] < box[3] for o in taken):
                break
        taken.append(box)
        style: dict[str, Any] = {"textcoords": "offset points", "va": "center", "ha": "left" if side == 1 else "right"}
        axis.annotate(name, points[name], (7 * side, shift), fontsize=8.5, color=_TEXT, **style)


@contextmanager
def _chart(name: str, size: tuple[float, float]) -> Iterator[tuple[Any, list[str]]]:
    """Axes to draw on; afterwards the list holds the SVG."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    done: list[str] = []
    options = {"svg.fonttype": "none", "svg.hashsalt": name, "font.size": 9, "axes.linewidth": 0.8}
    options |= dict.fromkeys(("xtick.color", "ytick.color"), _FAINT)
    options |= {"axes.edgecolor": _LINE, "axes.labelcolor": _FAINT, "text.color": _TEXT, "grid.color": _LINE}
    options |= {"xtick.labelcolor": _TEXT, "ytick.labelcolor": _TEXT, "grid.linewidth": 0.7, "axes.axisbelow": True}
    with mpl.rc_context(options):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        axis = figure.subplots()
        axis.grid(visible=True)
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(length=0, which="both")
        yield axis, done
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, variable)
    for attribute in ("width", "height"):  # the page decides
        svg = re.sub(rf'(<svg[^>]*?) {attribute}="[^"]*"', r"\1", svg, count=1)
    done.append(re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL))
