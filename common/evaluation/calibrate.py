"""A bundle's threshold from the healthy scans at hand."""

from __future__ import annotations

from pathlib import Path

from common.anomaly import Threshold
from common.data import load_cases
from common.errors import InputError
from common.evaluation.bundle import BundleRun, find_bundle, overrides_of, read_settings, the_process_as_before
from common.evaluation.calibration import ThresholdCalibration

__all__ = ["calibrate"]


def calibrate(
    bundle: str,
    dataset_dir: str,
    *,
    bundles_dir: Path,
    fpr: float = 0.01,
    split: str | None = None,
    settings: str | None = None,
    weights: str | None = None,
    output: str | None = None,
    calibrated_on: str | None = None,
    device: str | None = None,
) -> Threshold:
    """Run a bundle on healthy scans, and write the threshold at which a share of their voxels is called anomalous.

    Args:
        bundle: name or path.
        dataset_dir: healthy scans; masks, where there are any, must be empty. In a data set that says which cases are
            healthy (``label`` 0) the others are left out.
        bundles_dir: the folder of the bundles.
        fpr: share of false positives, in (0, 1).
        split: of the data set.
        settings: JSON of overrides (``read_settings``).
        weights: a file, in place of the bundle's own.
        output: the file to write; by default ``threshold.json`` beside the weights, which inference takes by itself
            with the bundle's own weights.
        calibrated_on: the scans in words, kept in the file; by default the name of the data set.
        device: to run on.

    Returns:
        the threshold with its interval.

    Raises:
        InputError: unusable scans or settings, or none that are healthy.
    """
    if not 0 < fpr < 1:
        raise InputError(f"--fpr {fpr}", "is not between 0 and 1", "use e.g. 0.01 for 1 % false positives")
    folder = find_bundle(bundles_dir, bundle)
    overrides = overrides_of(folder, read_settings(settings))
    if weights is not None:
        overrides["weights"] = str(Path(weights).resolve())
    cases = load_cases(dataset_dir, split, channels=None)
    if any(case.get("label") == 0 for case in cases):
        cases = [case for case in cases if not case.get("label")]
    if all(case.get("label") for case in cases):
        raise InputError(dataset_dir, "holds no healthy scan", "calibrate on scans of healthy people")
    overrides |= {"quantile": 1 - fpr, "calibrated_on": calibrated_on or Path(dataset_dir).resolve().name}
    with the_process_as_before():
        overrides.pop("threshold", None)
        run = BundleRun(folder, dataset_dir, split, overrides, "calibrate.json", own_handlers=True, device=device)
        run.parser["threshold_file"] = str(output or Path(run.get("weights")).with_name("threshold.json"))
        evaluator = run.evaluator(cases)
        evaluator.run()
        handlers = run.get("handlers")
    (handler,) = (each for each in handlers if isinstance(each, ThresholdCalibration))
    assert handler.threshold is not None
    return handler.threshold
