"""What residuals of healthy scans look like, for maps that are normalised by it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common.anomaly import HealthyStatistics, StatisticsBuilder
from common.evaluation.healthy import HealthyHandler
from common.networks import sha256

__all__ = ["HealthyStatisticsWriter"]


class HealthyStatisticsWriter(HealthyHandler):
    """Ignite handler: pool image minus pseudo-healthy image of healthy cases by brightness, and write the figures.

    Args:
        *args: of ``HealthyHandler``; the file is ``statistics.json``.
        **kwargs: of ``HealthyHandler``.

    Raises:
        InputError: at run time, a case with a lesion, or too few pixels.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.builder = StatisticsBuilder()

    def add(self, case: Mapping[str, Any], result: Mapping[str, Any]) -> None:
        """Take the residual inside the brain mask."""
        image, mask = case["image"].as_tensor().cpu(), case["brain_mask"].as_tensor().cpu()
        self.builder.update(image, result["pseudo_healthy"].as_tensor().cpu(), mask)

    def finish(self) -> None:
        """Write bias and spread."""
        bias, spread = self.builder.figures()
        made = HealthyStatistics(bias, spread, self.calibrated_on, self.cases, self.settings, sha256(self.weights))
        made.save(self.path)
        print(f"statistics of {self.cases} healthy cases → {self.path}")
