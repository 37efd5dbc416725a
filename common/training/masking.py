"""Masked image modelling: what an encoder is pre-trained on."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from common.diffusion import NoiseSchedule
from common.errors import InputError
from common.training.batch import DenoisingBatch, TrainingPair

__all__ = ["MaskedBatch"]


class MaskedBatch(DenoisingBatch):
    """Images with most of their patches masked; the target is the image, and only masked patches count.

    As in SparK (Tian et al. 2023): every case has the same number of masked patches. They become mid-grey, which is 0
    in the model's range. Nothing is noised, and levels say nothing.

    Args:
        schedule: not used, but what trainers share.
        patch_size: side of a patch in pixels; those at the far border may be smaller.
        mask_ratio: share of the patches that is masked, above 0 and at most 1.
        validation_seed: as in ``DenoisingBatch``.

    Raises:
        InputError: a ratio outside that range.
    """

    def __init__(
        self,
        schedule: NoiseSchedule,
        *,
        patch_size: int = 8,
        mask_ratio: float = 0.65,
        validation_seed: int | None = None,
    ) -> None:
        super().__init__(schedule, "sample", validation_seed=validation_seed)
        if not 0 < mask_ratio <= 1:
            raise InputError(f"mask_ratio {mask_ratio}", "masks nothing, or more than all", "use e.g. 0.65")
        self.patch_size, self.mask_ratio = patch_size, mask_ratio

    def pair(self, x0: Tensor, t: Tensor, generators: Sequence[torch.Generator], **truth: Tensor) -> TrainingPair:
        """Masked images, images, and what is masked, of images ``x0`` (B, C, …) in [-1, 1], one generator a case."""
        grid = [-(-size // self.patch_size) for size in x0.shape[2:]]
        masked = max(1, round(self.mask_ratio * prod(grid)))
        ranks = [torch.rand(prod(grid), generator=each, device=each.device).argsort().argsort() for each in generators]
        mask = (torch.stack(ranks) < masked).reshape(-1, 1, *grid)
        for axis, size in enumerate(x0.shape[2:], start=2):
            mask = mask.repeat_interleave(self.patch_size, dim=axis).narrow(axis, 0, size)
        region = mask.to(x0)
        return TrainingPair(x0 * (1 - region), x0, region)
