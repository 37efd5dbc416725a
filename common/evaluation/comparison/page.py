"""The report of a comparison: one page to look at, without a network."""

from __future__ import annotations

import base64
import html
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.anomaly import clean_mask
from common.evaluation.columns import COST, IMAGES, LESIONS, RANKING, RESTORATION, number
from common.evaluation.comparison import charts
from common.evaluation.comparison.case import CaseRecord
from common.evaluation.comparison.run import Job
from common.evaluation.comparison.scores import Scores
from common.evaluation.comparison.tables import caption, metric_table
from common.evaluation.report import case_figure
from common.page import write_page

__all__ = ["write_comparison"]

_STYLE = """
body { max-width: 76rem } figure.chart svg { display: block; width: 100%; height: auto; max-width: 62rem }
figure.chart text { font-family: inherit !important } .range { color: var(--faint); font-size: .8em; display: block }
tr.baseline > * { color: var(--faint); font-style: italic } .leak { color: #d4483b; font-weight: 600 }
.warning, .unknown { color: #c07a00; font-weight: 500 } pre { overflow-x: auto;
font-size: .8rem; background: var(--soft); padding: .75rem; border-radius: 4px }
details { margin: .4rem 0 } summary { cursor: pointer }
nav a { margin-right: 1rem; color: inherit } .cases { max-width: 62rem } .cases figure { margin: .75rem 0 }
thead th { white-space: normal; vertical-align: bottom }
"""


def write_comparison(
    path: Path, results: Mapping[str, Any], scored: Mapping[str, Scores], intensity: Scores, jobs: Mapping[str, Job]
) -> None:
    """Write ``report.html``.

    Args:
        path: of it.
        results: as in ``results.json``, bundles best first.
        scored: what the numbers come from, by bundle.
        intensity: the baseline.
        jobs: where the cases of each bundle are.
    """
    data, entries = results["data"], results["bundles"]
    prevalence = intensity.pool.scores.prevalence
    split = f", split {html.escape(data['split'])}" if data["split"] else ""
    intro = (
        f"{data['cases']} cases of {data['subjects']} subjects, {data['lesion_cases']} with a lesion{split}; "
        f"{prevalence:.3%} of the pixels are lesion, which is the pixel AP of a random score. Ranges are 95 % "
        f"intervals, from drawing the subjects {results['bootstrap']['draws']} times."
    )
    parts = _failures(results["failures"])
    parts += _ranking(results, scored, intensity, prevalence)
    note = (
        "At the calibrated threshold. A prediction and a lesion are a pair if their IoU is above 0.1 (panoptic: 0.5)."
    )
    parts += _section("Lesions", note, metric_table(results, LESIONS))
    parts += _sizes(results, scored, intensity)
    note = "Cases ranked by the mean of the highest 1 % of their scores, and by the mean of all."
    parts += _section("Whole images", note, metric_table(results, IMAGES))
    note = "The pseudo-healthy image against the input: healthy tissue should stay, lesions should go."
    parts += _section("Restoration", note, metric_table(results, RESTORATION))
    hardware = html.escape(", ".join(sorted({entry["cost"]["hardware"] for entry in entries})))
    parts += _section("Cost", f"On {hardware}; one case at a time.", metric_table(results, COST, "cost"))
    parts += _pairs(results)
    note = (
        "Of each bundle the best, median and worst case by average precision, and the healthy case with highest scores."
    )
    parts.append(f"<section><h2>Cases</h2><p>{note}</p>")
    for entry in entries:
        name = entry["bundle"]
        parts.append(f'<details open class="cases"><summary><b>{html.escape(name)}</b></summary>')
        parts += [*_cases(scored[name], jobs[name], entry), "</details>"]
    parts += ["</section>", *_findings(results["leaks"]), *_protocol(results)]
    write_page(path, f"Comparison on {data['name']}", parts, intro=f"<p>{intro}</p>", style=_STYLE)


