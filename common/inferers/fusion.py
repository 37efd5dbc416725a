"""Dif-fuse: what a classifier finds salient is drawn anew, the rest follows a deterministic chain (Fontanella 2024)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from common.anomaly import counterfactual_saliency, saliency_mask
from common.diffusion import Clip, Variance, to_image_range, to_model_range
from common.inferers.base import AnomalyInferer, Restored
from common.networks import Denoiser, ImageAutoencoder, NoisyClassifier
from common.options import number, odd_number, whole_number
from common.samplers import Callback, Solver, check_solver, fused_sample, invert

__all__ = ["FusionInferer"]


class FusionInferer(AnomalyInferer):
    """Find the salient region, encode the image, draw the region by DDPM and the rest by DDIM, and compare the two.

    The map is the difference between the fused image and the DDIM reconstruction, so that errors of the inversion,
    which both share, do not show.

    Args:
        classifier: of clean images, class 0 healthy; its weights are frozen.
        autoencoder: whose codes the saliency moves; its weights are frozen.
        noise_level: L, to encode to.
        num_inference_steps: levels on the way up, and again on the way down; ``None`` visits every level.
        spacing: of the visited levels.
        sampler: of the way up and of the deterministic chain down, ``ddim`` or the second-order ``dpm++``.
        variance: of the DDPM steps.
        saliency_steps: of ``counterfactual_saliency``.
        saliency_step_size: likewise.
        saliency_penalty: likewise.
        saliency_quantile: share of the brain that is not drawn anew.
        saliency_width: odd side in pixels of the square that widens the salient part.
        clip: of x̂_0; by default none, so that the inversion is one.
        **kwargs: of ``AnomalyInferer``.

    Raises:
        InputError: levels outside the schedule, or an even width, at construction.
    """

    def __init__(
        self,
        *,
        classifier: NoisyClassifier,
        autoencoder: ImageAutoencoder,
        noise_level: int = 500,
        num_inference_steps: int | None = None,
        spacing: str = "linspace",
        sampler: Solver = "ddim",
        variance: Variance = "fixed_large",
        saliency_steps: int = 20,
        saliency_step_size: float = 0.001,
        saliency_penalty: float = 100.0,
        saliency_quantile: float = 0.9,
        saliency_width: int = 5,
        clip: Clip | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(clip=clip, **kwargs)
        check_solver(sampler)
        self.method: Solver = sampler
        self.timesteps = self.levels(noise_level, num_inference_steps, spacing)
        self.classifier = classifier.eval().requires_grad_(False)
        self.autoencoder = autoencoder.eval().requires_grad_(False)
        self.variance: Variance = variance
        self.saliency_options = {
            "steps": whole_number("saliency_steps", saliency_steps, 1),
            "step_size": number("saliency_step_size", saliency_step_size, 0),
            "penalty": number("saliency_penalty", saliency_penalty, 0),
        }
        self.saliency_quantile = number("saliency_quantile", saliency_quantile, 0)
        self.saliency_width = odd_number("saliency_width", saliency_width)

    @property
    def evaluations_per_slice(self) -> int:
        """Steps up, and steps down, which evaluate both chains."""
        return 2 * (len(self.timesteps) - 1)

    def saliency(self, image: Tensor) -> Tensor:
        """Saliency (B, C, …) of images (B, C, …) in [0, 1]."""
        return counterfactual_saliency(
            to_model_range(image),
            self.autoencoder.encode,
            self.autoencoder.decode,
            self.classifier,
            **self.saliency_options,  # type: ignore[arg-type]
        )

    def restore_runs(
        self, image: Tensor, denoiser: Denoiser, generator: list[torch.Generator], callback: Callback
    ) -> Restored:
        """As ``AnomalyInferer.restore_runs``; runs differ in what is drawn, not in mask, code and reconstruction."""
        return self.restore(image, denoiser, generator, callback)

    def restore(
        self, image: Tensor, denoiser: Denoiser, generator: list[torch.Generator], callback: Callback
    ) -> Restored:
        """Mask, encode, decode both chains, and compare the mean over as many runs as there are generators."""
        region = (image > 0).any(dim=1, keepdim=True)
        mask = saliency_mask(
            self.saliency(image), quantile=self.saliency_quantile, width=self.saliency_width, region=region
        )
        rising = list(reversed(self.timesteps))
        code = invert(denoiser, to_model_range(image), rising, method=self.method, callback=callback)
        runs = len(generator) // len(image)
        sample = fused_sample(
            denoiser,
            code.repeat_interleave(runs, dim=0),
            self.timesteps,
            mask=mask.repeat_interleave(runs, dim=0),
            method=self.method,
            variance=self.variance,
            noise=self.noise,
            generator=generator,
            callback=callback,
        )
        both = (
            to_image_range(each).unflatten(0, (-1, runs)).mean(dim=1) for each in (sample.image, sample.reconstruction)
        )
        healthy, reconstruction = both
        return Restored(self.build_map(denoiser)(reconstruction, healthy), healthy)
