"""Restoration of an image that is taken for a degraded one, at several severities (Naval Marimont et al. 2024)."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from common.diffusion import to_image_range, to_model_range
from common.inferers.base import AnomalyInferer, Restored
from common.networks import Denoiser
from common.options import choice
from common.samplers import Callback, cold_sample, estimate_states

__all__ = ["RestorationInferer"]


class RestorationInferer(AnomalyInferer):
    """Estimate the healthy image from the input itself; nothing is noised.

    Args:
        num_inference_steps: severities to assume.
        spacing: of the visited levels.
        restoration: ``mean`` estimates the healthy image once for each level, from the unchanged input, and maps the
            difference to the mean of the estimates; ``maps`` takes the mean of the maps instead, as published;
            ``steps`` goes from the highest level down, as cold diffusion does, and maps the difference to what it
            arrives at.
        **kwargs: of ``AnomalyInferer``; by default the network outputs the image, and ``noise`` has no effect.
    """

    def __init__(
        self,
        *,
        num_inference_steps: int = 4,
        spacing: str = "trailing",
        restoration: Literal["mean", "maps", "steps"] = "mean",
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"prediction_type": "sample", **kwargs})
        choice("restoration", restoration, ("mean", "maps", "steps"))
        self.timesteps = self.levels(self.schedule.steps - 1, num_inference_steps, spacing)
        self.restoration = restoration

    def restore(
        self, image: Tensor, denoiser: Denoiser, generator: list[torch.Generator], callback: Callback
    ) -> Restored:
        """Restore and compare."""
        x = to_model_range(image)
        if self.restoration == "steps":
            return Restored(None, to_image_range(cold_sample(denoiser, x, self.timesteps, callback=callback)))
        levels = self.timesteps[:-1]
        states = x.expand(len(levels), *x.shape)
        estimates = to_image_range(estimate_states(denoiser, states, levels, callback=callback).x0)
        if self.restoration == "mean":
            return Restored(None, estimates.mean(dim=0))
        build = self.build_map(denoiser)
        maps = torch.stack([build(image, healthy) for healthy in estimates])
        return Restored(maps.mean(dim=0), estimates.mean(dim=0))
