"""What training here adds to MONAI's trainer: reproducible epochs, checkpoints to resume from, pictures, weights."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine, Events
from ignite.handlers import Checkpoint, DiskSaver
from ignite.metrics import Loss
from monai.data.utils import set_rnd
from monai.handlers import from_engine
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.tensorboard import SummaryWriter

from common.data import Scaling
from common.diffusion import case_seed
from common.errors import InputError
from common.networks import save_weights
from common.training.batch import DenoisingBatch
from common.training.progress import denoising_grid, levels_of, shown_cases

__all__ = ["Checkpoints", "FiniteLoss", "MeanLoss", "ReproducibleEpochs", "TensorBoardDenoising", "WeightsSaver"]


# What a learning-rate schedule has from the configuration; the rest is how far it has come.
_ASKED = ("base_lrs", "warmup_steps", "t_total")


class ReproducibleEpochs:
    """Make every epoch depend on the seed and its number alone, so that a resumed run equals an unbroken one.

    Shuffling is left to a ``DistributedSampler`` (also with one process), which MONAI tells the epoch.

    Args:
        seed: of the run.
        dataset: with MONAI's random transforms.
        rank: of the process.
    """

    def __init__(self, seed: int, dataset: Any, rank: int = 0) -> None:
        self.seed, self.dataset, self.rank = seed, dataset, rank

    def attach(self, engine: Engine) -> None:
        """Seed at the start of the run, of each epoch, and of each iteration."""
        # The loader's iterator is made after STARTED in a new or resumed run, after EPOCH_STARTED in later epochs.
        engine.add_event_handler(Events.STARTED, lambda: self._seed_epoch(engine.state.epoch + 1))
        engine.add_event_handler(Events.EPOCH_STARTED, lambda: self._seed_epoch(engine.state.epoch))
        engine.add_event_handler(
            Events.ITERATION_STARTED,
            lambda: torch.manual_seed(case_seed(self.seed, "iteration", engine.state.iteration, self.rank)),
        )

    def _seed_epoch(self, epoch: int) -> None:
        seed = case_seed(self.seed, "epoch", epoch, self.rank) % 2**31
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - third-party code draws from the global state
        torch.manual_seed(seed)
        set_rnd(self.dataset, seed=seed)


class FiniteLoss:
    """Stop training at the first loss that is not a number, before it reaches a checkpoint."""

    def attach(self, trainer: Engine) -> None:
        """Look at the loss after each iteration."""
        trainer.add_event_handler(Events.ITERATION_COMPLETED, self._check)

    def _check(self, trainer: Engine) -> None:
        losses = [float(item["loss"]) for item in trainer.state.output]
        if not np.isfinite(losses).all():
            raise InputError(
                f"training loss {losses[0]} at iteration {trainer.state.iteration}",
                "is not a number",
                "resume from the last checkpoint with a lower --learning_rate, or without --amp",
            )


class MeanLoss(Loss):
    """The training loss, averaged over the cases of a validation, as its key metric.

    Args:
        loss: ``(predictions, targets) -> scalar``, a mean over cases.
    """

    def __init__(self, loss: nn.Module) -> None:
        stack = from_engine(["pred", "label"])
        super().__init__(loss, output_transform=lambda output: tuple(torch.stack(list(each)) for each in stack(output)))


class Checkpoints:
    """Write checkpoints that appear whole or not at all, keep the last two, and resume from one.

    The number of epochs and the learning rate of a resumed training are those of its configuration.

    Args:
        objects: what has a state, by name (network, ema, optimizer, lr_scheduler, progress); the trainer is added.
        folder: where ``checkpoint_<epoch>.pt`` go.
        interval: epochs between them; the last epoch is always written.
        resume: a checkpoint to go on from; empty starts anew.
    """

    def __init__(self, objects: Mapping[str, Any], folder: str, interval: int = 1, resume: str = "") -> None:
        self.objects, self.folder, self.interval, self.resume = objects, folder, interval, resume

    def attach(self, trainer: Engine) -> None:
        """Load ``resume`` if given, and write from now on.

        Raises:
            InputError: the checkpoint does not exist, is damaged, belongs to another configuration, or is of a training
                that has ended.
        """
        objects = {**self.objects, "trainer": trainer}
        if self.resume:
            _restore(objects, check_checkpoint(self.resume))
        # On every rank: making a saver is a collective operation; rank 0 alone writes.
        saver = Checkpoint(
            objects,
            DiskSaver(self.folder, atomic=True, create_dir=True, require_empty=False),
            n_saved=2,
            global_step_transform=lambda engine, _: engine.state.epoch,
        )
        trainer.add_event_handler(Events.EPOCH_COMPLETED(every=self.interval) | Events.COMPLETED, saver)


def check_checkpoint(path: str | Path) -> Path:
    """The path, if there is a file.

    Raises:
        InputError: there is none.
    """
    if not Path(path).is_file():
        raise InputError(path, "no such checkpoint", "give --resume the path of a checkpoint_<epoch>.pt")
    return Path(path)


def _restore(objects: Mapping[str, Any], path: Path) -> None:
    trainer, scheduler = objects["trainer"], objects["lr_scheduler"]
    max_epochs, epoch_length = trainer.state.max_epochs, trainer.state.epoch_length
    asked = {key: vars(scheduler)[key] for key in _ASKED if key in vars(scheduler)}
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        Checkpoint.load_objects(objects, state)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        remedy = "use a checkpoint of this configuration"
        raise InputError(path, f"cannot be resumed from ({reason})", remedy) from error
    if epoch_length not in (None, trainer.state.epoch_length):
        problem = f"is of a training with {trainer.state.epoch_length} steps an epoch, this one has {epoch_length}"
        raise InputError(path, problem, "resume with the same scans and --batch_size, or begin anew with --finetune")
    # The configuration may ask for more epochs than the first run did, or for another learning rate.
    trainer.state.max_epochs = max_epochs
    vars(scheduler).update(asked)
    if isinstance(scheduler, LambdaLR):  # of others the rate follows from the one before
        for group, rate in zip(objects["optimizer"].param_groups, scheduler.get_lr(), strict=True):
            group["lr"] = rate
    if trainer.state.epoch >= max_epochs or objects["progress"].stopped:  # ignite would begin with the first epoch
        problem = f"is of a training that has ended, with epoch {trainer.state.epoch}"
        remedy = "give a higher --max_epochs (--max_steps, --patience), or an earlier checkpoint"
        raise InputError(path, problem, remedy)


class WeightsSaver:
    """Write the weights of a network in half precision when training has ended.

    Args:
        network: usually the averaged one.
        path: file to write; its hash goes beside it.
        rank: only rank 0 writes.
        before: done first, on every rank; may put the best weights back.
        scaling: of the images, written beside the weights, which it belongs to.
    """

    def __init__(
        self,
        network: nn.Module,
        path: str,
        rank: int = 0,
        before: Callable[[], None] | None = None,
        scaling: Scaling | None = None,
    ) -> None:
        self.network, self.path, self.rank, self.before, self.scaling = network, path, rank, before, scaling

    def attach(self, trainer: Engine) -> None:
        """Write at the end of the run."""
        if self.before is not None:
            trainer.add_event_handler(Events.COMPLETED, self.before)
        if self.rank == 0:
            trainer.add_event_handler(Events.COMPLETED, self._write)

    def _write(self) -> None:
        save_weights(self.network, self.path)
        if self.scaling is not None:
            self.scaling.save(Path(self.path).parent)


class TensorBoardDenoising:
    """After each validation, write images to TensorBoard: input, then state and estimate at a few levels, in rows.

    Args:
        log_dir: TensorBoard's folder.
        batch: makes the states.
        network: the one being validated.
        levels: to show.
        cases: columns of the grid.
    """

    def __init__(
        self,
        log_dir: str,
        batch: DenoisingBatch,
        network: Callable[..., Tensor],
        levels: Sequence[int] = (100, 300, 600),
        cases: int = 8,
    ) -> None:
        self.log_dir, self.batch, self.network = log_dir, batch, network
        self.levels, self.cases = levels, cases

    def attach(self, evaluator: Engine) -> None:
        """Draw the last batch of each validation, on the first process."""
        if idist.get_rank() == 0:
            evaluator.add_event_handler(Events.COMPLETED, self._draw)

    def _draw(self, evaluator: Engine) -> None:
        batch: Any = evaluator.state.batch  # decollated by now
        shown = shown_cases(batch, self.cases, evaluator.state.device)
        grid = denoising_grid(self.batch, self.network, shown, levels_of(self.batch, self.levels))
        with SummaryWriter(self.log_dir) as writer:
            writer.add_image("denoising", grid, evaluator.state.epoch, dataformats="HW")
