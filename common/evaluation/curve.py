"""What a bundle reaches with how many network evaluations, so that nobody pays for steps that buy nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from common.bundles import find_bundles
from common.data import Case, dataset_name, load_cases
from common.errors import InputError, told
from common.evaluation.bench import Bench
from common.evaluation.bundle import (
    BundleRun,
    files_beside,
    names_file,
    one_set_each,
    overrides_of,
    read_settings,
    refuse_unknown,
    settings_for,
    the_process_as_before,
)
from common.evaluation.comparison.bootstrap import draw_subjects, interval, paired, pixel_ap_of, subjects_of
from common.evaluation.comparison.case import fingerprint
from common.evaluation.comparison.protocol import command_of
from common.evaluation.comparison.scores import cost_summary
from common.evaluation.curve_tables import curve_summary, curve_table
from common.files import check_writable, write_atomic, write_json
from common.version import __version__

__all__ = ["CURVE", "MARGIN", "curves", "default_points"]

CURVE = "curve.json"
"""File of a bundle's curve."""

MARGIN = 0.01
"""Pixel AP that a faster setting may lose and still count as equal."""

_STEPS = (100, 30, 10, 3)
_COUNTS = (1, 2, 4, 8, 16)

Overrides = Mapping[str, Any]


def curves(
    bundles: str | Sequence[str],
    dataset_dir: str,
    output_dir: str | Path,
    *,
    bundles_dir: str | Path | None = None,
    split: str | None = None,
    settings: str | None = None,
    weights: str | None = None,
    points: str | None = None,
    max_cases: int | None = 40,
    cases_at_once: int = 16,
    draws: int = 1000,
    device: str | None = None,
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Measure bundles under several settings each; write ``BUNDLE/curve.json``, ``curve.md`` and a ``summary.md``.

    A point that is there already, of the same cases, settings and weights, is not measured again.

    Args:
        bundles: names, or ``all``.
        dataset_dir: cases with masks, or the label 0.
        output_dir: gets a folder a bundle.
        bundles_dir: the folder of the bundles, as of ``bundle_folder``.
        split: of the data set.
        settings: JSON of overrides of all points (``settings_for``).
        weights: in place of the bundles' own, a file or a folder (``overrides_of``).
        points: JSON of the points, ``{"thor": {"20 steps": {"num_inference_steps": 20}}}``; a bundle that is not in it
            has its ``default_points``.
        max_cases: use the first cases only; they are all held in memory.
        cases_at_once: cases in one batch, where all have one shape.
        draws: of the bootstrap over subjects.
        device: to run on.

    Returns:
        the curves, and why others failed, by the name of the bundle.

    Raises:
        InputError: unusable data, settings or points, one file of weights for several bundles, or a folder that cannot
            be written.
    """
    found = find_bundles(bundles_dir, bundles)
    one_set_each(weights, found)
    given, chosen = settings_for(found, settings), _points_for(found, points)
    asked = {
        bundle: {
            name: overrides_of(bundle, {**given, bundle.name: {**given.get(bundle.name, {}), **point}}, weights)
            for name, point in chosen[bundle.name].items()
        }
        for bundle in found
    }
    listed = load_cases(dataset_dir, split, channels=None, truth="mask", twins=False)[:max_cases]
    if not listed:
        raise InputError(dataset_dir, "has no case", "give cases with masks")
    check_writable(output_dir)
    words = {"split": split, "max_cases": max_cases, "weights": weights, "settings": settings, "points": points}
    made, failures = {}, {}
    for number, bundle in enumerate(found, 1):
        tqdm.write(f"{bundle.name} ({number}/{len(found)})")
        file = Path(output_dir) / bundle.name / CURVE
        try:
            common, where = overrides_of(bundle, given, weights), (dataset_dir, split, device)
            made[bundle.name] = _curve(bundle, listed, asked[bundle], file, where, cases_at_once, draws)
        except Exception as error:  # any bundle may fail in any way, and the others must not
            failures[bundle.name] = told(error)
            tqdm.write(f"failed: {bundle.name}: {failures[bundle.name]}")
            continue
        shown = {key: value for key, value in common.items() if not names_file(key)}
        about = {"bundle": bundle.name, "data": dataset_name(dataset_dir), "overrides": shown}
        made[bundle.name] |= {**about, "command": command_of("curve", {"bundle": bundle.name, **words})}
        write_json(file, made[bundle.name])
        write_atomic(file.with_suffix(".md"), f"{curve_table(made[bundle.name])}\n".encode())
    if made:
        write_atomic(Path(output_dir) / "summary.md", f"{curve_summary(made)}\n".encode())
    return made, failures


def default_points(bundle: Path) -> dict[str, Overrides]:
    """The settings to measure: the paper's, the same in fewer steps, the default, and the default's neighbours.

    Args:
        bundle: its folder. A step count of ``configs/published.json`` that is null visits every level.
    """
    config = json.loads((bundle / "configs" / "inference.json").read_text(encoding="utf-8"))
    file = bundle / "configs" / "published.json"
    points: dict[str, Overrides] = {}
    if file.is_file():
        published = json.loads(file.read_text(encoding="utf-8"))
        points["published"] = published
        counted = [key for key in published if key.endswith("_steps") and key != "resample_steps"]
        for steps in _STEPS:
            # A part of the way that is shorter has no more steps than levels.
            fewer = {key: min(steps, published.get(key.replace("_steps", "_level"), steps)) for key in counted}
            if counted and all(published[key] is None or published[key] > count for key, count in fewer.items()):
                points[f"published, {steps} steps"] = {**published, **fewer}
    points["default"] = {}
    runs, steps = config.get("num_restorations"), config.get("num_inference_steps")
    if isinstance(runs, int):
        points |= {f"default, mean of {count}": {"num_restorations": count} for count in _COUNTS if count != runs}
    elif isinstance(steps, int):
        points |= {f"default, {count} steps": {"num_inference_steps": count} for count in _COUNTS if count != steps}
    return points


def _points_for(bundles: Sequence[Path], path: str | None) -> dict[str, Mapping[str, Overrides]]:
    """The points of each bundle: those of the file, or else its ``default_points``."""
    chosen: dict[str, Mapping[str, Overrides]] = {}
    if path is not None:
        for name, points in read_settings(path).items():
            if not points or not all(isinstance(point, dict) for point in points.values()):
                example = f'write {{"{name}": {{"20 steps": {{"num_inference_steps": 20}}}}}}'
                raise InputError(path, f"has no points of '{name}', or one that is no mapping of overrides", example)
            chosen[name] = {label: files_beside(point, path) for label, point in points.items()}
        refuse_unknown(chosen, bundles, path)
    return {bundle.name: chosen.get(bundle.name) or default_points(bundle) for bundle in bundles}


def _curve(
    bundle: Path,
    listed: Sequence[Case],
    asked: Mapping[str, Overrides],
    file: Path,
    where: tuple[str, str | None, str | None],
    cases_at_once: int,
    draws: int,
) -> dict[str, Any]:
    dataset_dir, split, device = where
    data = hashlib.sha256("".join(map(fingerprint, listed)).encode()).hexdigest()[:16]
    before = {row["identity"]: row for row in _stored(file)}
    rows: list[dict[str, Any]] = []
    for name, overrides in asked.items():
        with the_process_as_before():
            run = BundleRun(bundle, dataset_dir, split, {**overrides, "threshold": None}, device=device)
            identity = f"{run.key}-{data}-{cases_at_once}-{draws}"
            row = before.get(identity) or {
                "identity": identity,
                **_point(Bench(run, listed, cases_at_once), name, draws),
            }
        rows.append({**row, "name": name, "settings": {k: v for k, v in overrides.items() if not names_file(k)}})
        # So that an interruption costs a point and not a curve; those of other points stay until the curve is whole.
        write_json(file, {"points": [*rows, *(old for key, old in before.items() if key not in _identities(rows))]})
    return _compared(rows, len(listed))


def _identities(rows: Sequence[Mapping[str, Any]]) -> set[str]:
    return {row["identity"] for row in rows}


def _point(bench: Bench, name: str, draws: int) -> dict[str, Any]:
    scores = bench.score(name)
    summary, cost = scores.pool.summary(), cost_summary(scores.costs)
    drawn = pixel_ap_of(scores, draw_subjects(len(subjects_of(scores)), draws))
    return {
        **{key: summary[key] for key in ("pixel_ap", "oracle_dice", "case_ap_mean", "prevalence", "intensity_ap")},
        **{key: cost[key] for key in ("network_evaluations_per_slice", "seconds_per_slice", "hardware")},
        "interval": interval(drawn),
        "subjects": len(subjects_of(scores)),
        "drawn": [round(float(each), 6) for each in drawn],
        "version": __version__,
    }


def _compared(rows: Sequence[dict[str, Any]], cases: int) -> dict[str, Any]:
    """The points with their difference to the first, in order of evaluations, and the cheapest that is as good."""
    first = rows[0]
    drawn = [np.array(row["drawn"], dtype=float) for row in rows]  # null in a file is NaN: a draw without lesion
    for row, own in zip(rows, drawn, strict=True):
        row["change"] = row["pixel_ap"] - first["pixel_ap"]
        row["change_interval"] = paired(own, drawn[0])["interval"]
    ordered = sorted(rows, key=lambda row: (row["network_evaluations_per_slice"], -row["pixel_ap"]))
    fast = next((row for row in ordered if row["change"] >= -MARGIN), first)  # no comparison where an AP is undefined
    return {
        "cases": cases,
        "subjects": first["subjects"],
        "reference": first["name"],
        "fast": fast["name"],
        "points": ordered,
    }


def _stored(file: Path) -> list[dict[str, Any]]:
    """The points that are there; none without a file that can be read."""
    try:
        return list(json.loads(file.read_text(encoding="utf-8"))["points"])
    except (OSError, ValueError, KeyError):
        return []
