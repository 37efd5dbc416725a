"""Where the weights and the threshold of an evaluation come from, in words that are true of those in use."""

from __future__ import annotations

from pathlib import Path

from common.anomaly import Threshold

__all__ = ["OTHER_WEIGHTS", "threshold_origin", "training_set"]

OTHER_WEIGHTS = "that of the weights that were given"
"""The training set, where the bundle's own weights were not used."""


def training_set(data_source: str, weights: str | Path, bundle_root: str | Path) -> str:
    """What a bundle's weights were trained on, or that others were given.

    Args:
        data_source: of the bundle's own weights, as its metadata have it.
        weights: in use.
        bundle_root: the folder of the bundle, whose own weights lie in ``models``.
    """
    own = Path(weights).resolve().parent == (Path(bundle_root) / "models").resolve()
    return data_source if own else OTHER_WEIGHTS


def threshold_origin(threshold: float | str | Path | None) -> str:
    """What a threshold was found on.

    Args:
        threshold: the path of a ``threshold.json``, a number, or nothing.

    Raises:
        InputError: no such file, or not one of a threshold.
    """
    if threshold is None:
        return "none"
    if not isinstance(threshold, str | Path):
        return "a number that was given"
    made = Threshold.load(threshold)
    return f"{made.calibrated_on} (quantile {made.quantile:g} of {made.cases} cases)"
