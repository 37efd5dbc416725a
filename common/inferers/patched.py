"""Patched diffusion: every part of an image is estimated once, noised, from its clean rest (Behrendt et al. 2023)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from common.diffusion import to_image_range, to_model_range
from common.inferers.base import AnomalyInferer, Restored
from common.networks import Denoiser
from common.samplers import Callback, Overlap, patch_boxes, patched_estimate

__all__ = ["PatchedInferer"]


class PatchedInferer(AnomalyInferer):
    """One network evaluation a box, without any sampling loop; the map compares the stitched estimate with the image.

    Args:
        noise_level: level to noise a box to.
        patch_size: of the boxes in pixels, one number for all axes or one each; the published one is half an image.
        overlap: of the boxes (``common.samplers.patch_boxes``).
        **kwargs: of ``AnomalyInferer``; by default the network outputs the image.
    """

    def __init__(
        self,
        *,
        noise_level: int = 499,
        patch_size: int | Sequence[int] = 48,
        overlap: Overlap = "none",
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"prediction_type": "sample", **kwargs})
        self.timesteps = self.levels(noise_level, 1, "trailing")
        self.noise_level, self.patch_size, self.overlap = noise_level, patch_size, overlap
        sides = patch_size if isinstance(patch_size, Sequence) else [patch_size]
        patch_boxes([max(sides, default=0)] * self.spatial_dims, patch_size, overlap)  # refuses what fits no image
        self._divisor = self._boxes = 1

    @property
    def evaluations_per_slice(self) -> int:
        """The number of boxes of the latest input; 1 before there was any."""
        return self._boxes

    def __call__(
        self, inputs: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any
    ) -> dict[str, Tensor] | Tensor:
        """Run the method: see ``AnomalyInferer``."""
        self._divisor = getattr(network, "size_divisor", 1)
        return super().__call__(inputs, network, *args, **kwargs)

    def _check(self, inputs: Tensor, brain_mask: Tensor | None, seeds: Sequence[int] | None) -> None:
        super()._check(inputs, brain_mask, seeds)
        padded = [-(-size // self._divisor) * self._divisor for size in inputs.shape[2 : 2 + self.spatial_dims]]
        self._boxes = len(patch_boxes(padded, self.patch_size, self.overlap))

    def restore(
        self, image: Tensor, denoiser: Denoiser, generator: list[torch.Generator], callback: Callback
    ) -> Restored:
        """Estimate box by box and compare."""
        x0 = patched_estimate(
            denoiser,
            to_model_range(image),
            self.noise_level,
            patch_boxes(image.shape[2:], self.patch_size, self.overlap),
            noise=self.noise,
            generator=generator,
            callback=callback,
        )
        return Restored(None, to_image_range(x0))
