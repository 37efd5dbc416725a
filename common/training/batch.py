"""From a batch of healthy images to what a denoiser is trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from monai.engines import PrepareBatch
from monai.inferers import Inferer
from torch import Tensor

from common.diffusion import (
    Generators,
    NoiseSchedule,
    PredictionType,
    case_generators,
    case_seed,
    get_noise,
    to_model_range,
    training_target,
)
from common.networks import autocast

__all__ = ["DenoisingBatch", "DenoisingInferer"]


class DenoisingBatch(PrepareBatch):
    """Noise images to random levels; the target is what the prediction type asks for (Ho et al. 2020, alg. 1).

    Args:
        schedule: of the process.
        prediction_type: what the network outputs.
        noise: a key of ``common.diffusion.NOISES``.
        levels: lowest and highest level (inclusive) to train on; ``None`` takes all.
        validation_seed: with a number, levels and noise depend on it and the case id alone, so that losses compare
            between epochs and runs.
    """

    def __init__(
        self,
        schedule: NoiseSchedule,
        prediction_type: PredictionType = "epsilon",
        noise: str = "gaussian",
        levels: Sequence[int] | None = None,
        validation_seed: int | None = None,
    ) -> None:
        self.schedule, self.prediction_type, self.noise = schedule, prediction_type, get_noise(noise)
        self.low, self.high = (0, schedule.steps - 1) if levels is None else (int(levels[0]), int(levels[1]))
        self.validation_seed = validation_seed

    def __call__(
        self,
        batchdata: dict[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor, tuple[()], dict[str, Tensor]]:
        """Return states (B, C, …), targets of the same shape, and the levels (B,) as keyword ``timesteps``."""
        x0 = to_model_range(torch.as_tensor(batchdata["image"]).to(device, non_blocking=non_blocking))
        generators: Generators = None
        if self.validation_seed is None:
            t = torch.randint(self.low, self.high + 1, (x0.shape[0],), device=x0.device)
        else:
            seeds = [case_seed(self.validation_seed, case) for case in batchdata["case"]]
            generators = case_generators(seeds)
            t = torch.tensor([self.low + seed % (self.high + 1 - self.low) for seed in seeds], device=x0.device)
        noise = self.noise(x0, generators)
        target = training_target(x0, noise, self.schedule, t, self.prediction_type)
        return self.schedule.add_noise(x0, noise, t), target, (), {"timesteps": t}


class DenoisingInferer(Inferer):
    """Call the network on a prepared batch, in bfloat16 where the device can; the output is float32.

    Args:
        amp: use mixed precision.
    """

    def __init__(self, amp: bool = True) -> None:
        super().__init__()
        self.amp = amp

    def __call__(self, inputs: Tensor, network: Any, *args: Any, **kwargs: Any) -> Tensor:
        """Return ``network(inputs, **kwargs)``."""
        with autocast(inputs.device, self.amp):
            return network(inputs, *args, **kwargs).float()