def _ranking(
    results: Mapping[str, Any], scored: Mapping[str, Scores], intensity: Scores, prevalence: float
) -> list[str]:
    entries = results["bundles"]
    names = [entry["bundle"] for entry in entries]
    baseline = results["baselines"][0]["metrics"]["pixel_ap"]
    note = (
        "Best pixel AP first. For best Dice and sensitivities the labels choose the threshold; Dice at threshold and "
        "healthy FPR are at the one from healthy scans."
    )
    if math.isnan(baseline):  # no lesion at all: nothing to draw
        return _section("Ranking", note, metric_table(results, RANKING))
    rows = [(e["bundle"], e["metrics"]["pixel_ap"], e["intervals"]["pixel_ap"]) for e in entries]
    lines = {"intensity": baseline, "chance": prevalence}
    ranking = _figure(
        charts.interval_chart(rows, lines, "pixel AP, 95 % interval"),
        "Pixel AP. The line is that of the intensity alone, the dashed one chance.",
    )
    curves = {name: scored[name].pool.scores.counts for name in names}
    against = _figure(
        charts.precision_recall_chart(curves, (intensity.name, intensity.pool.scores.counts), prevalence),
        "All pixels of all cases pooled.",
    )
    points = {
        label: {e["bundle"]: (e["cost"][key], e["metrics"]["pixel_ap"]) for e in entries}
        for label, key in (
            ("network evaluations a slice", "network_evaluations_per_slice"),
            ("GFLOP a slice", "gflop_per_slice"),
        )
    }
    costs = [
        _figure(charts.cost_chart(each, baseline, label), "Dashed: the intensity alone.")
        for label, each in points.items()
    ]
    return [
        *_section("Ranking", note, ranking + metric_table(results, RANKING)),
        *_section("Precision and recall", "", against),
        *_section("Quality against cost", "", "".join(costs)),
    ]


def _sizes(results: Mapping[str, Any], scored: Mapping[str, Scores], intensity: Scores) -> list[str]:
    names = [entry["bundle"] for entry in results["bundles"]]
    tables = {name: scored[name].size_table() for name in names}
    shown = [index for index, row in enumerate(intensity.size_table()) if row["lesions"]]
    if not shown:
        return []
    columns = [intensity.size_table()[index] for index in shown]
    groups = "".join(
        f'<th scope="colgroup" colspan="2" class="number">{charts.size_name(row)} ({row["lesions"]})</th>'
        for row in columns
    )
    pair = '<th scope="col" class="number">AP</th><th scope="col" class="number">found</th>'
    head = f"<tr><th></th>{groups}</tr><tr><th></th>{pair * len(columns)}</tr>"
    lines = []
    for name, table in {**tables, intensity.name: intensity.size_table()}.items():
        cells = "".join(
            f'<td class="number">{number(table[i]["pixel_ap"], 3)}</td><td class="number">'
            f"{number(table[i]['found'], 0, 100, ' %')}</td>"
            for i in shown
        )
        kind = "" if name in tables else ' class="baseline"'
        lines.append(f'<tr{kind}><th scope="row">{html.escape(name)}</th>{cells}</tr>')
    cells = "".join(
        f'<td class="number">{number(intensity.size_table()[i]["prevalence"], 4)}</td><td class="number">–</td>'
        for i in shown
    )
    lines.append(f'<tr class="baseline"><th scope="row">chance</th>{cells}</tr>')
    body = f"<thead>{head}</thead><tbody>{''.join(lines)}</tbody>"
    table_html = f'<div class="scroll"><table>{caption(results)}{body}</table></div>'
    chart = charts.size_chart(tables, "pixel_ap", "pixel AP")
    note = (
        "AP of the pixels of lesions of one size against all pixels without lesion; small lesions have few pixels, so "
        "their AP is low by chance. Found: at least a tenth of the lesion lies above the threshold."
    )
    return _section("By size of the lesion", note, _figure(chart, "") + table_html)


def _pairs(results: Mapping[str, Any]) -> list[str]:
    """The best bundle against every other."""
    pairs = [pair for pair in results["pairs"] if pair["first"] == results["bundles"][0]["bundle"]]
    if not pairs:
        return []
    lines = "".join(
        f'<tr><th scope="row">{html.escape(pair["first"])} − {html.escape(pair["second"])}</th>'
        f"<td>{'pixel AP' if pair['metric'] == 'pixel_ap' else 'AP per case'}</td>"
        f'<td class="number">{pair["difference"]:+.3f}<span class="range">{pair["interval"][0]:+.3f} – '
        f'{pair["interval"][1]:+.3f}</span></td><td class="number">{pair["p"]:.3f}</td></tr>'
        for pair in pairs
    )
    table = (
        f'<div class="scroll"><table>{caption(results)}<thead><tr><th>Bundles</th><th>Metric</th>'
        '<th class="number">Difference</th>'
        f'<th class="number">p</th></tr></thead><tbody>{lines}</tbody></table></div>'
    )
    note = (
        "Paired bootstrap: both bundles on the same draws of subjects. p is two-sided and not corrected for the number "
        "of comparisons; all pairs are in results.json."
    )
    return _section("Differences to the best", note, table)


