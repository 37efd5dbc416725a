"""Synomaly: multi-stage restoration by a model that learnt to take synthetic anomalies away (Bi et al. 2025)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from skimage.morphology import remove_small_objects
from torch import Tensor

from common.anomaly import opencv_blur
from common.diffusion import CLEAN, to_image_range, to_model_range
from common.inferers.base import AnomalyInferer, Restored
from common.networks import Denoiser
from common.options import odd_number, whole_number
from common.samplers import Callback, multistage

__all__ = ["SynomalyInferer", "blurred_difference", "suspicious_regions"]

_BLURRED = "blurred"  # the map that is the method's own


def blurred_difference(x: Tensor, healthy: Tensor, blur: int) -> Tensor:
    """Absolute difference of two blurred images (B, C, …), mean over channels: (B, 1, …)."""
    return opencv_blur(x - healthy, blur).abs().mean(dim=1, keepdim=True)


def suspicious_regions(difference: Tensor, threshold: float, min_size: int) -> Tensor:
    """Keep the values of a difference (B, 1, …) at or above a threshold, in components of at least ``min_size`` voxels.

    Voxels are of one component if they share a face. Everything else becomes 0.
    """
    kept = torch.where(difference < threshold, 0, difference)
    masks = [
        remove_small_objects(each, max_size=min_size - 1, connectivity=1) for each in (kept[:, 0] > 0).cpu().numpy()
    ]
    return kept * torch.from_numpy(np.stack(masks))[:, None].to(kept)


class SynomalyInferer(AnomalyInferer):
    """One-step estimates of the healthy image, in stages: what differed is replaced before the next noising.

    What is thresholded and cleaned of small components only drives the stages; the map is raw.

    Args:
        noise_level: level to noise to.
        max_stages: network evaluations a slice at most; 1 is a single estimate.
        tolerance: relative change of the number of suspicious pixels that ends the stages.
        blur: odd side of the Gaussian kernel on the difference, in pixels; 1 does not blur.
        difference_threshold: what counts as suspicious, in the model's range of [-1, 1] as in the paper.
        min_component: least pixels of a suspicious component.
        anomaly_map: of the input and the last estimate; ``blurred`` is the paper's, the absolute difference of both
            images blurred, in [0, 1]; or one that every method has.
        **kwargs: of ``AnomalyInferer``.

    Raises:
        InputError: a level that the schedule does not have, no stage, or an even blur.
    """

    def __init__(
        self,
        *,
        noise_level: int = 250,
        max_stages: int = 5,
        tolerance: float = 0.01,
        blur: int = 5,
        difference_threshold: float = 0.2,
        min_component: int = 30,
        anomaly_map: str = _BLURRED,
        **kwargs: Any,
    ) -> None:
        super().__init__(anomaly_map="residual" if anomaly_map == _BLURRED else anomaly_map, **kwargs)
        self.blurred = anomaly_map == _BLURRED
        self.timesteps = [*self.check_levels([noise_level]), CLEAN]
        self.max_stages, self.tolerance = whole_number("max_stages", max_stages, 1), tolerance
        self.blur, self.difference_threshold = odd_number("blur", blur), difference_threshold
        self.min_component = min_component

    @property
    def evaluations_per_slice(self) -> int:
        """One a stage, if all of them are needed."""
        return self.max_stages

    def suspicious(self, x: Tensor, healthy: Tensor) -> Tensor:
        """What drives the stages: (B, 1, …), in the units of ``x`` and zero where the two images agree."""
        difference = blurred_difference(x, healthy, self.blur)
        return suspicious_regions(difference, self.difference_threshold, self.min_component)

    def restore(
        self, image: Tensor, denoiser: Denoiser, generator: list[torch.Generator], callback: Callback
    ) -> Restored:
        """Estimate in stages, and compare with the last estimate."""
        x0 = multistage(
            denoiser,
            to_model_range(image),
            self.timesteps[0],
            difference=self.suspicious,
            max_stages=self.max_stages,
            tolerance=self.tolerance,
            noise=self.noise,
            generator=generator,
            callback=callback,
        )
        healthy = to_image_range(x0)
        return Restored(blurred_difference(image, healthy, self.blur) if self.blurred else None, healthy)
