"""One network evaluation instead of a loop: the image that explains a noised state."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from common.diffusion import Generators, Noise, Prediction, gaussian_noise
from common.networks import Denoiser
from common.samplers.walk import Callback, Step

__all__ = ["single_step"]


def single_step(
    denoiser: Denoiser,
    x: Tensor,
    level: int,
    *,
    noise: Noise = gaussian_noise,
    generator: Generators = None,
    region: Tensor | None = None,
    callback: Callback | None = None,
    **conditioning: Any,
) -> Prediction:
    """Noise an image to a level and estimate it again at once.

    Args:
        denoiser: estimates image and noise.
        x: image (B, C, …) in the model's range.
        level: to noise to.
        noise: kind of noise.
        generator: source of randomness, one for all or one a case.
        region: (B, 1, …), 1 where to noise; the rest stays clean. ``None`` noises everything.
        callback: sees the step.
        **conditioning: for the network.

    Returns:
        x̂_0 and ε̂ (B, C, …).

    Raises:
        InputError: the level is not in the schedule.
    """
    x_t = denoiser.schedule.add_noise(x, noise(x, generator), level)
    if region is not None:
        x_t = torch.where(region > 0, x_t, x)
    prediction = denoiser(x_t, level, **conditioning)
    if callback is not None:
        callback(Step(0, level, x_t, prediction.x0, prediction.eps))
    return prediction
