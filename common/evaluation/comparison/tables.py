"""Tables of a comparison in HTML: bundles, then the baselines that they are read against."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["COST", "IMAGES", "LESIONS", "RANKING", "RESTORATION", "caption", "metric_table", "number"]

Column = tuple[str, str, int, float, str]
"""Heading, key, digits, factor, unit."""

RANKING: tuple[Column, ...] = (
    ("pixel AP", "pixel_ap", 3, 1, ""),
    ("AP per case", "case_ap_mean", 3, 1, ""),
    ("best Dice", "oracle_dice", 3, 1, ""),
    ("Dice at threshold", "dice", 3, 1, ""),
    ("healthy FPR", "healthy_fpr", 2, 100, " %"),
    ("sens. at 1 %", "sensitivity_fpr1", 3, 1, ""),
    ("sens. at 5 %", "sensitivity_fpr5", 3, 1, ""),
    ("AUPRO", "aupro", 3, 1, ""),
)
LESIONS: tuple[Column, ...] = (
    ("sensitivity", "lesion_sensitivity", 3, 1, ""),
    ("precision", "lesion_precision", 3, 1, ""),
    ("F1", "lesion_f1", 3, 1, ""),
    ("false lesions a case", "false_lesions_per_case", 2, 1, ""),
    ("panoptic quality", "panoptic_quality", 3, 1, ""),
    ("HD95", "hd95_mm", 1, 1, " mm"),
    ("empty predictions", "hd95_empty", 0, 1, ""),
)
IMAGES: tuple[Column, ...] = (
    ("AUROC, top 1 %", "image_auroc_top1", 3, 1, ""),
    ("AUROC, mean", "image_auroc_mean", 3, 1, ""),
    ("AP, top 1 %", "image_ap_top1", 3, 1, ""),
    ("AP, mean", "image_ap_mean", 3, 1, ""),
)
RESTORATION: tuple[Column, ...] = (
    ("SSIM, healthy cases", "ssim_healthy", 3, 1, ""),
    ("change, healthy cases", "mae_healthy", 4, 1, ""),
    ("SSIM outside lesions", "ssim_outside_lesion", 3, 1, ""),
    ("change outside lesions", "mae_outside_lesion", 4, 1, ""),
    ("change inside lesions", "lesion_change", 4, 1, ""),
)
COST: tuple[Column, ...] = (
    ("evaluations a slice", "network_evaluations_per_slice", 1, 1, ""),
    ("GFLOP a slice", "gflop_per_slice", 1, 1, ""),
    ("seconds a slice", "seconds_per_slice", 3, 1, ""),
    ("peak memory", "peak_mib", 0, 1, " MiB"),
)


def metric_table(results: Mapping[str, Any], columns: Sequence[Column], source: str = "metrics") -> str:
    """Bundles, then baselines; a column that is empty everywhere is left out."""
    entries = [*results["bundles"], *results["baselines"]]
    used = [c for c in columns if any(number(entry.get(source, {}).get(c[1])) != "–" for entry in entries)]
    head = "".join(f'<th scope="col" class="number">{html.escape(column[0])}</th>' for column in used)
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


def number(value: float | None, digits: int = 3, factor: float = 1, unit: str = "") -> str:
    """A number times ``factor``, with its unit; a dash for one that is undefined."""
    return "–" if value is None or math.isnan(value) else f"{value * factor:.{digits}f}{unit}"
