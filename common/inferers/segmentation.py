"""Segmentations drawn by diffusion, several for one image: their mean, and where they differ (Wolleb et al. 2022)."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from common.diffusion import Clip, PredictionType, StaticClip, Variance, child_generators, to_model_range
from common.inferers.base import AnomalyInferer, Restored
from common.networks import Denoiser
from common.options import whole_number
from common.samplers import Callback, ddpm_sample

__all__ = ["SegmentationEnsembleInferer"]

_CLIP = StaticClip(0, 1)


class SegmentationEnsembleInferer(AnomalyInferer):
    """Draw masks from noise under the image; the map is their mean, a probability; ``uncertainty`` their variance.

    A supervised method: it draws no healthy image, and ``pseudo_healthy`` is the input itself. The network is called
    with the mask's state and ``image``, as ``ImageConcatenatedUNet``.

    Args:
        num_samples: masks an image.
        num_inference_steps: levels of the way down; ``None`` visits every level.
        spacing: of the visited levels.
        variance: of the steps.
        prediction_type: what the network outputs.
        clip: of x̂_0, the mask, which is 0 or 1.
        **kwargs: of ``AnomalyInferer``; the map is the method's own.

    Raises:
        InputError: no sample, or more steps than levels, at construction.
    """

    uncertainty_of: ClassVar[Literal["anomaly_map"]] = "anomaly_map"

    def __init__(
        self,
        *,
        num_samples: int = 5,
        num_inference_steps: int | None = None,
        spacing: str = "trailing",
        variance: Variance = "fixed_small",
        prediction_type: PredictionType = "epsilon",
        clip: Clip | None = _CLIP,
        **kwargs: Any,
    ) -> None:
        super().__init__(prediction_type=prediction_type, clip=clip, **kwargs)
        self.timesteps = self.levels(self.schedule.steps - 1, num_inference_steps, spacing)
        self.num_samples, self.variance = whole_number("num_samples", num_samples, 1), variance

    def restore(
        self, image: Tensor, denoiser: Denoiser, generator: list[torch.Generator], callback: Callback
    ) -> Restored:
        """Draw all masks of all images at once."""
        count = self.num_samples
        generators = [child for each in generator for child in child_generators(each, count)]
        condition = to_model_range(image).repeat_interleave(count, dim=0)
        start = self.noise(condition[:, :1], generators)
        samples = ddpm_sample(
            denoiser,
            start,
            self.timesteps,
            variance=self.variance,
            noise=self.noise,
            generator=generators,
            callback=callback,
            image=condition,
        )
        masks = samples.clamp(0, 1).unflatten(0, (-1, count))
        return Restored(masks.mean(dim=1), image, masks.var(dim=1, correction=0))
