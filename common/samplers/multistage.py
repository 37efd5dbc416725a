"""Estimating the image again and again, each time from an image whose suspicious regions are already replaced."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from common.diffusion import Generators, Noise, gaussian_noise
from common.networks import Denoiser
from common.samplers.estimate import single_step
from common.samplers.walk import Callback, Step

__all__ = ["multistage"]


def multistage(
    denoiser: Denoiser,
    x: Tensor,
    level: int,
    *,
    difference: Callable[[Tensor, Tensor], Tensor],
    max_stages: int = 5,
    tolerance: float = 0.01,
    smallest_region: int = 500,
    noise: Noise = gaussian_noise,
    generator: Generators = None,
    callback: Callback | None = None,
    **conditioning: Any,
) -> Tensor:
    """One-step estimates from an image that is mixed anew after each (Bi et al. 2025, Synomaly).

    A stage noises the mixed image x̃ (at first the input) to the level and estimates x̂_0 in one step. With the
    difference D of x and x̂_0, the next x̃ is D x̂_0 + (1 - D) x. A case ends when the number of voxels with D > 0 has
    changed by no more than ``tolerance`` of what it was (or of ``smallest_region``, whichever is larger) since the
    stage before; at first it counts as all voxels. A case that has ended is not evaluated again.

    Args:
        denoiser: estimates the image.
        x: image (B, C, …) in the model's range.
        level: to noise to.
        difference: ``(x, x̂_0) -> D`` (B, 1, …), zero where nothing is suspicious. The published D has the values of
            the difference itself, so the mixing is soft.
        max_stages: network evaluations a case at most.
        tolerance: relative change that ends a case.
        smallest_region: voxels that the change is at least compared to.
        noise: kind of noise, drawn anew in each stage.
        generator: source of randomness, one for all or one a case.
        callback: sees every stage, with the cases that are still at it.
        **conditioning: for the network, one value for all cases.

    Returns:
        x̂_0 (B, C, …) of each case's last stage.

    Raises:
        InputError: the level is not in the schedule.
    """
    mixed, estimate = x, x.clone()
    count = torch.full((x.shape[0],), x[0, 0].numel(), device=x.device)
    active = torch.arange(x.shape[0], device=x.device)
    for stage in range(max_stages):
        generators = [generator[i] for i in active.tolist()] if isinstance(generator, Sequence) else generator
        numbered = None if callback is None else _renumber(callback, stage)
        prediction = single_step(
            denoiser, mixed[active], level, noise=noise, generator=generators, callback=numbered, **conditioning
        )
        estimate[active] = prediction.x0
        suspicious = difference(x[active], prediction.x0)
        mixed = mixed.index_copy(0, active, suspicious * prediction.x0 + (1 - suspicious) * x[active])
        found = (suspicious > 0).flatten(1).sum(dim=1)
        change = (count[active] - found).abs() / count[active].clamp(min=smallest_region)
        count[active] = found
        active = active[change > tolerance]
        if not len(active):
            break
    return estimate


def _renumber(callback: Callback, stage: int) -> Callback:
    def numbered(step: Step) -> None:
        callback(step._replace(i=stage))

    return numbered
