"""cDDPM: estimates from several noise levels by a denoiser that is conditioned on the image (Behrendt et al. 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from common.diffusion import to_image_range, to_model_range
from common.errors import InputError
from common.inferers.base import AnomalyInferer, Restored
from common.networks import Denoiser, autocast
from common.samplers import Callback, estimates, has_pairs

__all__ = ["ConditionedInferer"]


class ConditionedInferer(AnomalyInferer):
    """Noise the image to each of a few levels, estimate it again at once, and map what differs from the mean estimate.

    The network sees the code of the whole image besides, which is made once a run. It needs ``encode(image)`` and to be
    called with ``condition``, as ``ConditionedUNet``.

    Args:
        noise_levels: levels to noise to; one evaluation each.
        **kwargs: of ``AnomalyInferer``; by default the network outputs the image, and noise is simplex.

    Raises:
        InputError: no levels, or levels outside the schedule, at construction.
    """

    def __init__(self, *, noise_levels: Sequence[int] = (249, 499, 749), **kwargs: Any) -> None:
        super().__init__(**{"prediction_type": "sample", "noise": "simplex", **kwargs})
        self.timesteps = self.check_levels(noise_levels)

    @property
    def evaluations_per_slice(self) -> int:
        """One for each level."""
        return len(self.timesteps)

    @property
    def pairs_estimates(self) -> bool:
        """Where a level comes twice in a row."""
        return has_pairs(self.timesteps)

    def reconstruct(
        self, image: Tensor, denoiser: Denoiser, generator: list[torch.Generator], callback: Callback
    ) -> Tensor:
        """The estimates (n, B, C, …) in [0, 1] of images (B, C, …) in [0, 1], one for each level.

        Raises:
            InputError: the network makes no codes.
        """
        encode = getattr(denoiser.network, "encode", None)
        if encode is None:
            raise InputError("network", "has no encode() to be conditioned with", "use ConditionedUNet")
        x = to_model_range(image)
        with autocast(x.device, denoiser.amp):
            code = encode(x).float()
        options: dict[str, Any] = {"noise": self.noise, "generator": generator, "antithetic": self.antithetic}
        return to_image_range(estimates(denoiser, x, self.timesteps, callback=callback, condition=code, **options).x0)

    def restore(
        self, image: Tensor, denoiser: Denoiser, generator: list[torch.Generator], callback: Callback
    ) -> Restored:
        """Average the estimates and compare."""
        healthy = self.reconstruct(image, denoiser, generator, callback).mean(dim=0)
        return Restored(None, healthy)
