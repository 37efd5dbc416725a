"""Preprocessed cases in memory, and a bundle's evaluator to run on them as often as one likes."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import Tensor
from tqdm import tqdm

from common.data import subject_of
from common.errors import InputError
from common.evaluation.bundle import BundleRun
from common.evaluation.comparison.collect import Meter
from common.evaluation.comparison.scores import Scores
from common.evaluation.pool import PooledScores

__all__ = ["Bench", "PreparedCase"]

PreparedCase = dict[Hashable, Any]
"""A case as ``Preprocessing`` leaves it, with its brain mask once more as ``region``, where scores count."""


class Bench:
    """A bundle on its bench.

    Args:
        run: the bundle's workflow.
        listed: the cases, as ``common.data.load_cases`` gives them; all are held in memory.
        at_once: cases in one batch, where all have one shape; otherwise one at a time.

    Attributes:
        cases: preprocessed.
        meter: the inferer, timed.

    Raises:
        InputError: no case has a lesion.
    """

    def __init__(self, run: BundleRun, listed: Sequence[Mapping[str, Any]], at_once: int = 1) -> None:
        prepare = run.get("preprocessing")
        self.cases: list[PreparedCase] = [
            {**case, "region": case["brain_mask"]} for case in map(prepare, tqdm(listed, desc="Preparing", leave=False))
        ]
        if not any(bool(case["mask"].any()) for case in self.cases):
            raise InputError("test set", "no case has a lesion", "give cases with masks")
        self.at_once = at_once if len({case["image"].shape for case in self.cases}) == 1 else 1
        run.parser["dataloader"]["batch_size"] = self.at_once
        self.evaluator = run.evaluator(self.cases, dict)
        self.dataset = run.get("dataset")  # of this evaluator, which makes one of its own
        self.evaluator.add_event_handler(Events.ITERATION_COMPLETED, self._add)
        self.inferer, self.network = run.get("inferer"), run.get("network")
        self.meter = self.evaluator.inferer = Meter(self.inferer)
        self.threshold, self.seed = run.get("clean").threshold, int(run.get("seed", 0))
        self._scores = Scores("", PooledScores())
        self._bar: Any = None

    def score(
        self,
        name: str,
        cases: Sequence[PreparedCase] | None = None,
        change: Callable[[PreparedCase], PreparedCase] | None = None,
    ) -> Scores:
        """The scores of the bundle, with what each batch cost.

        Args:
            name: of the scores.
            cases: instead of all.
            change: of each case before.
        """
        cases = self.cases if cases is None else cases
        self._scores = Scores(name, PooledScores(self.threshold, keep=True))
        self.dataset.data, self.dataset.transform = list(cases), change or dict
        # The evaluator asked for it when it was made.
        self.evaluator.state.epoch_length = math.ceil(len(cases) / self.at_once)
        with tqdm(total=len(cases), desc=name, leave=False) as self._bar:
            self.evaluator.run()
        return self._scores

    def _add(self, engine: Engine) -> None:
        batch: Any = engine.state.batch
        output: Any = engine.state.output
        for case, result in zip(batch, output, strict=True):
            arrays = [_plain(each) for each in (result["anomaly_map"], case["mask"], case["region"], case["image"])]
            row = self._scores.pool.add(str(case["case"]), *arrays)
            self._scores.rows.append({**row, "subject": subject_of(case)})
            self._bar.update()
        assert self.meter.last is not None
        self._scores.costs.append(self.meter.last)


def _plain(value: Tensor) -> Tensor:
    return torch.as_tensor(value).as_subclass(Tensor).detach().cpu()
