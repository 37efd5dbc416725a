"""What residuals of healthy scans look like, for maps that are normalised by it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events

from common.anomaly import HealthyStatistics, StatisticsBuilder
from common.evaluation.healthy import refuse_lesions
from common.networks import sha256

__all__ = ["HealthyStatisticsWriter"]


class HealthyStatisticsWriter:
    """Ignite handler: pool image minus pseudo-healthy image of healthy cases by brightness, and write the figures.

    Args:
        path: ``statistics.json`` to write.
        calibrated_on: the healthy data, in words.
        settings: of the inferer, under which the statistics hold.
        weights: of the network; their hash is recorded.

    Raises:
        InputError: at run time, a case with a lesion, or too few pixels.
    """

    def __init__(self, path: str | Path, calibrated_on: str, settings: Mapping[str, Any], weights: str | Path) -> None:
        self.path, self.calibrated_on = Path(path), calibrated_on
        self.settings, self.weights = dict(settings), weights
        self.builder, self.cases = StatisticsBuilder(), 0

    def attach(self, engine: Engine) -> None:
        """Collect over a run and write at its end."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._update)
        engine.add_event_handler(Events.COMPLETED, self._finish)

    def _update(self, engine: Engine) -> None:
        batch: Any = engine.state.batch
        output: Any = engine.state.output
        for case, result in zip(batch, output, strict=True):
            refuse_lesions(case)
            image, mask = case["image"].as_tensor().cpu(), case["brain_mask"].as_tensor().cpu()
            self.builder.update(image, result["pseudo_healthy"].as_tensor().cpu(), mask)
            self.cases += 1

    def _finish(self) -> None:
        bias, spread = self.builder.figures()
        made = HealthyStatistics(bias, spread, self.calibrated_on, self.cases, self.settings, sha256(self.weights))
        made.save(self.path)
        print(f"statistics of {self.cases} healthy cases → {self.path}")
