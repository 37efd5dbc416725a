"""The numbers that tables show, and how one is written."""

from __future__ import annotations

import math
from typing import NamedTuple

__all__ = ["COST", "IMAGES", "LESIONS", "RANKING", "RESTORATION", "Column", "number"]


class Column(NamedTuple):
    """A column of a table.

    Args:
        head: its heading.
        key: of the metric.
        digits: behind the point.
        factor: before it is written.
        unit: behind the number.
    """

    head: str
    key: str
    digits: int = 3
    factor: float = 1
    unit: str = ""


RANKING = (
    Column("pixel AP", "pixel_ap"),
    Column("AP per case", "case_ap_mean"),
    Column("best Dice", "oracle_dice"),
    Column("Dice at threshold", "dice"),
    Column("healthy FPR", "healthy_fpr", 2, 100, " %"),
    Column("sens. at 1 %", "sensitivity_fpr1"),
    Column("sens. at 5 %", "sensitivity_fpr5"),
    Column("AUPRO", "aupro"),
)
LESIONS = (
    Column("sensitivity", "lesion_sensitivity"),
    Column("precision", "lesion_precision"),
    Column("F1", "lesion_f1"),
    Column("false lesions a case", "false_lesions_per_case", 2),
    Column("panoptic quality", "panoptic_quality"),
    Column("HD95", "hd95_mm", 1, 1, " mm"),
    Column("empty predictions", "hd95_empty", 0),
)
IMAGES = (
    Column("AUROC, top 1 %", "image_auroc_top1"),
    Column("AUROC, mean", "image_auroc_mean"),
    Column("AP, top 1 %", "image_ap_top1"),
    Column("AP, mean", "image_ap_mean"),
)
RESTORATION = (
    Column("SSIM, healthy cases", "ssim_healthy"),
    Column("change, healthy cases", "mae_healthy", 4),
    Column("SSIM outside lesions", "ssim_outside_lesion"),
    Column("change outside lesions", "mae_outside_lesion", 4),
    Column("change inside lesions", "lesion_change", 4),
    Column("RQI, SSIM", "rqi_ssim"),
    Column("AHI, pixels", "ahi_pixel"),
    Column("CACI, SSIM", "caci_ssim"),
)
COST = (
    Column("evaluations a slice", "network_evaluations_per_slice", 1),
    Column("GFLOP a slice", "gflop_per_slice", 1),
    Column("seconds a slice", "seconds_per_slice"),
    Column("peak memory", "peak_mib", 0, 1, " MiB"),
)


def number(value: float | None, digits: int = 3, factor: float = 1, unit: str = "", empty: str = "–") -> str:
    """A number times ``factor``, with its unit; ``empty`` for one that is undefined."""
    return empty if value is None or math.isnan(value) else f"{value * factor:.{digits}f}{unit}"
