"""What is calibrated on healthy scans must see healthy scans alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events

from common.errors import InputError
from common.files import check_writable

__all__ = ["HealthyHandler", "refuse_lesions"]


def refuse_lesions(case: Mapping[str, Any]) -> None:
    """Stop unless a case is healthy, as far as its label and mask say.

    Raises:
        InputError: it has a lesion.
    """
    if case.get("label", 0) or ("mask" in case and bool(case["mask"].any())):
        raise InputError(case["case"], "has a lesion", "calibrate on healthy scans only (give their --split)")


class HealthyHandler(ABC):
    """Ignite handler: collect something of each healthy case of a run, and write it down at the end.

    Args:
        path: the file to write.
        calibrated_on: the healthy data, in words.
        settings: of the inferer, under which it holds.
        weights: of the network; their hash is recorded.

    Attributes:
        cases: how many there were.

    Raises:
        InputError: the folder of the file cannot be written; at run time, a case with a lesion.
    """

    def __init__(self, path: str | Path, calibrated_on: str, settings: Mapping[str, Any], weights: str | Path) -> None:
        self.path, self.calibrated_on = Path(path), calibrated_on
        check_writable(self.path.parent)
        self.settings, self.weights = dict(settings), weights
        self.cases = 0

    def attach(self, engine: Engine) -> None:
        """Collect over a run and write at its end."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._update)
        engine.add_event_handler(Events.COMPLETED, self.finish)

    @abstractmethod
    def add(self, case: Mapping[str, Any], result: Mapping[str, Any]) -> None:
        """Take what is wanted of a case, as the evaluator gives it, and of its result."""

    @abstractmethod
    def finish(self) -> None:
        """Write the file."""

    def _update(self, engine: Engine) -> None:
        batch: Any = engine.state.batch
        output: Any = engine.state.output
        for case, result in zip(batch, output, strict=True):
            refuse_lesions(case)
            self.add(case, result)
            self.cases += 1
