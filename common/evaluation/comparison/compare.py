"""All bundles on the same cases, under one protocol."""

from __future__ import annotations

import csv
import io
import itertools
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from common.anomaly import Threshold
from common.bundles import find_bundles
from common.data import Case, dataset_name, discover, load_cases, subject_of
from common.errors import InputError, told
from common.evaluation.bundle import one_set_each, overrides_of, settings_for, the_process_as_before
from common.evaluation.comparison.bootstrap import draw_subjects, interval, metrics_of, paired, subjects_of
from common.evaluation.comparison.case import CaseRecord, fingerprint
from common.evaluation.comparison.folds import PROMISED, check_folds, fold_thresholds
from common.evaluation.comparison.leaks import Finding, check_data, check_folded, check_scores, check_threshold, is_ill
from common.evaluation.comparison.protocol import RULES, bundle_protocol, command_of
from common.evaluation.comparison.run import Job, Processes, run_cases, threshold_of
from common.evaluation.comparison.scores import Scores, baseline, cost_summary, score_cases
from common.files import check_writable, write_atomic, write_json
from common.version import __version__

__all__ = ["compare", "summary_of"]

_PAIRED = ("pixel_ap", "case_ap_mean")


def compare(
    dataset_dir: str,
    output_dir: str | Path,
    *,
    bundles_dir: str | Path | None = None,
    bundles: str | Sequence[str] = "all",
    split: str | None = None,
    settings: str | None = None,
    weights: str | None = None,
    max_cases: int | None = None,
    device: str | None = None,
    draws: int = 1000,
    seed: int = 0,
    folds: int = 0,
    score_only: bool = False,
) -> dict[str, Any]:
    """Run bundles on the same cases, and write ``results.json``, ``results.csv``, ``cases.csv`` and ``report.html``.

    Args:
        dataset_dir: cases with masks, or the label 0.
        output_dir: of the files; ``cases/<bundle>/`` in it keeps the maps, and what is there is not computed again.
        bundles_dir: the folder of the bundles, as of ``bundle_folder``.
        bundles: names, or ``all``.
        split: of the data set.
        settings: JSON of overrides (``settings_for``).
        weights: a folder of other weights (``overrides_of``).
        max_cases: use the first cases only.
        device: to run on.
        draws: of the bootstrap.
        seed: of the bootstrap.
        folds: of the subjects, for thresholds from the healthy cases of the test set itself: for each fold from the
            others, at the rate that the bundle's own threshold promises. 0: the bundles' own thresholds.
        score_only: compute the numbers from the maps that are there.

    Returns:
        what ``results.json`` holds; under ``torchrun`` only on the first process, nothing on the others.

    Raises:
        InputError: unusable data, settings or bundles, or a folder that cannot be written, before anything runs; no
            bundle that has all cases.
    """
    found = find_bundles(bundles_dir, bundles)
    one_set_each(weights, found)
    overrides = settings_for(found, settings)
    cases = load_cases(dataset_dir, split, channels=None, truth="mask", twins=False)[:max_cases]
    output = Path(output_dir)
    jobs = [
        Job(
            bundle, output / "cases" / bundle.name, dataset_dir, split, overrides_of(bundle, overrides, weights), device
        )
        for bundle in found
    ]
    check_folds(folds, cases, {case["case"]: is_ill(case) for case in cases} if folds else {})
    check_writable(output)
    data = {case["case"]: fingerprint(case) for case in cases}
    words = {"split": split, "max_cases": max_cases, "weights": weights, "settings": settings}
    words |= {
        key: value
        for key, value, usual in (("draws", draws, 1000), ("seed", seed, 0), ("folds", folds, 0))
        if value != usual
    }
    command = command_of("compare", words)
    with Processes() as processes:
        for number, job in enumerate(jobs if not score_only else (), 1):
            run_cases(job, cases, data, processes, f"{job.bundle.name} ({number}/{len(jobs)})")
        processes.wait()
        if processes.rank:
            return {}
        return _report(jobs, cases, data, output, command, draws, seed, folds)


