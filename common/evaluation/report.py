"""Figures and a self-contained HTML report of a run."""

from __future__ import annotations

import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.errors import InputError
from common.page import picture, plain, write_page

__all__ = ["EXPLANATIONS", "case_figure", "write_report"]

EXPLANATIONS: dict[str, tuple[str, str]] = {
    "cases": ("Cases", "Number of images or volumes that were scored."),
    "lesion_cases": ("Cases with lesion", "Cases whose lesion mask is not empty."),
    "healthy_cases": ("Healthy cases", "Cases whose lesion mask is empty."),
    "prevalence": ("Prevalence", "Share of scored pixels that are lesion. A random score has this pixel AP."),
    "lesion_outside_region": ("Lesion outside", "Share of lesion pixels outside the scored region: not counted."),
    "pixel_ap": ("Pixel AP", "Average precision over the pixels of all cases pooled. 1 is perfect; compare with the "
                 "prevalence and with the intensity baseline."),
    "oracle_dice": ("Oracle Dice", "Best Dice that any single threshold reaches on these very cases. An upper bound: "
                    "the labels chose the threshold."),
    "oracle_threshold": ("Oracle threshold", "The threshold that gives the oracle Dice."),
    "sensitivity_fpr1": ("Sensitivity at 1 %", "Share of lesion pixels found where 1 % of all other pixels are called "
                         "anomalous. The labels chose the threshold."),
    "sensitivity_fpr5": ("Sensitivity at 5 %", "The same at 5 %."),
    "aupro": ("AUPRO", "Mean share of each lesion that is found, whatever its size, over the false-positive rates from "
              "0 to 30 %. Lesions are 26-connected; only pixels inside the region count."),
    "threshold": ("Threshold", "The calibrated threshold, fixed before these cases were seen."),
    "slices": ("Slices", "Slices that were processed and scored."),
    "seconds": ("Seconds", "Time of the run, reading and writing included."),
    "network_evaluations": ("Network evaluations", "Calls of the network, times the slices in each."),
    "network_evaluations_per_slice": ("Evaluations a slice", "Steps of the sampler on each slice."),
    "bundle": ("Bundle", "The method."),
    "dice": ("Dice", "Overlap of detected and lesion pixels at the calibrated threshold, all cases pooled."),
    "healthy_fpr": ("Healthy false positives", "Share of the pixels of healthy cases called anomalous at the "
                    "calibrated threshold."),
    "case_ap_mean": ("AP per case", "Average precision of each case with lesion, averaged: large lesions do not "
                     "dominate."),
    "case_ap_cases": ("Cases in that mean", "Cases with lesion inside the region; AP is undefined for the others."),
    "image_auroc_top1": ("Image AUROC, top 1 %", "Probability that a case with lesion outranks a healthy one by the "
                         "mean of its highest 1 % of scores. 0.5 is chance."),
    "image_auroc_mean": ("Image AUROC, mean", "The same by the mean of all scores of the case."),
    "image_ap_top1": ("Image AP, top 1 %", "Average precision of the cases, ranked by the mean of their highest 1 % of "
                      "scores. Chance is the share of cases with lesion."),
    "image_ap_mean": ("Image AP, mean", "The same by the mean of all scores of the case."),
    "intensity_ap": ("Intensity baseline AP", "Pixel AP of the image itself as the score, bright or dark, whichever is "
                     "better. A method should beat it."),
    "intensity_oracle_dice": ("Intensity oracle Dice", "Oracle Dice of the same baseline."),
    "intensity_polarity": ("Baseline polarity", "1: bright pixels scored high; −1: dark ones."),
    "average_precision": ("AP", "Average precision of the case."),
    "score_mean": ("Mean score", "Mean of the anomaly map inside the region."),
    "score_top1": ("Top 1 % score", "Mean of the highest 1 % of the anomaly map inside the region."),
    "lesion_voxels": ("Lesion pixels", "Pixels of the lesion mask inside the region."),
}  # fmt: skip
"""Label and plain-language meaning of every number that :mod:`common.evaluation` computes."""


