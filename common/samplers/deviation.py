"""How far the reverse step of a model is from the true one, over many levels, without reconstructing anything."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from common.diffusion import Generators, Noise, gaussian_noise
from common.errors import InputError
from common.networks import Denoiser
from common.samplers.estimate import estimate_states
from common.samplers.walk import Callback

__all__ = ["ANDI_LEVELS", "Deviation", "reverse_deviation"]

ANDI_LEVELS = tuple(range(199, 74, -1))
_SMALLEST = 1e-7  # of |ε - ε̂|, about the resolution of single precision at 1


class Deviation(NamedTuple):
    """Result of ``reverse_deviation``: deviations (B, C, …), and the mean x̂_0 of all levels."""

    map: Tensor
    x0: Tensor


def reverse_deviation(
    denoiser: Denoiser,
    x: Tensor,
    timesteps: Sequence[int] = ANDI_LEVELS,
    *,
    noise: Noise = gaussian_noise,
    generator: Generators = None,
    callback: Callback | None = None,
    **conditioning: Tensor,
) -> Deviation:
    """Geometric mean over levels of the squared deviation of the reverse step (Frotscher et al. 2024, ANDi).

    At every level t the image is noised with fresh ε. The mean of the model's reverse step and the one of the true
    step differ by d_t = [β_t / √((1 - β_t)(1 - ᾱ_t))]² (ε - ε̂)², the square of a difference that is computed here in
    this closed form. Where ε̂ meets ε in single precision the difference counts as 1e-7, so that one level alone
    cannot make the mean zero.

    Args:
        denoiser: estimates the noise; without clipping, which would change ε̂.
        x: image (B, C, …) in the model's range.
        timesteps: levels in any order, each noised to from the image.
        noise: kind of noise.
        generator: source of randomness, one for all or one a case; draws follow ``timesteps``.
        callback: sees every level.
        **conditioning: for the network, tensors (B, …).

    Raises:
        InputError: no level, or one that is not in the schedule.
    """
    if not timesteps:
        raise InputError("timesteps of reverse_deviation", "are none", "give at least one level")
    schedule = denoiser.schedule
    drawn = torch.stack([noise(x, generator) for _ in timesteps])
    states = torch.stack([schedule.add_noise(x, e, t) for t, e in zip(timesteps, drawn, strict=True)])
    prediction = estimate_states(denoiser, states, timesteps, callback=callback, **conditioning)
    log_difference = (drawn - prediction.eps).abs().clamp(min=_SMALLEST).log().mean(dim=0)
    log_weight = sum(_log_weight(schedule.alpha_bar(t - 1), schedule.alpha_bar(t)) for t in timesteps) / len(timesteps)
    return Deviation(torch.exp(2 * (log_difference + log_weight)), prediction.x0.mean(dim=0))


def _log_weight(alpha_bar_below: float, alpha_bar: float) -> float:
    """Logarithm of β_t / √((1 - β_t)(1 - ᾱ_t)), by what ε - ε̂ is multiplied."""
    alpha = alpha_bar / alpha_bar_below
    return math.log(1 - alpha) - 0.5 * math.log(alpha * (1 - alpha_bar))