def summary_of(results: Mapping[str, Any], output_dir: str) -> str:
    """The ranking, failures and leaks as text for the terminal."""
    rows = [*results["bundles"], *results["baselines"]]
    names = [str(row.get("bundle", row.get("name"))) for row in rows]
    width = max(map(len, names), default=0)
    lines: list[str] = []
    for name, row in zip(names, rows, strict=True):
        low, high = row["intervals"].get("pixel_ap", (None, None))
        bounds = "" if low is None else f" [{low:.3f}, {high:.3f}]"
        lines.append(f"{name:<{width}}  pixel AP {row['metrics']['pixel_ap']:.3f}{bounds}")
    lines += [f"failed: {failure['bundle']}: {failure['error']}" for failure in results["failures"]]
    lines += [
        f"leak: {f['bundle'] or 'data'}: {f['check']}: {f['detail']}" for f in results["leaks"] if f["status"] == "leak"
    ]
    return "\n".join([*lines, f"report: {Path(output_dir) / 'report.html'}"])


def _report(
    jobs: Sequence[Job],
    cases: Sequence[Case],
    data: Mapping[str, str],
    output: Path,
    command: str,
    draws: int,
    seed: int,
    folds: int,
) -> dict[str, Any]:
    from common.evaluation.comparison.page import write_comparison

    entries: list[dict[str, Any]] = []
    scored: dict[str, Scores] = {}
    failures: list[dict[str, str]] = []
    findings = check_data(discover(jobs[0].dataset_dir), cases)
    for job in jobs:
        with the_process_as_before():
            try:
                scores, entry, more = _score(job, cases, data, folds)
            except Exception as error:  # as in run_cases
                reasons = job.failures() or [told(error)]
                failures.append({"bundle": job.bundle.name, "error": "; ".join(dict.fromkeys(reasons))})
                continue
        scored[job.bundle.name] = scores
        entries.append(entry)
        findings += more
    results: dict[str, Any] = {
        "version": __version__,
        "command": command,
        "data": _data(jobs[0], cases, data),
        "rules": RULES,
        "versions": _versions(),
        "bootstrap": {"unit": "subject", "draws": draws, "level": 0.95, "seed": seed, "interval": "percentile"},
        "bundles": entries,
        "baselines": [],
        "pairs": [],
        "leaks": [finding.to_dict() for finding in findings],
        "failures": failures,
    }
    if scored:
        first = next(job for job in jobs if job.bundle.name in scored)
        intensity = baseline(lambda: first.records(cases))
        _add_intervals(results, scored, intensity, draws, seed)
    write_json(output / "results.json", results)
    write_atomic(output / "results.csv", _csv(_result_rows(results)).encode())
    rows = [{"bundle": name, **row} for name, scores in scored.items() for row in scores.rows]
    write_atomic(output / "cases.csv", _csv(rows).encode())
    if not scored:
        why = "; ".join(f"{failure['bundle']}: {failure['error']}" for failure in failures)
        raise InputError(output, f"no bundle has all {len(cases)} cases ({why})", "see the messages above")
    write_comparison(output / "report.html", results, scored, intensity, {job.bundle.name: job for job in jobs})
    return results


def _score(
    job: Job, cases: Sequence[Case], data: Mapping[str, str], folds: int
) -> tuple[Scores, dict[str, Any], list[Finding]]:
    run = job.run()
    missing = sum(not CaseRecord.done(job.path(case), run.key, data[case["case"]]) for case in cases)
    if missing:
        raise InputError(job.bundle.name, f"{missing} of {len(cases)} cases are missing", "compare again")
    value, origin = threshold_of(run)
    settings, of_subject = run.get("settings", {}), None
    if folds:
        promised = origin.quantile if isinstance(origin, Threshold) else PROMISED
        of_subject, origin = fold_thresholds(job.records(cases), promised, folds, settings)
        value = origin.value
    scores = score_cases(job.bundle.name, job.records(cases), value, int(run.get("min_size", 8)), of_subject=of_subject)
    entry = {
        "bundle": job.bundle.name,
        "metrics": scores.pool.summary(),
        "cost": cost_summary(scores.costs),
        "sizes": scores.size_table(),
        "protocol": bundle_protocol(run, job, next(job.records(cases)), origin),
    }
    if folds:
        leaks = [check_folded(job.bundle.name, folds)]
    else:
        leaks = check_threshold(job.bundle.name, origin, cases, settings, run.weights_sha256)
    return scores, entry, [*leaks, *check_scores(scores)]


