"""Partial diffusion and reconstruction: the plain DDPM baseline (Ho et al. 2020; Wyatt et al. 2022)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from common.diffusion import Noise, Variance, get_noise, to_image_range, to_model_range
from common.inferers.base import AnomalyInferer, Restored
from common.networks import Denoiser
from common.samplers import Callback, Method, check_sampler, partial_diffusion

__all__ = ["PartialDiffusionInferer"]


class PartialDiffusionInferer(AnomalyInferer):
    """Noise the image to a level, sample back, and map what changed.

    Args:
        noise_level: level to noise to.
        num_inference_steps: network evaluations on the way back; ``None`` visits every level.
        spacing: of the visited levels.
        sampler: ``ddpm``, ``ddim``, or the second-order ``dpm++``.
        variance: of DDPM steps.
        reverse_noise: kind of noise on the way back, or its name; ``None`` takes ``noise``.
        **kwargs: of ``AnomalyInferer``.
    """

    def __init__(
        self,
        *,
        noise_level: int = 300,
        num_inference_steps: int | None = None,
        spacing: str = "linspace",
        sampler: Method = "ddpm",
        variance: Variance = "fixed_small",
        reverse_noise: str | Noise | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.timesteps = self.levels(noise_level, num_inference_steps, spacing)
        check_sampler(sampler)
        self.method: Method = sampler
        self.reverse_noise = None if reverse_noise is None else get_noise(reverse_noise)
        self.options = {"variance": variance} if sampler == "ddpm" else {}

    def restore(
        self, image: Tensor, denoiser: Denoiser, generator: list[torch.Generator], callback: Callback
    ) -> Restored:
        """Reconstruct and compare."""
        x = partial_diffusion(
            denoiser,
            to_model_range(image),
            self.timesteps,
            method=self.method,
            noise=self.noise,
            reverse_noise=self.reverse_noise,
            generator=generator,
            callback=callback,
            **self.options,
        )
        return Restored(None, to_image_range(x))
