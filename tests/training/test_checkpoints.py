"""Going on with a training: what comes from the checkpoint, and what from the configuration."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from ignite.engine import Engine, Events
from monai.handlers import LrScheduleHandler
from monai.optimizers import WarmupCosineSchedule

from common import InputError
from common.training.handlers import Checkpoints
from common.training.progress import Progress

STEPS = 4  # of an epoch


def rates(
    folder: Path,
    epochs: int,
    resume: str = "",
    rate: float = 1.0,
    patience: int = 0,
    losses: tuple[float, ...] = (),
    length: int = STEPS,
) -> list[float]:
    """Train; give the learning rate of each step."""
    network = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(network.parameters(), lr=rate)
    schedule = WarmupCosineSchedule(optimizer, warmup_steps=2, t_total=epochs * STEPS)
    validator = Engine(lambda engine, batch: None)
    validator.state.key_metric_name = "loss"  # type: ignore[attr-defined]
    validator.metric_cmp_fn = lambda current, best: current < best  # type: ignore[attr-defined]
    progress = Progress(network, optimizer, validator, patience)
    seen: list[float] = []

    def step(engine: Engine, batch: torch.Tensor) -> list[dict[str, float]]:
        seen.append(optimizer.param_groups[0]["lr"])
        network(batch).sum().backward()
        optimizer.step()
        return [{"loss": 0.0}]

    trainer = Engine(step)
    trainer.state.max_epochs = epochs
    trainer.state.epoch_length = length  # as MONAI's trainers have it, from their data
    LrScheduleHandler(schedule, epoch_level=False, print_lr=False).attach(trainer)

    def validate(engine: Engine) -> None:
        validator.state.epoch = engine.state.epoch
        validator.state.metrics = {"loss": losses[engine.state.epoch - 1]} if losses else {}

    trainer.add_event_handler(Events.EPOCH_COMPLETED, validate)
    progress.attach(trainer)
    objects = {"network": network, "optimizer": optimizer, "lr_scheduler": schedule, "progress": progress}
    Checkpoints(objects, str(folder), resume=resume).attach(trainer)
    trainer.run(torch.ones(length, 1), max_epochs=epochs)
    return seen


def cosine(step: int, epochs: int) -> float:
    return step / 2 if step < 2 else 0.5 * (1 + math.cos(math.pi * (step - 2) / (epochs * STEPS - 2)))


def test_more_epochs_and_another_learning_rate_count_from_where_it_goes_on(tmp_path: Path) -> None:
    assert rates(tmp_path, 2) == pytest.approx([cosine(step, 2) for step in range(2 * STEPS)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint_1.pt", "checkpoint_2.pt"]
    checkpoint = str(tmp_path / "checkpoint_2.pt")
    rest = rates(tmp_path / "rest", 4, checkpoint, rate=0.1)
    assert rest == pytest.approx([0.1 * cosine(step, 4) for step in range(2 * STEPS, 4 * STEPS)])


def test_an_ended_training_is_not_begun_again(tmp_path: Path) -> None:
    rates(tmp_path, 3)
    for epochs in (2, 3):
        with pytest.raises(InputError, match=r"checkpoint_3\.pt: is of a training that has ended, with epoch 3 → give"):
            rates(tmp_path / "rest", epochs, str(tmp_path / "checkpoint_3.pt"))
    assert len(rates(tmp_path / "rest", 3, str(tmp_path / "checkpoint_2.pt"))) == STEPS


def test_nor_one_whose_patience_has_ended(tmp_path: Path) -> None:
    losses = (1.0, 2.0, 3.0, 0.5, 0.4, 0.3)
    assert len(rates(tmp_path, 6, patience=2, losses=losses)) == 3 * STEPS
    checkpoint = str(tmp_path / "checkpoint_3.pt")
    with pytest.raises(InputError, match="has ended, with epoch 3 → give a higher --max_epochs"):
        rates(tmp_path / "rest", 6, checkpoint, patience=2, losses=losses)
    assert len(rates(tmp_path / "rest", 6, checkpoint, patience=3, losses=losses)) == 3 * STEPS


def test_other_batches_are_no_continuation(tmp_path: Path) -> None:
    """Its epochs would have as many steps as before, and the learning rate would follow another count."""
    rates(tmp_path, 2)
    with pytest.raises(
        InputError, match=r"with 4 steps an epoch, this one has 3 → resume with the same scans and --batch"
    ):
        rates(tmp_path / "rest", 4, str(tmp_path / "checkpoint_2.pt"), length=3)