def _cases(scores: Scores, job: Job, entry: Mapping[str, Any]) -> list[str]:
    ill = sorted((row for row in scores.rows if row["lesion_voxels"]), key=lambda row: -row["average_precision"])
    healthy = [row for row in scores.rows if row["lesion_voxels"] + row["lesion_voxels_outside"] == 0]
    chosen = [("best", ill[0]), ("median", ill[len(ill) // 2]), ("worst", ill[-1])] if ill else []
    if healthy:
        chosen.append(("healthy, highest scores", max(healthy, key=lambda row: row["score_top1"])))
    vmax = scores.pool.scores.quantile(0.999, of="all")
    min_size = entry["protocol"]["post_processing"]["min_size"] or 1
    figures = []
    for title, row in chosen:
        record = CaseRecord.load(job.folder / f"{row['case']}.npz")
        mask = clean_mask(record.anomaly_map, row["threshold"], min_size) if "threshold" in row else None
        given = (record.image[0], record.pseudo_healthy[0], record.anomaly_map, record.truth, mask)
        flat = record.truth.shape[-1] == 1
        image, restored, values, truth, found = (each[..., 0] if flat and each is not None else each for each in given)
        picture = case_figure(image, restored, values, truth, found, vmax=vmax, dpi=110)
        ap = "" if math.isnan(row["average_precision"]) else f", AP {row['average_precision']:.3f}"
        words = html.escape(f"{title}: {row['case']}{ap}")
        encoded = base64.b64encode(picture).decode()
        figures.append(
            f'<figure><img loading="lazy" alt="{words}" src="data:image/png;base64,{encoded}">'
            f"<figcaption>{words}</figcaption></figure>"
        )
    return figures


def _failures(failures: Sequence[Mapping[str, str]]) -> list[str]:
    if not failures:
        return []
    items = "".join(f"<li><b>{html.escape(f['bundle'])}</b>: {html.escape(f['error'])}</li>" for f in failures)
    return [f'<section><h2 class="leak">Failed</h2><p>Not in the tables below:</p><ul>{items}</ul></section>']


def _findings(findings: Sequence[Mapping[str, str]]) -> list[str]:
    order = {"leak": 0, "warning": 1, "unknown": 2, "ok": 3}
    lines = "".join(
        f'<tr><td class="{f["status"]}">{f["status"]}</td><td>{html.escape(f["bundle"] or "data")}</td>'
        f'<td>{html.escape(f["check"])}</td><td class="meaning">{html.escape(f["detail"])}</td></tr>'
        for f in sorted(findings, key=lambda f: order[f["status"]])
    )
    table = (
        '<div class="scroll"><table><thead><tr><th></th><th>Of</th><th>Check</th><th>Found</th></tr></thead>'
        f"<tbody>{lines}</tbody></table></div>"
    )
    return _section(
        "Is it fair?", "What a program can see of leaks between calibration, choice of settings and test.", table
    )


def _protocol(results: Mapping[str, Any]) -> list[str]:
    rules = "".join(
        f'<tr><th scope="row">{html.escape(key.replace("_", " "))}</th><td>{html.escape(text)}</td></tr>'
        for key, text in results["rules"].items()
    )
    blocks = "".join(
        f"<details><summary>{html.escape(entry['bundle'])}</summary><pre>"
        f"{html.escape(json.dumps(entry['protocol'], indent=1, ensure_ascii=False, default=str))}</pre></details>"
        for entry in results["bundles"]
    )
    versions = ", ".join(f"{html.escape(name)} {html.escape(number)}" for name, number in results["versions"].items())
    table = f'<div class="scroll"><table><tbody>{rules}</tbody></table></div>'
    return _section("Protocol", f"Versions: {versions}.", table + blocks)


def _section(title: str, note: str, content: str) -> list[str]:
    note = f"<p>{html.escape(note)}</p>" if note else ""
    return [f"<section><h2>{html.escape(title)}</h2>{note}{content}</section>"]


def _figure(svg: str, words: str) -> str:
    text = f"<figcaption>{html.escape(words)}</figcaption>" if words else ""
    return f'<figure class="chart">{svg}{text}</figure>'
