"""AutoDDPM: mask what a first reconstruction changed, stitch, and re-sample inside the mask (Bercea et al. 2023)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from common.anomaly import dilate, residual
from common.diffusion import to_image_range, to_model_range
from common.errors import InputError
from common.inferers.base import AnomalyInferer, Restored, check_perceptual
from common.networks import Denoiser
from common.options import number, whole_number
from common.quantile import quantile
from common.samplers import Callback, inpaint, partial_diffusion

__all__ = ["AutoDDPMInferer"]


class AutoDDPMInferer(AnomalyInferer):
    """Reconstruct from a high noise level, mask the likely anomalies, and draw those anew from a low one.

    The coarse map is the residual, divided by its own 95th percentile and clipped to 1, times the perceptual
    distance. Where it exceeds the mask threshold (dilated by a pixel) the reconstruction is noised and re-sampled
    against the untouched surroundings. The final map compares the result with the input.

    Args:
        noise_level: of the first reconstruction.
        num_inference_steps: network evaluations of the first reconstruction; ``None`` visits every level.
        inpaint_level: that the stitched image is noised to.
        inpaint_steps: visited levels of the re-sampling; ``None`` visits every level.
        resample_steps: times that each of them is gone.
        spacing: of the visited levels.
        mask_threshold: on the coarse map; ``None`` takes ``mask_percentile`` of each slice instead, which always
            masks a part of it, healthy or not.
        mask_percentile: see ``mask_threshold``.
        perceptual: the perceptual distance, ``feature`` or ``lpips``.
        anomaly_map: the final map; by default the residual times the same perceptual distance.
        **kwargs: of ``AnomalyInferer``.

    Raises:
        InputError: unknown distance, a percentile that is none, or levels outside the schedule, at construction.
    """

    def __init__(
        self,
        *,
        noise_level: int = 200,
        num_inference_steps: int | None = None,
        inpaint_level: int = 50,
        inpaint_steps: int | None = None,
        resample_steps: int = 5,
        spacing: str = "linspace",
        mask_threshold: float | None = None,
        mask_percentile: float = 95.0,
        perceptual: str = "feature",
        anomaly_map: str | None = None,
        **kwargs: Any,
    ) -> None:
        check_perceptual(perceptual)
        super().__init__(anomaly_map=anomaly_map or f"residual*{perceptual}", **kwargs)
        if number("mask_percentile", mask_percentile, 0) > 100:
            raise InputError(f"mask_percentile {mask_percentile}", "is no percentile", "use 0 to 100")
        self.timesteps = self.levels(noise_level, num_inference_steps, spacing)
        self.inpaint_timesteps = self.levels(inpaint_level, inpaint_steps, spacing)
        self.resample_steps, self.perceptual = whole_number("resample_steps", resample_steps, 1), perceptual
        self.mask_threshold = None if mask_threshold is None else number("mask_threshold", mask_threshold)
        self.mask_percentile = mask_percentile

    @property
    def evaluations_per_slice(self) -> int:
        """Of both stages; the last of the re-sampling steps, to the image, is gone once."""
        return super().evaluations_per_slice + (len(self.inpaint_timesteps) - 2) * self.resample_steps + 1

    def coarse_map(self, image: Tensor, healthy: Tensor, denoiser: Denoiser) -> Tensor:
        """Residual over its 95th percentile, at most 1, times the perceptual distance: (B, 1, …)."""
        difference = residual(image, healthy)
        scale = quantile(difference, 0.95).clamp(min=torch.finfo(difference.dtype).tiny)
        return (difference / scale).clamp(max=1) * self.build_map(denoiser, self.perceptual)(image, healthy)

    def restore(
        self, image: Tensor, denoiser: Denoiser, generator: list[torch.Generator], callback: Callback
    ) -> Restored:
        """Reconstruct, mask, re-sample, compare."""
        shared = {"noise": self.noise, "generator": generator, "callback": callback}
        x = to_model_range(image)
        coarse = to_image_range(partial_diffusion(denoiser, x, self.timesteps, **shared))  # type: ignore[arg-type]
        score = self.coarse_map(image, coarse, denoiser)
        limit = quantile(score, self.mask_percentile / 100) if self.mask_threshold is None else self.mask_threshold
        mask = dilate((score > limit).float(), 3)
        start = self.schedule.add_noise(to_model_range(coarse), self.noise(x, generator), self.inpaint_timesteps[0])
        drawn = inpaint(
            denoiser,
            start,
            self.inpaint_timesteps,
            known=x,
            mask=mask,
            resample_steps=self.resample_steps,
            **shared,  # type: ignore[arg-type]
        )
        return Restored(None, to_image_range(drawn))