def _add_intervals(
    results: dict[str, Any], scored: Mapping[str, Scores], intensity: Scores, draws: int, seed: int
) -> None:
    """Intervals of every metric, and of the differences between bundles, all on the same draws of subjects."""
    drawn = draw_subjects(len(subjects_of(intensity)), draws, seed)
    samples = {}
    for entry in results["bundles"]:
        name = entry["bundle"]
        samples[name] = metrics_of(scored[name], drawn)
        point = {key: float(value[0]) for key, value in metrics_of(scored[name]).items()}
        entry["metrics"] = {**point, **entry["metrics"]}
        entry["metrics"]["hd95_empty"] = sum(row.get("hd95_empty", 0) for row in scored[name].rows)
        entry["intervals"] = {key: interval(values) for key, values in samples[name].items()}
    results["bundles"].sort(key=lambda entry: -np.nan_to_num(entry["metrics"]["pixel_ap"]))
    point = {key: float(value[0]) for key, value in metrics_of(intensity).items()}
    intervals = {key: interval(values) for key, values in metrics_of(intensity, drawn).items()}
    # A random score finds as large a share of the lesions as of everything else.
    chance = {"pixel_ap": point["prevalence"], "sensitivity_fpr1": 0.01, "sensitivity_fpr5": 0.05, "aupro": 0.15}
    chance |= {"image_auroc_top1": 0.5, "image_auroc_mean": 0.5}
    cases = results["data"]
    chance |= {f"image_ap_{reducer}": cases["lesion_cases"] / cases["cases"] for reducer in ("top1", "mean")}
    results["baselines"] = [
        {"name": intensity.name, "metrics": point, "intervals": intervals, "sizes": intensity.size_table()},
        {"name": "chance", "metrics": chance, "intervals": {}},
    ]
    metrics = {entry["bundle"]: entry["metrics"] for entry in results["bundles"]}
    for metric in _PAIRED:
        for first, second in itertools.combinations(metrics, 2):
            difference = metrics[first][metric] - metrics[second][metric]
            pair = {"metric": metric, "first": first, "second": second, "difference": difference}
            results["pairs"].append({**pair, **paired(samples[first][metric], samples[second][metric])})


def _data(job: Job, cases: Sequence[Case], data: Mapping[str, str]) -> dict[str, Any]:
    ill = sum(map(is_ill, cases))
    return {
        "name": dataset_name(job.dataset_dir),
        "split": job.split,
        "cases": len(cases),
        "lesion_cases": ill,
        "healthy_cases": len(cases) - ill,
        "subjects": len({subject_of(case) for case in cases}),
        "fingerprints": dict(data),
    }


def _versions() -> dict[str, str]:
    found = {"anomaly-zoo": __version__, "python": platform.python_version()}
    for package in ("torch", "monai", "numpy", "scipy", "scikit-image", "pytorch-ignite"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # installed in another way
            found[package] = "unknown"
    return found


def _result_rows(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for entry in [*results["bundles"], *results["baselines"]]:
        row: dict[str, Any] = {"name": entry.get("bundle", entry.get("name"))}
        for key, value in entry["metrics"].items():
            row[key] = value
            if key in entry["intervals"]:
                row[f"{key}_low"], row[f"{key}_high"] = entry["intervals"][key]
        rows.append({**row, **entry.get("cost", {})})
    return rows


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    buffer = io.StringIO()
    columns = list(dict.fromkeys(key for row in rows for key in row))
    writer = csv.DictWriter(buffer, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: "" if value != value else value for key, value in row.items()} for row in rows)
    return buffer.getvalue()
