"""THOR: temporal anomaly maps, and harmonisation with the input along the way (Bercea et al. 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from common.anomaly import dilate, gaussian_smooth, get_map, grey_closing, harmonic_mean
from common.diffusion import nearest_levels, to_image_range, to_model_range
from common.errors import InputError
from common.inferers.base import AnomalyInferer, Restored, check_perceptual
from common.networks import Denoiser
from common.options import number, odd_number, whole_number
from common.samplers import HARMONISE_LEVELS, MAP_LEVELS, Callback, thor_sample

__all__ = ["ThorInferer", "region_mask"]


def region_mask(temporal_map: Tensor, size: int = 13) -> Tensor:
    """Soft mask of the regions of a map (B, 1, …): half the map over its maximum, half its closed, dilated version."""
    maximum = temporal_map.flatten(1).amax(dim=1).reshape(-1, *(1,) * (temporal_map.ndim - 1))
    scaled = (temporal_map / (maximum + 1e-8)).clamp(0, 1)
    return ((dilate(grey_closing(scaled, size), size) + scaled) / 2).clamp(0, 1)


def _levels(name: str, levels: Sequence[int]) -> tuple[int, ...]:
    if not isinstance(levels, list | tuple):
        raise InputError(f"{name} {levels!r}", "are no list of levels", "give a list, e.g. [300,150,50]")
    return tuple(whole_number(name, level, 0) for level in levels)


class ThorInferer(AnomalyInferer):
    """Partial diffusion that is harmonised with the input; the map is the harmonic mean over the levels of the way.

    The temporal map of a level is the difference to x̂_0 times its smoothed perceptual distance.

    Args:
        noise_level: level to noise to.
        num_inference_steps: network evaluations on the way back; ``None`` visits every level.
        spacing: of the visited levels.
        harmonise_levels: where to harmonise; each at the nearest visited level.
        map_levels: where to take a temporal map besides; likewise.
        difference: the other factor of the temporal map; ``residual_bright`` or ``residual_dark`` where the polarity
            of anomalies is known.
        perceptual: the perceptual distance, ``feature`` or ``lpips``.
        smoothing: σ in pixels of the Gaussian on the perceptual distance.
        region_size: odd side in pixels of the closing and dilation of region masks.
        **kwargs: of ``AnomalyInferer``; the map is the method's own.

    Raises:
        InputError: unknown distance or difference, levels outside the schedule, none that has a map, or an even size,
            at construction.
    """

    def __init__(
        self,
        *,
        noise_level: int = 350,
        num_inference_steps: int | None = None,
        spacing: str = "linspace",
        harmonise_levels: Sequence[int] = HARMONISE_LEVELS,
        map_levels: Sequence[int] = MAP_LEVELS,
        difference: str = "residual",
        perceptual: str = "feature",
        smoothing: float = 2.0,
        region_size: int = 13,
        **kwargs: Any,
    ) -> None:
        check_perceptual(perceptual)
        super().__init__(anomaly_map=perceptual, **kwargs)
        self.difference = get_map(difference)
        self.timesteps = self.levels(noise_level, num_inference_steps, spacing)
        self.harmonise_levels = _levels("harmonise_levels", harmonise_levels)
        self.map_levels = _levels("map_levels", map_levels)
        if not nearest_levels([*self.harmonise_levels, *self.map_levels], self.timesteps):
            problem = "is below all harmonise_levels and map_levels: there would be no map"
            raise InputError(f"noise_level {noise_level}", problem, "raise it, or give lower levels")
        self.smoothing = number("smoothing", smoothing, 0)
        self.region_size = odd_number("region_size", region_size)

    def restore(
        self, image: Tensor, denoiser: Denoiser, generator: list[torch.Generator], callback: Callback
    ) -> Restored:
        """Sample with harmonisation, and take the harmonic mean of the temporal maps."""
        perceptual = self.build_map(denoiser)

        def temporal_map(x0: Tensor) -> Tensor:
            healthy = to_image_range(x0)
            distance = gaussian_smooth(perceptual(image, healthy), self.smoothing).clamp(0, 1)
            return self.difference(image, healthy) * distance

        sample = thor_sample(
            denoiser,
            to_model_range(image),
            self.timesteps,
            temporal_map=temporal_map,
            region_mask=lambda each: region_mask(each, self.region_size),
            harmonise_levels=self.harmonise_levels,
            map_levels=self.map_levels,
            noise=self.noise,
            generator=generator,
            callback=callback,
        )
        return Restored(harmonic_mean(list(sample.maps.values())), to_image_range(sample.x))
