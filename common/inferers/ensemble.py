"""Many estimates of one step instead of one chain of many: their mean, and the residual in units of their spread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from common.anomaly import (
    HealthyStatistics,
    Polarity,
    body_region,
    check_mahalanobis,
    mahalanobis,
    normalised_residual,
    resolve_statistics,
)
from common.diffusion import to_image_range, to_model_range
from common.inferers.base import AnomalyInferer, Restored
from common.networks import Denoiser
from common.options import choice, number, whole_number
from common.samplers import Callback, estimates, has_pairs

__all__ = ["EnsembleInferer"]


class EnsembleInferer(AnomalyInferer):
    """Noise the image to several levels, several times each, estimate it from all states at once, and compare.

    For any denoiser, whatever it predicts and whatever noise it knows. ``uncertainty`` is the estimates' variance.

    Args:
        noise_levels: to noise to.
        num_samples: states a level, with noise of their own.
        normalise: what the map is. ``spread``: the residual in units of the estimates' standard deviation and of what
            healthy scans show (``normalised_residual``); ``residual``: the plain one, of ``anomaly_map``;
            ``mahalanobis``: the distance under the estimates' full covariance (Behrendt et al. 2024).
        offset: of the spread, in units of the image.
        statistics: of healthy scans, the path of a file of them, or "none".
        polarity: of anomalies, for ``spread``: ``both``, ``bright`` or ``dark``.
        tv_weight: for ``spread``, see ``normalised_residual``.
        ridge: on the diagonal of the covariance, for ``mahalanobis``.
        **kwargs: of ``AnomalyInferer``.

    Raises:
        InputError: no level, no sample, unknown option, or a file of statistics that cannot be used.
    """

    uncertainty_of: ClassVar[Literal["pseudo_healthy"]] = "pseudo_healthy"

    def __init__(
        self,
        *,
        noise_levels: Sequence[int] = (200, 300, 400),
        num_samples: int = 3,
        normalise: Literal["spread", "residual", "mahalanobis"] = "spread",
        offset: float = 0.1,
        statistics: HealthyStatistics | str | None = None,
        polarity: Polarity = "both",
        tv_weight: float = 0.0,
        ridge: float = 0.01,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        choice("normalise", normalise, ("spread", "residual", "mahalanobis"))
        samples = range(whole_number("num_samples", num_samples, 1))
        self.timesteps = [level for level in self.check_levels(noise_levels) for _ in samples]
        if normalise == "mahalanobis":
            check_mahalanobis(len(self.timesteps), ridge)
        self.normalise, self.offset, self.ridge = normalise, number("offset", offset), number("ridge", ridge)
        self.statistics = resolve_statistics(statistics)
        self.polarity: Polarity = polarity
        self.tv_weight = number("tv_weight", tv_weight, 0)
        blank = torch.zeros(1, 1, 1, 1)
        normalised_residual(blank, blank[None], offset=offset, polarity=polarity)  # refuses what it cannot use

    @property
    def evaluations_per_slice(self) -> int:
        """One a state."""
        return len(self.timesteps)

    @property
    def pairs_estimates(self) -> bool:
        """Where a level has several samples."""
        return has_pairs(self.timesteps)

    def restore(
        self, image: Tensor, denoiser: Denoiser, generator: list[torch.Generator], callback: Callback
    ) -> Restored:
        """Estimate from all states, and compare."""
        found = to_image_range(
            estimates(
                denoiser,
                to_model_range(image),
                self.timesteps,
                noise=self.noise,
                generator=generator,
                antithetic=self.antithetic,
                callback=callback,
            ).x0
        )
        found = torch.where((image > 0).any(dim=1, keepdim=True), found, image)
        healthy = found.mean(dim=0)
        anomaly_map = None
        if self.normalise == "spread":
            anomaly_map = normalised_residual(
                image,
                found,
                offset=self.offset,
                statistics=self.statistics,
                polarity=self.polarity,
                tv_weight=self.tv_weight,
            )
        elif self.normalise == "mahalanobis":
            anomaly_map = mahalanobis(image, found, body_region(image), ridge=self.ridge)
        variance = found.var(dim=0, correction=0).mean(dim=1, keepdim=True)
        return Restored(anomaly_map, healthy, variance)
