"""Thresholds of bundles from the healthy scans at hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.anomaly import HealthyStatistics
from common.bundles import find_bundles
from common.data import Case, dataset_name, healthy_cases
from common.errors import InputError, told
from common.evaluation.bundle import (
    BundleRun,
    one_set_each,
    overrides_of,
    settings_for,
    the_process_as_before,
)
from common.files import check_writable
from common.networks import sha256

__all__ = ["calibrate"]


def calibrate(
    bundles: str | Sequence[str],
    dataset_dir: str,
    *,
    bundles_dir: str | Path | None = None,
    fpr: float = 0.01,
    split: str | None = None,
    settings: str | None = None,
    weights: str | None = None,
    output: str | None = None,
    calibrated_on: str | None = None,
    device: str | None = None,
) -> dict[str, str]:
    """Run bundles on healthy scans, and write the thresholds at which a share of their voxels is called anomalous.

    Args:
        bundles: name or path; several, or ``all``.
        dataset_dir: healthy scans; masks, where there are any, must be empty. In a data set that says which cases are
            healthy (``label`` 0) the others are left out.
        bundles_dir: the folder of the bundles, as of ``bundle_folder``.
        fpr: share of false positives, in (0, 1).
        split: of the data set.
        settings: JSON of overrides (``settings_for``).
        weights: in place of the bundles' own: a file, for one bundle, or a folder (``overrides_of``). Of all bundles
            those are calibrated that it holds.
        output: the file to write, for one bundle; by default ``threshold.json`` beside the weights, which inference
            takes by itself with the bundle's own weights.
        calibrated_on: the scans in words, kept in the file; by default the name of the data set.
        device: to run on.

    Returns:
        of several bundles, those that failed, and why.

    Raises:
        InputError: unusable scans or settings, or none that are healthy; for one bundle, whatever it refuses, and a
            folder that cannot be written.
    """
    if not 0 < fpr < 1:
        raise InputError(f"--fpr {fpr}", "is not between 0 and 1", "use e.g. 0.01 for 1 % false positives")
    found = find_bundles(bundles_dir, bundles)
    one_set_each(weights, found)
    given = settings_for(found, settings)
    overrides = {bundle: overrides_of(bundle, given, weights) for bundle in found}
    if weights is not None:
        lacking = [bundle.name for bundle, changes in overrides.items() if "weights" not in changes]
        if lacking and (bundles != "all" or len(lacking) == len(found)):
            raise InputError(weights, f"holds no weights of {', '.join(lacking)}", "give one with BUNDLE/model.pt")
        overrides = {bundle: changes for bundle, changes in overrides.items() if bundle.name not in lacking}
    single = len(overrides) == 1
    if output is not None and not single:
        raise InputError(
            f"--out {output}", f"is one file for {len(overrides)} bundles", "calibrate one, or leave it away"
        )
    if output is not None and Path(output).is_dir():
        raise InputError(f"--out {output}", "is a folder", "name the file to write")
    cases = healthy_cases(dataset_dir, split, channels=None)
    said = {"calibrated_on": calibrated_on or dataset_name(dataset_dir)}
    failures: dict[str, str] = {}
    for bundle, changes in overrides.items():
        with the_process_as_before():
            try:
                changes.pop("threshold", None)  # which is to be found
                changes |= said
                asked = BundleRun(bundle, dataset_dir, split, changes, "calibrate.json", device=device)
                target = Path(output or Path(asked.get("weights")).with_name("threshold.json"))
                check_writable(target.parent)
                changes = _with_statistics(asked, dataset_dir, split, changes, cases, device)
                changes["quantile"] = 1 - fpr
                run = BundleRun(bundle, dataset_dir, split, changes, "calibrate.json", own_handlers=True, device=device)
                run.parser["threshold_file"] = str(target)
                run.evaluator(cases).run()
            except Exception as error:  # any bundle may fail in any way, and the others must not
                if single:
                    raise
                failures[bundle.name] = told(error)
    return failures


def _with_statistics(
    asked: BundleRun,
    dataset_dir: str,
    split: str | None,
    changes: dict[str, Any],
    cases: list[Case],
    device: str | None,
) -> dict[str, Any]:
    """The changes with what else a method wants to know of healthy scans, made beside its weights if need be."""
    if not (asked.bundle / "configs" / "statistics.json").is_file():
        return changes
    weights, named = Path(asked.get("weights")), changes.get("statistics")
    beside = weights.with_name("statistics.json")
    if named is not None and (named == "none" or Path(named).resolve() != beside.resolve()):
        return changes
    if not beside.is_file() or HealthyStatistics.load(beside).weights_sha256 != sha256(weights):
        # They are of the plain residual, whatever the map will be.
        plain = {key: value for key, value in changes.items() if key not in ("statistics", "normalise")}
        run = BundleRun(asked.bundle, dataset_dir, split, plain, "statistics.json", own_handlers=True, device=device)
        run.parser["statistics_file"] = str(beside)
        run.evaluator(cases).run()
    return {**changes, "statistics": str(beside)}
