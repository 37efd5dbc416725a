"""Levels that a schedule has, and levels that it does not have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine

from common import InputError
from common.diffusion import NoiseSchedule
from common.training import DenoisingBatch
from common.training.handlers import TensorBoardDenoising

SCHEDULE = NoiseSchedule("linear", 400)


@pytest.mark.parametrize("levels", [(0, 400), (-1, 5), (300, 200), (5,), 5, (0, 1.5), (0, 100, 200)])
def test_levels_that_the_schedule_does_not_have_are_refused(levels: Any) -> None:
    with pytest.raises(InputError, match=r"levels .*: are no range from 0 to 399 → give \[lowest, highest\]"):
        DenoisingBatch(SCHEDULE, levels=levels)


@pytest.mark.parametrize(("levels", "found"), [(None, (0, 399)), ([0, 399], (0, 399)), ((7, 7), (7, 7))])
def test_levels_that_it_has(levels: Any, found: tuple[int, int]) -> None:
    batch = DenoisingBatch(SCHEDULE, levels=levels)
    assert (batch.low, batch.high) == found


def test_pictures_of_a_validation_stay_within_the_schedule(tmp_path: Path) -> None:
    engine = Engine(lambda engine, batch: None)
    engine.state.batch = [{"image": torch.rand(1, 8, 8), "case": "a"}]  # type: ignore[assignment]
    engine.state.device = torch.device("cpu")  # type: ignore[attr-defined]
    handler = TensorBoardDenoising(str(tmp_path), DenoisingBatch(SCHEDULE), lambda x, timesteps: torch.zeros_like(x))
    handler._draw(engine)
    assert [*tmp_path.iterdir()]