def case_figure(
    image: Any,
    pseudo_healthy: Any,
    anomaly_map: Any,
    truth: Any = None,
    mask: Any = None,
    title: str = "",
    vmax: float | None = None,
    dpi: int = 170,
) -> bytes:
    """One row of panels: input, pseudo-healthy, anomaly map over the input, outlines of prediction and truth.

    The first array axis points right and the second down, as in a scan oriented to (left, posterior, …).

    Args:
        image: input in [0, 1]: (x, y) or (x, y, z); a leading channel dimension is dropped, keeping its first entry.
        pseudo_healthy: reconstruction in [0, 1], of the same form.
        anomaly_map: raw map ≥ 0, of the same form.
        truth: lesion mask. None: no such panel.
        mask: predicted mask. None: no such panel.
        title: line above the panels.
        vmax: map value at the upper end of the colours; give one value for figures to be compared. None: the highest
            value shown.
        dpi: of the picture, which is 10 inches wide.

    Returns:
        the figure as PNG. Of a volume it shows the slice with the most lesion or, without truth, with the highest
        map sum, and the title says which.

    Raises:
        InputError: the arrays are not all of one 2-D or 3-D shape.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    given = {"image": image, "pseudo-healthy": pseudo_healthy, "anomaly map": anomaly_map, "truth": truth, "mask": mask}
    arrays = {name: _numpy(value) for name, value in given.items() if value is not None}
    score = arrays["anomaly map"]
    score = score[0] if score.ndim == 4 or (score.ndim == 3 and score.shape[0] == 1) else score
    for name, array in arrays.items():
        arrays[name] = array[0] if array.shape[1:] == score.shape else array
        if arrays[name].shape != score.shape or score.ndim not in (2, 3):
            raise InputError(name, f"shape {array.shape}, anomaly map {score.shape}", "give 2-D or 3-D arrays alike")
    if score.ndim == 3:
        by_truth = "truth" in arrays and bool(arrays["truth"].any())
        weight = (arrays["truth"] > 0 if by_truth else score).sum(axis=(0, 1))
        z = int(weight.argmax())
        which = "most lesion" if by_truth else "highest map sum"
        title = f"{title} · " * bool(title) + f"slice {z} of 0 … {score.shape[2] - 1} ({which})"
        arrays = {name: array[:, :, z] for name, array in arrays.items()}
    vmax = max(float(arrays["anomaly map"].max()) if vmax is None else vmax, 1e-6)

    panels = ["input", "pseudo-healthy", "anomaly map"]
    panels += [name for name in ("mask", "truth") if name in arrays]
    height = 1.9 * min(max(score.shape[1] / score.shape[0], 0.5), 2.0) + (0.6 if title else 0.35)
    figure = Figure(figsize=(1.9 * len(panels) + 0.6, height), dpi=dpi, facecolor="black", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(panels))
    text = {"color": "#dddddd", "fontsize": 8}
    captions = {"mask": "detected (outline)", "truth": "lesion mask (outline)"}
    for axis, name in zip(axes, panels, strict=True):
        shown = arrays["pseudo-healthy" if name == "pseudo-healthy" else "image"]
        axis.imshow(shown.T, cmap="gray", vmin=0, vmax=1, origin="upper")
        axis.set_title(captions.get(name, name), **text)
        axis.axis("off")
        if name == "anomaly map":
            over = arrays[name].T
            colours = Normalize(0, vmax)
            # The input shows through where the map is low: opacity follows the map, up to a third of the range.
            axis.imshow(over, cmap="inferno", norm=colours, alpha=np.clip(3 * over / vmax, 0, 1), origin="upper")
            bar = figure.colorbar(ScalarMappable(colours, "inferno"), ax=axis, fraction=0.05, pad=0.02)
            bar.ax.tick_params(colors="#dddddd", labelsize=6.5)
        elif name in captions and arrays[name].any():
            colour = "#e69f00" if name == "mask" else "#56b4e9"
            outlined = arrays[name].T / arrays[name].max() >= 0.5
            axis.contour(outlined, levels=[0.5], colors=[colour], linewidths=1.0)
    if title:
        figure.suptitle(title, **{**text, "fontsize": 9})
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor="black")
    return buffer.getvalue()


def _numpy(value: Any) -> np.ndarray:
    """Float array of a torch or numpy array."""
    return np.asarray(value.detach().cpu() if isinstance(value, torch.Tensor) else value, dtype=np.float32)


def write_report(
    path: str | Path,
    title: str,
    rows: Sequence[Mapping[str, Any]],
    summary: Mapping[str, Any],
    notes: Sequence[str] = (),
) -> None:
    """Write one self-contained HTML file: numbers with their meaning, a figure a case, and the limits of use.

    Args:
        path: the file; written atomically.
        title: heading of the page.
        rows: one mapping a case: ``case`` (its name); optionally ``figure`` (PNG bytes of :func:`case_figure`) and
            ``caption``; every further key is a column of the table of cases.
        summary: numbers over all cases. Those in :data:`EXPLANATIONS` are labelled and explained; others are shown
            under their own name. None and NaN are shown as a dash.
        notes: paragraphs on how the numbers came about: data, threshold, settings.
    """
    parts: list[str] = []
    if summary:
        cells = [[*EXPLANATIONS.get(key, (key, "")), value] for key, value in summary.items()]
        parts.append('<section><h2>Numbers</h2><div class="scroll"><table><caption>Over all cases</caption>')
        parts.append('<thead><tr><th scope="col">Number</th><th scope="col" class="number">Value</th>')
        parts.append('<th scope="col">Meaning</th></tr></thead><tbody>')
        parts += [
            f'<tr><th scope="row">{html.escape(label)}</th><td class="number">{plain(value)}</td>'
            f'<td class="meaning">{html.escape(meaning)}</td></tr>'
            for label, meaning, value in cells
        ]
        parts.append("</tbody></table></div></section>")
    if notes:
        parts.append("<section><h2>How these numbers came about</h2>")
        parts += [f"<p>{html.escape(note)}</p>" for note in notes]
        parts.append("</section>")
    if rows:
        parts += ["<section><h2>Cases</h2>", _case_table(rows), *(_case(row) for row in rows), "</section>"]
    write_page(path, title, parts)


def _case_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Table of the numbers of the cases; empty when there are none."""
    columns = list(dict.fromkeys(key for row in rows for key in row if key not in ("case", "figure", "caption")))
    if not columns:
        return ""
    head = "".join(
        f'<th scope="col" class="number" title="{html.escape(EXPLANATIONS.get(key, ("", ""))[1])}">'
        f"{html.escape(EXPLANATIONS.get(key, (key, ''))[0])}</th>"
        for key in columns
    )
    lines = "".join(
        f'<tr><th scope="row">{plain(row.get("case"))}</th>'
        + "".join(f'<td class="number">{plain(row.get(key))}</td>' for key in columns)
        + "</tr>\n"
        for row in rows
    )
    return (
        '<div class="scroll"><table><caption>One row a case; a dash where a number is undefined</caption>'
        f'<thead><tr><th scope="col">Case</th>{head}</tr></thead><tbody>{lines}</tbody></table></div>'
    )


def _case(row: Mapping[str, Any]) -> str:
    """Figure of one case, empty without one."""
    if "figure" not in row:
        return ""
    name = plain(row.get("case"))
    caption = html.escape(str(row.get("caption", "")))
    alt = f"Input, pseudo-healthy image and anomaly map of case {name}"
    return f"<figure><h3>{name}</h3>{picture(row['figure'], alt)}<figcaption>{caption}</figcaption></figure>"
