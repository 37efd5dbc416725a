"""Mahalanobis map over many reconstructions of a conditioned denoiser (Behrendt et al. 2024)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from common.anomaly import body_region, check_mahalanobis, gaussian_smooth, mahalanobis
from common.inferers.base import Restored
from common.inferers.conditioned import ConditionedInferer
from common.networks import Denoiser
from common.options import number, whole_number
from common.samplers import Callback

__all__ = ["MahalanobisInferer"]


class MahalanobisInferer(ConditionedInferer):
    """Estimate the image several times from one level; the map says how unusual it is among these estimates.

    The Mahalanobis distance of each pixel, smoothed, times the dissimilarity of image and mean estimate. Both
    are taken inside the body (``body_region``).

    Args:
        noise_level: to noise to.
        num_reconstructions: estimates, each with noise of its own and one evaluation.
        ridge: on the diagonal of the covariance.
        smoothing: σ in pixels of the Gaussian on the distance.
        anomaly_map: what the distance is multiplied by (``common.anomaly.get_map``).
        **kwargs: of ``ConditionedInferer``.

    Raises:
        InputError: fewer than two reconstructions, or a ridge that is not above 0, at construction.
    """

    def __init__(
        self,
        *,
        noise_level: int = 499,
        num_reconstructions: int = 10,
        ridge: float = 0.01,
        smoothing: float = 1.0,
        anomaly_map: str = "ssim",
        **kwargs: Any,
    ) -> None:
        levels = [noise_level] * whole_number("num_reconstructions", num_reconstructions, 1)
        super().__init__(noise_levels=levels, anomaly_map=anomaly_map, **kwargs)
        check_mahalanobis(num_reconstructions, ridge)
        self.ridge, self.smoothing = ridge, number("smoothing", smoothing, 0)

    def restore(
        self, image: Tensor, denoiser: Denoiser, generator: list[torch.Generator], callback: Callback
    ) -> Restored:
        """Estimate, and measure the distance from the estimates."""
        reconstructions = self.reconstruct(image, denoiser, generator, callback)
        healthy = reconstructions.mean(dim=0)
        distance = mahalanobis(image, reconstructions, body_region(image), ridge=self.ridge)
        smooth = gaussian_smooth(distance, self.smoothing)
        return Restored(self.build_map(denoiser)(image, healthy) * smooth, healthy)
