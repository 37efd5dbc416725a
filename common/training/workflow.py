"""What the trainers of all bundles are made of, so that a configuration shows what is special about its method."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from ignite.engine import Engine
from ignite.handlers import EMAHandler
from ignite.handlers.tqdm_logger import ProgressBar
from monai.data import DataLoader, DistributedSampler
from monai.handlers import LrScheduleHandler, StatsHandler, TensorBoardStatsHandler, from_engine
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import Dataset

from common.data import Scaling
from common.files import check_writable
from common.training.batch import DenoisingBatch
from common.training.handlers import (
    Checkpoints,
    FiniteLoss,
    ReproducibleEpochs,
    TensorBoardDenoising,
    WeightsSaver,
    check_checkpoint,
)
from common.training.progress import Progress, TrainingReport

__all__ = ["TrainingRun", "ValidationRun", "begin", "training_loader"]


def begin(batch: DenoisingBatch, optimizer: Optimizer, output_dir: str, resume: str = "", rank: int = 0) -> None:
    """Stop for what a training cannot begin with, before its scans are read, which takes minutes.

    The two objects are not looked at: that a config could make them means that levels, weights to begin with, frozen
    parts and the device exist.

    Args:
        batch: of the training.
        optimizer: of its network.
        output_dir: to write to; made if it is not there.
        resume: a checkpoint to go on from; empty starts anew.
        rank: of the process; only the first writes.

    Raises:
        InputError: nothing can be written into the output folder, or there is no such checkpoint.
    """
    if rank == 0:
        check_writable(output_dir)
    if resume:
        check_checkpoint(resume)


def training_loader(
    dataset: Dataset, batch_size: int, num_workers: int = 0, seed: int = 0, rank: int = 0, world_size: int = 1
) -> DataLoader:
    """Batches in an order that depends on seed and epoch alone, shared out among the processes."""
    sampler = DistributedSampler(dataset, num_replicas=world_size, rank=rank, seed=seed, shuffle=True)
    return DataLoader(dataset, batch_size=batch_size, num_workers=num_workers, sampler=sampler)


class TrainingRun:
    """Ignite handler of a trainer: learning rate, averaging, logs, checkpoints to resume from, weights at the end.

    Args:
        network: in training.
        ema: its average, which is validated and shipped.
        optimizer: of the network.
        lr_scheduler: advanced after each iteration.
        dataset: of the training, seeded at each epoch; the scaling of its images is written beside the weights.
        output_dir: TensorBoard's logs, ``checkpoints/``, ``model.pt`` and ``training_report.html`` go there.
        batch: makes the states that the report shows; without it there are none.
        validator: whose key metric is the loss on held-out scans; without it there is no patience.
        save_interval: epochs between checkpoints.
        resume: a checkpoint to go on from.
        patience: validations without a better loss before training ends with the best network (see ``Progress``).
        seed: of the run.
        rank: of the process; only the first logs and writes.
    """

    def __init__(
        self,
        *,
        network: nn.Module,
        ema: EMAHandler,
        optimizer: Any,
        lr_scheduler: Any,
        dataset: Dataset,
        output_dir: str,
        batch: DenoisingBatch | None = None,
        validator: Engine | None = None,
        save_interval: int = 1,
        resume: str = "",
        patience: int = 0,
        seed: int = 0,
        rank: int = 0,
    ) -> None:
        # A CPU takes up to a hundred times as long for gradients below 1e-38, of which `dae` has many.
        torch.set_flush_denormal(True)
        loss = from_engine(["loss"], first=True)
        progress = Progress(ema.ema_model, optimizer, validator, patience)
        objects = {"network": network, "ema": ema.ema_model, "optimizer": optimizer, "lr_scheduler": lr_scheduler}
        objects["progress"] = progress
        scaling: Scaling | None = getattr(getattr(dataset, "transform", None), "scaling", None)
        logs = [
            TensorBoardStatsHandler(log_dir=output_dir, tag_name="train_loss", output_transform=loss),
            ProgressBar(persist=True),
        ]
        self.handlers: list[Any] = [
            LrScheduleHandler(lr_scheduler, epoch_level=False, print_lr=False),
            FiniteLoss(),
            StatsHandler(iteration_log=False, tag_name="train_loss", output_transform=loss),
            *(logs if rank == 0 else []),
            ema,
            ReproducibleEpochs(seed, dataset, rank),
            progress,
            Checkpoints(objects, f"{output_dir}/checkpoints", save_interval, resume),
            WeightsSaver(ema.ema_model, f"{output_dir}/model.pt", rank, progress.restore_best, scaling),
            TrainingReport(progress, batch, f"{output_dir}/training_report.html", rank),
        ]

    def attach(self, trainer: Engine) -> None:
        """Attach all of them, in this order."""
        for handler in self.handlers:
            handler.attach(trainer)


class ValidationRun:
    """Ignite handler of a validation: logs, and pictures of what the network makes of a few images.

    Args:
        batch: makes the states that the network is shown.
        network: the averaged one.
        output_dir: of TensorBoard.
        levels: to show.
        rank: of the process; only the first logs.
    """

    def __init__(
        self,
        *,
        batch: DenoisingBatch,
        network: Callable[..., Tensor],
        output_dir: str,
        levels: Sequence[int] = (100, 300, 600),
        rank: int = 0,
    ) -> None:
        self.handlers: list[Any] = [StatsHandler(iteration_log=False)]
        if rank == 0:
            self.handlers.append(TensorBoardStatsHandler(log_dir=output_dir, iteration_log=False))
            self.handlers.append(TensorBoardDenoising(output_dir, batch, network, levels))

    def attach(self, evaluator: Engine) -> None:
        """Attach all of them."""
        for handler in self.handlers:
            handler.attach(evaluator)
