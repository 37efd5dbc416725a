"""A robustness card to read: Markdown and HTML."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.evaluation.comparison.charts import interval_chart
from common.files import write_atomic
from common.page import write_page

__all__ = ["write_card"]

_HEAD = ("", "strength", "pixel AP", "change", "95 % interval of the change", "healthy FPR", "intensity AP")
_STYLE = """figure.chart svg { display: block; width: 100%; height: auto; max-width: 62rem }
figure.chart text { font-family: inherit !important } pre { overflow-x: auto; font-size: .8rem; background: var(--soft);
padding: .75rem } thead th { vertical-align: bottom }"""


def write_card(folder: Path, card: Mapping[str, Any]) -> None:
    """Write ``robustness.md`` and ``robustness.html``.

    Args:
        folder: where.
        card: as ``robustness`` makes it.
    """
    title = f"Robustness of {card['bundle']} on {card['data']}"
    notes, tables = _notes(card), _tables(card)
    lines = [f"# {title}", "", *notes]
    for heading, note, rows in tables:
        lines += ["", f"## {heading}", "", *([note, ""] if note else []), *_markdown(rows)]
    write_atomic(folder / "robustness.md", ("\n".join(lines) + "\n").encode())

    clean = card["clean"]["pixel_ap"]
    bars = [("as they are", clean, card["clean"]["interval"])]
    bars += [(f"{row['kind']} {row['strength']:g}", row["pixel_ap"], row["interval"]) for row in card["perturbations"]]
    baselines = {"as they are": clean, "intensity": card["clean"]["intensity_ap"]}
    chart = interval_chart(bars, baselines, "pixel AP, 95 % interval", one_colour=True)
    caption = "Line: as they are; dashed: intensity alone."
    parts = [f'<figure class="chart">{chart}<figcaption>{caption}</figcaption></figure>']
    for heading, note, rows in tables:
        parts += [f"<section><h2>{html.escape(heading)}</h2><p>{html.escape(note)}</p>{_html(rows)}</section>"]
    protocol = html.escape(json.dumps(card["protocol"], indent=1, ensure_ascii=False, default=str))
    parts.append(f"<section><h2>Protocol</h2><pre>{protocol}</pre></section>")
    intro = "".join(f"<p>{html.escape(note)}</p>" for note in notes)
    write_page(folder / "robustness.html", title, parts, intro=intro, style=_STYLE)


def _notes(card: Mapping[str, Any]) -> list[str]:
    clean = card["clean"]
    low, high = clean["interval"]
    return [
        f"{card['cases']} cases of {card['subjects']} subjects. As they are: pixel AP {clean['pixel_ap']:.3f} "
        f"[{low:.3f}, {high:.3f}], prevalence {clean['prevalence']:.4f}, intensity alone {clean['intensity_ap']:.3f}. "
        "Changes are of the pixel AP, on the same draws of subjects; the threshold of the healthy FPR stays. "
        "Everything is applied to the preprocessed image with values in [0, 1]."
    ]


def _tables(card: Mapping[str, Any]) -> list[tuple[str, str, list[Sequence[str]]]]:
    rows: list[Sequence[str]] = [_HEAD]
    rows += [(row["kind"], f"{row['strength']:g} ({row['unit']})", *_cells(row)) for row in card["perturbations"]]
    tables = [("Worse scans", "", rows)]
    attack = card["attack"]
    if attack:
        rows = [_HEAD]
        for row in attack["rows"]:
            rows += [(name, f"ε {row['epsilon']:g}", *_cells(row[name])) for name in ("attack", "noise")]
        note = (
            f"{attack['cases']} cases, pixel AP as they are {attack['clean']['pixel_ap']:.3f}. Attack: "
            f"{attack['method']}; no pixel changes by more than ε of the range, and the attacker knows the noise of "
            "the method. Noise: random signs with the same Euclidean norm."
        )
        tables.append(("Attack", note, rows))
    return tables


def _cells(row: Mapping[str, Any]) -> list[str]:
    low, high = row["change_interval"]
    rate = row["healthy_fpr"]
    return [
        f"{row['pixel_ap']:.3f}",
        f"{row['change']:+.3f}",
        f"{low:+.3f} to {high:+.3f}",
        "–" if math.isnan(rate) else f"{rate:.2%}",
        f"{row['intensity_ap']:.3f}",
    ]


def _markdown(rows: Sequence[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return [lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]


def _html(rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th{' class=number' * (i > 1)}>{html.escape(cell)}</th>" for i, cell in enumerate(rows[0]))
    body = "".join(
        "<tr>"
        + "".join(f"<td{' class=number' * (i > 1)}>{html.escape(cell)}</td>" for i, cell in enumerate(row))
        + "</tr>"
        for row in rows[1:]
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
