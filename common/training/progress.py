"""What a training has come to: its curves, its best network, when to stop, and a page that shows all of it."""

from __future__ import annotations

import copy
import html
import io
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.data import list_data_collate
from torch import Tensor, nn

from common.diffusion import to_image_range
from common.errors import InputError
from common.page import picture, plain, write_page
from common.training.batch import DenoisingBatch

__all__ = ["Progress", "TrainingReport", "denoising_grid", "levels_of", "shown_cases"]


class Progress:
    """Ignite handler with a state: losses by epoch, and with ``patience`` the best network and an early end.

    The state goes into checkpoints, so that a resumed training stops where an unbroken one would.

    Args:
        network: the averaged one, which is validated.
        optimizer: asked for the learning rate.
        validator: whose key metric counts.
        patience: validations without a better loss before training ends; 0 never ends it, and the last network is
            the result, not the best.

    Raises:
        InputError: patience without a validator.
    """

    def __init__(self, network: nn.Module, optimizer: Any, validator: Any = None, patience: int = 0) -> None:
        if patience and validator is None:
            raise InputError(f"patience {patience}", "needs a validation", "give a validator, or patience 0")
        self.network, self.optimizer, self.validator, self.patience = network, optimizer, validator, patience
        self.training: list[list[float]] = []
        self.validation: list[list[float]] = []
        self.best: list[float] = []
        self.since = 0
        self.weights: dict[str, Tensor] = {}
        self.losses: list[float] = []

    def attach(self, trainer: Engine) -> None:
        """Collect from now on; after each epoch's validation, decide."""
        trainer.add_event_handler(Events.EPOCH_STARTED, self.losses.clear)
        trainer.add_event_handler(Events.ITERATION_COMPLETED, self._add)
        trainer.add_event_handler(Events.EPOCH_COMPLETED, self._epoch)

    def state_dict(self) -> dict[str, Any]:
        """Curves as rows (epoch, loss, learning rate) and (epoch, loss), and what early stopping knows."""
        state = {"training": self.training, "validation": self.validation, "best": self.best, "since": self.since}
        return {**copy.deepcopy(state), "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what ``state_dict`` gave."""
        self.training, self.validation = list(state["training"]), list(state["validation"])
        self.best, self.since, self.weights = list(state["best"]), int(state["since"]), dict(state["weights"])

    @property
    def stopped(self) -> bool:
        """Whether patience is at its end."""
        return 0 < self.patience <= self.since

    def restore_best(self) -> None:
        """Make the averaged network the best one that was seen, if that was asked for."""
        if self.weights:
            self.network.load_state_dict(self.weights)

    def _add(self, trainer: Engine) -> None:
        output: Any = trainer.state.output
        self.losses.extend(float(item["loss"]) for item in output)

    def _epoch(self, trainer: Engine) -> None:
        epoch, rate = trainer.state.epoch, float(self.optimizer.param_groups[0]["lr"])
        self.training.append([epoch, math.fsum(self.losses) / max(len(self.losses), 1), rate])
        if self.validator is None:
            return
        state = self.validator.state
        if state.epoch != epoch or state.key_metric_name not in state.metrics:
            return  # no validation in this epoch
        loss = float(state.metrics[state.key_metric_name])
        self.validation.append([epoch, loss])
        if not self.best or self.validator.metric_cmp_fn(loss, self.best[1]):
            self.best, self.since = [epoch, loss], 0
            if self.patience:
                self.weights = {key: value.detach().clone() for key, value in self.network.state_dict().items()}
        else:
            self.since += 1
        if self.stopped:
            trainer.terminate()


class TrainingReport:
    """Ignite handler: ``training_report.html`` with curves and samples at the end of a training.

    Args:
        progress: of the training.
        batch: makes the states that the network is shown; None shows none.
        path: of the page.
        rank: only the first process writes.
        levels: of the states to show.
        cases: columns of the samples.
    """

    def __init__(
        self,
        progress: Progress,
        batch: DenoisingBatch | None,
        path: str | Path,
        rank: int = 0,
        levels: Sequence[int] = (100, 300, 600),
        cases: int = 6,
    ) -> None:
        self.progress, self.batch, self.path, self.rank = progress, batch, Path(path), rank
        self.levels, self.cases = levels, cases
        self.shown: dict[str, Tensor] = {}

    def attach(self, trainer: Engine) -> None:
        """Keep a few validation images, and write when training has ended."""
        if self.rank == 0 and self.progress.validator is not None:
            self.progress.validator.add_event_handler(Events.COMPLETED, self._keep)
        if self.rank == 0:
            trainer.add_event_handler(Events.COMPLETED, self._write)

    def _keep(self, validator: Engine) -> None:
        batch: Any = validator.state.batch  # decollated by now
        self.shown = shown_cases(batch, self.cases, validator.state.device)

    def _write(self, trainer: Engine) -> None:
        progress = self.progress
        best: tuple[Any, Any] = (progress.best[0], progress.best[1]) if progress.best else (None, None)
        end = f"patience of {progress.patience} validations" if progress.stopped else "all epochs done"
        result = f"epoch {best[0]}, the best" if progress.weights else f"epoch {trainer.state.epoch}, the last"
        rows = {
            "Steps": trainer.state.iteration,
            "Epochs": trainer.state.epoch,
            "Ended by": end,
            "Best validation loss": best[1],
            "Best epoch": best[0],
            "Weights written": result,
        }
        cells = "".join(
            f'<tr><th scope="row">{html.escape(name)}</th><td class="number">{plain(value)}</td></tr>'
            for name, value in rows.items()
        )
        parts = [f'<section><h2>Numbers</h2><div class="scroll"><table><tbody>{cells}</tbody></table></div></section>']
        curves = picture(_curves(progress), "Loss on training and validation scans by epoch")
        caption = "Training: mean of each epoch, of the network in training. Validation: of the averaged network."
        parts.append(
            f"<section><h2>Curves</h2><figure>{curves}<figcaption>{caption}</figcaption></figure>"
            "<p>Validation that rises while training falls is over-fitting. Both flat from the start: the "
            "preprocessing, the brain mask or the learning rate deserve a look.</p></section>"
        )
        if self.shown and self.batch is not None:
            levels = levels_of(self.batch, self.levels)
            grid = denoising_grid(self.batch, progress.network, self.shown, levels)
            samples = picture(_png(grid), "Rows of images, corrupted images and what the network makes of them")
            parts.append(
                f"<section><h2>Samples</h2><figure>{samples}<figcaption>Validation scans in the first row; below, in "
                f"turn, corrupted (levels {', '.join(map(str, levels))}, where the method has levels) and as the "
                "network restores them.</figcaption></figure></section>"
            )
        write_page(self.path, "Training report", parts)


def shown_cases(
    items: Sequence[Mapping[str, Any]], count: int, device: torch.device | str | None = None
) -> dict[str, Tensor]:
    """The first cases of a decollated batch as one batch again, without their names."""
    kept = [{key: torch.as_tensor(value) for key, value in item.items() if key != "case"} for item in items[:count]]
    return {key: value.to(device) for key, value in list_data_collate(kept).items()}


def levels_of(batch: DenoisingBatch, levels: Sequence[int]) -> list[int]:
    """The levels, in order; in place of those that the schedule of a batch does not have its last one."""
    return sorted({min(level, batch.schedule.steps - 1) for level in levels})


@torch.no_grad()
def denoising_grid(
    batch: DenoisingBatch, network: Callable[..., Tensor], shown: dict[str, Tensor], levels: Sequence[int]
) -> Tensor:
    """Images of a batch, then state and estimate at each level, in rows: one picture (H, W) in [0, 1]."""
    rows = [shown["image"]]
    for level in levels:
        pictures = batch.show(network, shown, level)
        rows += [to_image_range(each[: len(rows[0])]) for each in pictures]  # without twins
    grid = torch.cat([torch.cat(list(row[:, 0].mT), dim=1) for row in rows])  # mT: pictures have x across
    return grid.clamp(0, 1).cpu()


def _curves(progress: Progress) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(8, 3.2), dpi=150, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    axis.plot([row[0] for row in progress.training], [row[1] for row in progress.training], "#999999", label="training")
    seen = [row[0] for row in progress.validation]
    axis.plot(seen, [row[1] for row in progress.validation], "o-", color="#0072b2", markersize=3, label="validation")
    if progress.best:
        axis.axvline(progress.best[0], color="#d55e00", linewidth=1, linestyle=":", label="best")
    axis.set(xlabel="epoch", ylabel="loss", yscale="log")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.legend(frameon=False)
    return _saved(figure)


def _png(grid: Tensor) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray((255 * grid).to(torch.uint8).numpy()).save(buffer, "PNG")
    return buffer.getvalue()


def _saved(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
