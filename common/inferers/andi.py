"""ANDi: deviations of the reverse step, aggregated over levels (Frotscher et al. 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from common.diffusion import Clip, to_image_range, to_model_range
from common.errors import InputError
from common.inferers.base import AnomalyInferer, Restored
from common.networks import Denoiser
from common.options import choice, whole_number
from common.samplers import Callback, reverse_deviation

__all__ = ["ANDiInferer"]


class ANDiInferer(AnomalyInferer):
    """Noise the image to many levels, and see at each how far the model's reverse step is from the true one.

    The map is the geometric mean over the levels of the squared deviations, in (model range)² a step: numbers near
    1e-5. Nothing is reconstructed; ``pseudo_healthy`` is the mean over the levels of the image that the model sees in
    the noised one, which still shows much of an anomaly.

    Args:
        lower_level: lowest level.
        upper_level: the level above the highest one.
        num_inference_steps: levels, evenly spaced in between; ``None`` takes every one.
        channels: what a voxel of several channels has: their ``max`` or ``mean``.
        clip: by default none, as in the paper: clipping x̂_0 would change the predicted noise.
        **kwargs: of ``AnomalyInferer``; the map is the method's own.

    Raises:
        InputError: no level between the bounds, more steps than there are, or unknown ``channels``.
    """

    def __init__(
        self,
        *,
        lower_level: int = 75,
        upper_level: int = 200,
        num_inference_steps: int | None = None,
        channels: Literal["max", "mean"] = "max",
        clip: Clip | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(clip=clip, **kwargs)
        self.timesteps = self._between(lower_level, upper_level, num_inference_steps)
        choice("channels", channels, ("max", "mean"))
        self.channels = channels

    def _between(self, lower: int, upper: int, count: int | None) -> Sequence[int]:
        lower, upper = whole_number("lower_level", lower, 0), whole_number("upper_level", upper, 1)
        if not 0 <= lower < upper <= self.schedule.steps:
            raise InputError(f"levels from {lower} to {upper}", "are not in the schedule", "use 0 ≤ lower < upper ≤ T")
        count = upper - lower if count is None else whole_number("num_inference_steps", count, 1)
        if count > upper - lower:
            raise InputError(
                f"num_inference_steps {count}", f"does not fit {upper - lower} levels", f"use 1 to {upper - lower}"
            )
        return np.linspace(upper - 1, lower, count).round().astype(int).tolist()

    @property
    def evaluations_per_slice(self) -> int:
        """One a level."""
        return len(self.timesteps)

    def restore(
        self, image: Tensor, denoiser: Denoiser, generator: list[torch.Generator], callback: Callback
    ) -> Restored:
        """Aggregate the deviations over levels, then over channels."""
        deviation = reverse_deviation(
            denoiser,
            to_model_range(image),
            self.timesteps,
            noise=self.noise,
            generator=generator,
            callback=callback,
        )
        deviations = deviation.map
        joined = deviations.amax(dim=1, keepdim=True) if self.channels == "max" else deviations.mean(1, keepdim=True)
        return Restored(joined, to_image_range(deviation.x0))
