"""From a batch of healthy images to what a denoiser is trained on."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Self

import torch
from monai.engines import PrepareBatch
from monai.inferers import Inferer
from torch import Tensor

from common.diffusion import (
    Noise,
    NoiseSchedule,
    PredictionType,
    case_generators,
    case_seed,
    get_noise,
    predict,
    to_model_range,
    training_target,
)
from common.errors import InputError
from common.networks import autocast

__all__ = ["DenoisingBatch", "DenoisingInferer", "TrainingPair"]


class TrainingPair(NamedTuple):
    """What the network sees, what it shall say, and its conditioning.

    ``region`` (B, 1, …) holds weights of the loss, 1 where it counts; ``None`` counts every voxel.
    """

    state: Tensor
    target: Tensor
    region: Tensor | None = None
    conditioning: dict[str, Tensor] | None = None


class DenoisingBatch(PrepareBatch):
    """Noise images to random levels; the target is what the prediction type asks for (Ho et al. 2020, alg. 1).

    A method that trains otherwise overrides ``pair``.

    Args:
        schedule: of the process.
        prediction_type: what the network outputs.
        noise: kind of noise, or its name.
        levels: lowest and highest level (inclusive) to train on; ``None`` takes all.
        validation_seed: with a number, levels and noise depend on it and the case id alone, so that losses compare
            between epochs and runs.

    Raises:
        InputError: levels that the schedule does not have.
    """

    def __init__(
        self,
        schedule: NoiseSchedule,
        prediction_type: PredictionType = "epsilon",
        noise: str | Noise = "gaussian",
        levels: Sequence[int] | None = None,
        validation_seed: int | None = None,
    ) -> None:
        self.schedule, self.prediction_type, self.noise = schedule, prediction_type, get_noise(noise)
        self.low, self.high = _range(schedule, levels)
        self.validation_seed = validation_seed

    def for_validation(self, seed: int = 0) -> Self:
        """A copy whose draws depend on ``seed`` and the case id alone."""
        fixed = copy.copy(self)
        fixed.validation_seed = seed
        return fixed

    def __call__(
        self,
        batchdata: dict[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor, tuple[()], dict[str, Tensor]]:
        """Return states (B, C, …), targets of the same shape, and keywords: levels (B,) as ``timesteps``, and more.

        Where only a region counts, targets are 0 outside, and ``DenoisingInferer`` sets the output to 0 there.
        """
        x0, truth = self.read(batchdata, device)
        cases = len(batchdata["image"])
        if self.validation_seed is None:
            seeds = torch.randint(2**62, (cases,)).tolist()
        else:
            seeds = [case_seed(self.validation_seed, case) for case in batchdata["case"]]
        generators = case_generators(seeds * (x0.shape[0] // cases))  # a twin is noised as its case
        levels = [int(torch.randint(self.low, self.high + 1, (), generator=each)) for each in generators]
        t = torch.tensor(levels, device=x0.device)
        state, target, region, conditioning = self.pair(x0, t, generators, **truth)
        keywords = {"timesteps": t, **(conditioning or {})}
        if region is not None:
            target, keywords["region"] = target * region, region
        return state, target, (), keywords

    def read(self, batchdata: dict[str, Any], device: torch.device | str | None) -> tuple[Tensor, dict[str, Tensor]]:
        """Images (B, C, …) in [-1, 1] of a batch, and the truth that comes with them, for ``pair``."""
        return to_model_range(torch.as_tensor(batchdata["image"]).to(device)), {}

    def pair(self, x0: Tensor, t: Tensor, generators: Sequence[torch.Generator], **truth: Tensor) -> TrainingPair:
        """State and target of images ``x0`` (B, C, …) in [-1, 1] at levels ``t`` (B,), one generator a case."""
        noise = self.noise(x0, generators)
        target = training_target(x0, noise, self.schedule, t, self.prediction_type)
        return TrainingPair(self.schedule.add_noise(x0, noise, t), target)

    def show(self, network: Callable[..., Tensor], batchdata: dict[str, Any], level: int) -> tuple[Tensor, Tensor]:
        """For pictures: states (B, C, …) of a batch at a level, and what the network takes for the image."""
        x0, truth = self.read(batchdata, None)
        t = torch.full((x0.shape[0],), level, device=x0.device)
        pair = self.pair(x0, t, case_generators(range(x0.shape[0])), **truth)
        keywords = {"timesteps": t, **(pair.conditioning or {})}
        output = network(pair.state, **keywords).float()[:, : pair.state.shape[1]]  # without a learned variance
        return pair.state, predict(output, pair.state, self.schedule, t, self.prediction_type).x0


def _range(schedule: NoiseSchedule, levels: Sequence[int] | None) -> tuple[int, int]:
    """Lowest and highest level to train on."""
    last = schedule.steps - 1
    if levels is None:
        return 0, last
    low, high = levels if isinstance(levels, list | tuple) and len(levels) == 2 else (last, -1)
    if not (isinstance(low, int) and isinstance(high, int) and 0 <= low <= high <= last):
        raise InputError(f"levels {levels}", f"are no range from 0 to {last}", "give [lowest, highest]")
    return low, high


class DenoisingInferer(Inferer):
    """Call the network on a prepared batch, in bfloat16 where the device can; the output is float32.

    Args:
        amp: use mixed precision.
    """

    def __init__(self, amp: bool = True) -> None:
        super().__init__()
        self.amp = amp

    def __call__(self, inputs: Tensor, network: Any, *args: Any, region: Tensor | None = None, **kwargs: Any) -> Tensor:
        """Return ``network(inputs, **kwargs)``, times ``region`` (B, 1, …) if the loss counts only there."""
        with autocast(inputs.device, self.amp):
            output = network(inputs, *args, **kwargs).float()
        return output if region is None else output * region
