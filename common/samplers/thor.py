"""THOR: partial diffusion that is pulled back to the input wherever it looks healthy (Bercea et al. 2024)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from torch import Tensor

from common.diffusion import (
    Clip,
    Generators,
    Noise,
    Prediction,
    StaticClip,
    Variance,
    ddpm_step,
    gaussian_noise,
    nearest_levels,
)
from common.networks import Denoiser
from common.samplers.walk import Callback, Guidance, check_falling, walk

__all__ = ["HARMONISE_LEVELS", "MAP_LEVELS", "ThorSample", "thor_sample"]

HARMONISE_LEVELS = (300, 150, 50)
MAP_LEVELS = tuple(range(700, -1, -50))
_CLIP = StaticClip()


class ThorSample(NamedTuple):
    """Result of ``thor_sample``: the pseudo-healthy state, and the temporal maps and region masks by level."""

    x: Tensor
    maps: dict[int, Tensor]
    masks: dict[int, Tensor]


def thor_sample(
    denoiser: Denoiser,
    x: Tensor,
    timesteps: Sequence[int],
    *,
    temporal_map: Callable[[Tensor], Tensor],
    region_mask: Callable[[Tensor], Tensor],
    harmonise_levels: Sequence[int] = HARMONISE_LEVELS,
    map_levels: Sequence[int] = MAP_LEVELS,
    renoise_to: Literal["next", "current"] = "next",
    clip: Clip | None = _CLIP,
    guidance: Guidance | None = None,
    variance: Variance = "fixed_small",
    noise: Noise = gaussian_noise,
    generator: Generators = None,
    callback: Callback | None = None,
) -> ThorSample:
    """Sample back from a noised image; at some levels, replace what looks healthy by the input and noise it again.

    At a harmonisation level, with the map A_t of x̂_0 against the input and the soft mask M_t of its regions,
    x̄_0 = M_t x̂_0 + (1 - M_t) x is noised with the noise that was kept from the start.

    Args:
        denoiser: estimates image and noise.
        x: image (B, C, …) in the model's range.
        timesteps: falling levels, the first of them the noise level.
        temporal_map: ``x̂_0 -> A_t`` (B, 1, …) against the input.
        region_mask: ``A_t -> M_t`` (B, 1, …) in [0, 1].
        harmonise_levels: where to harmonise; each is served at the nearest visited level.
        map_levels: where to keep a map besides; likewise.
        renoise_to: the level that x̄_0 is noised to: the one that the next step starts from, or (as published) the
            one of x̂_0, a level too high.
        clip: keeps x̄_0 in the model's range.
        guidance: changes each prediction.
        variance: of the steps.
        noise: kind of noise.
        generator: source of randomness, one for all or one a case.
        callback: sees every step.

    Raises:
        InputError: levels that do not fall.
    """
    check_falling(timesteps, "thor_sample")
    harmonise = nearest_levels(harmonise_levels, timesteps)
    keep = nearest_levels(map_levels, timesteps) | harmonise
    maps: dict[int, Tensor] = {}
    masks: dict[int, Tensor] = {}
    kept_noise = noise(x, generator)

    def advance(x_t: Tensor, prediction: Prediction, t: int, t_next: int) -> Tensor:
        if t in keep:
            maps[t] = temporal_map(prediction.x0)
        if t not in harmonise:
            draw = lambda: noise(x, generator)  # noqa: E731
            return ddpm_step(x_t, prediction, denoiser.schedule, t, t_next, noise=draw, variance=variance)
        masks[t] = region_mask(maps[t])
        harmonised = masks[t] * prediction.x0 + (1 - masks[t]) * x
        if clip is not None:
            harmonised = clip(harmonised)
        return denoiser.schedule.add_noise(harmonised, kept_noise, t_next if renoise_to == "next" else t)

    x_start = denoiser.schedule.add_noise(x, kept_noise, timesteps[0])
    result = walk(denoiser, x_start, timesteps, advance, guidance=guidance, callback=callback)
    return ThorSample(result, maps, masks)
