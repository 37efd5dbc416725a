"""A threshold from healthy scans."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events

from common.anomaly import Threshold
from common.errors import InputError
from common.evaluation.histogram import ScoreHistogram
from common.networks import sha256

__all__ = ["ThresholdCalibration"]


class ThresholdCalibration:
    """Ignite handler: pool the cleaned maps of healthy cases and write the threshold that a quantile stays below.

    Args:
        path: ``threshold.json`` to write.
        quantile: share of voxels inside the brain that shall stay below, e.g. 0.99.
        calibrated_on: the healthy data, in words.
        settings: under which the threshold holds.
        weights: of the network; their hash is recorded.

    Raises:
        InputError: a quantile outside (0, 1); at run time, a case with a lesion, or maps that are zero there.
    """

    def __init__(
        self, path: str | Path, quantile: float, calibrated_on: str, settings: Mapping[str, Any], weights: str | Path
    ) -> None:
        if not 0 < quantile < 1:
            raise InputError(f"quantile {quantile}", "is not between 0 and 1", "use e.g. 0.99 for 1 % false positives")
        self.path, self.quantile, self.calibrated_on = Path(path), quantile, calibrated_on
        self.settings, self.weights = dict(settings), weights
        self.histogram, self.cases = ScoreHistogram(), 0

    def attach(self, engine: Engine) -> None:
        """Collect over a run and write at its end."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._update)
        engine.add_event_handler(Events.COMPLETED, self._finish)

    def _update(self, engine: Engine) -> None:
        batch: Any = engine.state.batch
        output: Any = engine.state.output
        for case, result in zip(batch, output, strict=True):
            if case.get("label", 0) or ("mask" in case and bool(case["mask"].any())):
                raise InputError(case["case"], "has a lesion", "calibrate on healthy scans only (give their --split)")
            scores = result["anomaly_map"].as_tensor()
            self.histogram.update(scores, scores.new_zeros(scores.shape), case["brain_mask"].as_tensor())
            self.cases += 1

    def _finish(self) -> None:
        value = self.histogram.quantile(self.quantile)
        if not value > 0:
            raise InputError(self.path, f"quantile {self.quantile} of the maps is {value}", "use a higher quantile")
        threshold = Threshold(
            value=value,
            quantile=self.quantile,
            calibrated_on=self.calibrated_on,
            cases=self.cases,
            voxels=self.histogram.negatives,
            settings=self.settings,
            weights_sha256=sha256(self.weights),
        )
        threshold.save(self.path)
        print(f"threshold {value:.6g} (quantile {self.quantile} of {self.cases} healthy cases) → {self.path}")
