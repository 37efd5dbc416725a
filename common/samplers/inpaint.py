"""Filling a region in by diffusion while the rest of the image is known (Lugmayr et al. 2022, RePaint)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from common.diffusion import CLEAN, Generators, Noise, Prediction, Variance, ddpm_step, forward_step, gaussian_noise
from common.errors import InputError
from common.networks import Denoiser
from common.samplers.walk import Callback, Guidance, check_falling, walk

__all__ = ["inpaint", "resampling_levels"]


def resampling_levels(timesteps: Sequence[int], resample_steps: int) -> list[int]:
    """A path that goes each step of ``timesteps`` down ``resample_steps`` times, and back up in between.

    The step to ``CLEAN`` is gone once: it has no noise to resample.

    Raises:
        InputError: ``resample_steps`` below 1.
    """
    if resample_steps < 1:
        raise InputError(f"resample_steps {resample_steps}", "leaves no step", "use 1 or more")
    path = [timesteps[0]]
    for t, t_next in pairwise(timesteps):
        path += [t_next] if t_next == CLEAN else [t_next, t] * (resample_steps - 1) + [t_next]
    return path


def inpaint(
    denoiser: Denoiser,
    x: Tensor,
    timesteps: Sequence[int],
    *,
    known: Tensor,
    mask: Tensor,
    resample_steps: int = 5,
    guidance: Guidance | None = None,
    variance: Variance = "fixed_small",
    noise: Noise = gaussian_noise,
    generator: Generators = None,
    callback: Callback | None = None,
    **conditioning: Any,
) -> Tensor:
    """Sample inside ``mask``; outside, the state at every level is ``known`` noised to it.

    Args:
        denoiser: estimates image and noise.
        x: state (B, C, …) at ``timesteps[0]``.
        timesteps: falling levels.
        known: image (B, C, …) in the model's range.
        mask: (B, 1, …), true where the image is to be drawn.
        resample_steps: times that each step is gone, so that inside and outside come to fit.
        guidance: changes each prediction.
        variance: of the steps.
        noise: kind of noise.
        generator: source of randomness, one for all or one a case.
        callback: sees every network evaluation.
        **conditioning: for the network.

    Returns:
        The image; outside the mask it equals ``known`` bit for bit.

    Raises:
        InputError: levels that do not fall, or no resampling step.
    """
    check_falling(timesteps, "inpaint")
    inside = mask.bool()

    def draw() -> Tensor:
        return noise(x, generator)

    def advance(x: Tensor, prediction: Prediction, t: int, t_next: int) -> Tensor:
        unknown = ddpm_step(x, prediction, denoiser.schedule, t, t_next, noise=draw, variance=variance)
        context = known if t_next == CLEAN else denoiser.schedule.add_noise(known, draw(), t_next)
        return torch.where(inside, unknown, context)

    def ascend(x: Tensor, t: int, t_next: int) -> Tensor:
        return forward_step(x, draw(), denoiser.schedule, t, t_next)

    path = resampling_levels(timesteps, resample_steps)
    x = walk(denoiser, x, path, advance, guidance=guidance, callback=callback, ascend=ascend, **conditioning)
    return torch.where(inside, x, known)
