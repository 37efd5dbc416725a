"""Network evaluations without a loop: the image that explains a noised state, of one level or of several at once."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from common.diffusion import Generators, Noise, Prediction, gaussian_noise
from common.networks import Denoiser
from common.samplers.walk import Callback, Step

__all__ = ["estimate_states", "estimates", "has_pairs", "single_step"]


def single_step(
    denoiser: Denoiser,
    x: Tensor,
    level: int,
    *,
    noise: Noise = gaussian_noise,
    generator: Generators = None,
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
        callback: sees the step.
        **conditioning: for the network.

    Returns:
        x̂_0 and ε̂ (B, C, …).

    Raises:
        InputError: the level is not in the schedule.
    """
    x_t = denoiser.schedule.add_noise(x, noise(x, generator), level)
    prediction = denoiser(x_t, level, **conditioning)
    if callback is not None:
        callback(Step(0, level, x_t, prediction.x0, prediction.eps))
    return prediction


def estimates(
    denoiser: Denoiser,
    x: Tensor,
    levels: Sequence[int],
    *,
    noise: Noise = gaussian_noise,
    generator: Generators = None,
    antithetic: bool = False,
    callback: Callback | None = None,
    **conditioning: Tensor,
) -> Prediction:
    """Noise an image to each of several levels, with fresh noise, and estimate it again from each at once.

    Args:
        denoiser: estimates image and noise.
        x: image (B, C, …) in the model's range.
        levels: to noise to, K of them; one that comes twice is another sample.
        noise: kind of noise.
        generator: source of randomness, one for all or one a case; a case draws its levels in their order.
        antithetic: where a level comes twice in a row, the second state has the noise of the first with the other sign
            (``run_generator``).
        callback: sees K steps, each of all cases.
        **conditioning: for the network, tensors (B, …).

    Returns:
        x̂_0 and ε̂ (K, B, C, …).

    Raises:
        InputError: a level is not in the schedule.
    """
    states: list[Tensor] = []
    drawn: Tensor | None = None  # by the level before, if it has no twin yet
    for i, level in enumerate(levels):
        twin = -drawn if drawn is not None and levels[i - 1] == level else None
        fresh = noise(x, generator) if twin is None else twin
        drawn = fresh if antithetic and twin is None else None
        states.append(denoiser.schedule.add_noise(x, fresh, level))
    return estimate_states(denoiser, torch.stack(states), levels, callback=callback, **conditioning)


def has_pairs(levels: Sequence[int]) -> bool:
    """Whether a level comes twice in a row, so that ``estimates`` can make antithetic pairs."""
    return any(level == following for level, following in pairwise(levels))


def estimate_states(
    denoiser: Denoiser,
    states: Tensor,
    levels: Sequence[int],
    *,
    callback: Callback | None = None,
    **conditioning: Tensor,
) -> Prediction:
    """Estimate several states of every case at once.

    Args:
        denoiser: estimates image and noise.
        states: (K, B, C, …).
        levels: of the K states, without ``CLEAN``.
        callback: sees K steps, each of all cases.
        **conditioning: for the network, tensors (B, …).

    Returns:
        x̂_0 and ε̂ (K, B, C, …).

    Raises:
        InputError: a level is not in the schedule.
    """
    count, cases = states.shape[:2]
    for level in levels:
        denoiser.schedule.alpha_bar(level)
    x, t = states.flatten(0, 1), torch.tensor(list(levels), device=states.device).repeat_interleave(cases)
    repeated = {key: value.repeat(count, *(1,) * (value.ndim - 1)) for key, value in conditioning.items()}
    found = denoiser(x, t, **repeated)
    x0, eps = (each.unflatten(0, (count, cases)) for each in (found.x0, found.eps))
    if callback is not None:
        for i, level in enumerate(levels):
            callback(Step(i, level, states[i], x0[i], eps[i]))
    return Prediction(x0, eps)
