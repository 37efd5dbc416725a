"""Tables of a comparison in HTML: bundles, then the baselines that they are read against."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

from common.evaluation.columns import Column, number

__all__ = ["caption", "metric_table"]


def metric_table(results: Mapping[str, Any], columns: Sequence[Column], source: str = "metrics") -> str:
    """Bundles, then baselines; a column that is empty everywhere is left out."""
    entries = [*results["bundles"], *results["baselines"]]
    used = [c for c in columns if any(number(entry.get(source, {}).get(c.key)) != "–" for entry in entries)]
    head = "".join(f'<th scope="col" class="number">{html.escape(column.head)}</th>' for column in used)
    lines = []
    for entry in entries:
        cells = ""
        for _, key, digits, factor, unit in used:
            cell = number(entry.get(source, {}).get(key), digits, factor, unit)
            low, high = entry.get("intervals", {}).get(key, (math.nan, math.nan))
            if cell != "–" and not math.isnan(low):
                bounds = " – ".join(number(each, digits, factor) for each in (low, high))
                cell += f'<span class="range">{bounds}</span>'
            cells += f'<td class="number">{cell}</td>'
        if "bundle" not in entry and cells.count(">–<") == len(used):
            continue  # a baseline without any of these numbers
        name, kind = entry.get("bundle", entry.get("name")), "" if "bundle" in entry else ' class="baseline"'
        lines.append(f'<tr{kind}><th scope="row">{html.escape(name)}</th>{cells}</tr>')
    return (
        f'<div class="scroll"><table>{caption(results)}<thead><tr><th scope="col">Bundle</th>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def caption(results: Mapping[str, Any]) -> str:
    """What every table is read against."""
    intensity, chance = (each["metrics"]["pixel_ap"] for each in results["baselines"])
    return f"<caption>Prevalence {chance:.4f}; intensity alone: pixel AP {intensity:.3f}</caption>"
