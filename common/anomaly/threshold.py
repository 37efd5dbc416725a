"""Thresholds with their origin, as they lie beside the weights."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from common.anomaly.calibrated import warn_of_changes
from common.errors import InputError
from common.files import write_json

__all__ = ["Threshold", "resolve_threshold"]


@dataclass(frozen=True)
class Threshold:
    """A threshold on an anomaly map, and what it was calibrated on.

    Args:
        value: voxels at or above it are anomalous, in units of the map.
        quantile: share of the voxels of other healthy subjects that is to stay below it.
        calibrated_on: the healthy data, in words.
        cases: number of healthy cases.
        voxels: number of voxels inside their brains.
        settings: the inferer's and the post-processing's, for which alone it holds.
        weights_sha256: of the network's weights.
        interval: in which the value lies with 95 % confidence, from drawing the subjects anew; empty if unknown.
        subjects: hashes of the healthy subjects, so that a test on one of them can be found out; empty if unknown.
    """

    value: float
    quantile: float
    calibrated_on: str
    cases: int
    voxels: int
    settings: dict[str, Any]
    weights_sha256: str = ""
    interval: list[float] = field(default_factory=list)
    subjects: list[str] = field(default_factory=list)

    def save(self, path: str | Path) -> None:
        """Write as JSON; the file appears whole or not at all."""
        write_json(path, asdict(self))

    @classmethod
    def load(cls, path: str | Path) -> Threshold:
        """Read a file that ``save`` wrote.

        Raises:
            InputError: no such file, or not a threshold.
        """
        remedy = "calibrate on healthy scans (configs/calibrate.json), or give --threshold VALUE"
        if not Path(path).is_file():
            raise InputError(path, "no such threshold", remedy)
        try:
            threshold = cls(**json.loads(Path(path).read_text()))
        except (ValueError, TypeError) as error:
            raise InputError(path, f"is not a threshold ({error})", remedy) from error
        _check(threshold.value, path)
        return threshold


def resolve_threshold(
    threshold: float | str | Path,
    settings: Mapping[str, Any] | None = None,
    weights: str | Path | None = None,
) -> float:
    """The value of a threshold given as a number or as the path of a ``threshold.json``.

    Args:
        threshold: number or path.
        settings: now in force; where the threshold was calibrated under others, a warning names them.
        weights: file of weights in use; a warning tells if the threshold was calibrated with others.

    Raises:
        InputError: neither a positive number nor such a file.
    """
    if not isinstance(threshold, str | Path):
        return _check(threshold, "--threshold")
    loaded = Threshold.load(threshold)
    warn_of_changes(loaded, threshold, settings, weights)
    return loaded.value


def _check(value: float, source: str | Path) -> float:
    if not (isinstance(value, int | float) and math.isfinite(value) and value > 0):
        raise InputError(source, f"threshold {value} is not a positive number", "give a value in units of the map")
    return float(value)
