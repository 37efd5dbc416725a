"""Training of patched denoisers: one box of an image is noised, and the loss counts there (Behrendt et al. 2023)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from common.diffusion import NoiseSchedule, PredictionType, training_target
from common.errors import InputError
from common.samplers import box_mask, patch_boxes
from common.training.batch import DenoisingBatch, TrainingPair

__all__ = ["PatchedBatch"]


class PatchedBatch(DenoisingBatch):
    """Noise one box of a regular grid, drawn for each case; everything else stays as it is.

    Args:
        schedule: of the process.
        prediction_type: what the network outputs.
        patch_size: of the boxes, one number for all axes or one each.
        corruption: ``(images, generators) -> images`` in [-1, 1], applied before the noise; the target stays the clean
            image (Iqbal et al. 2023). Validation goes without it.
        **kwargs: of ``DenoisingBatch``.

    Raises:
        InputError: a corruption for a network that does not predict the image.
    """

    def __init__(
        self,
        schedule: NoiseSchedule,
        prediction_type: PredictionType = "sample",
        *,
        patch_size: int | Sequence[int] = 48,
        corruption: Callable[[Tensor, Sequence[torch.Generator]], Tensor] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(schedule, prediction_type, **kwargs)
        if corruption is not None and prediction_type != "sample":
            problem = f"does not go with prediction type '{prediction_type}'"
            raise InputError("corruption", problem, "let the network predict the image: 'sample'")
        self.patch_size, self.corruption = patch_size, corruption

    def for_validation(self, seed: int = 0) -> Self:
        """A copy whose draws depend on ``seed`` and the case id alone, and which corrupts nothing."""
        fixed = super().for_validation(seed)
        fixed.corruption = None
        return fixed

    def pair(self, x0: Tensor, t: Tensor, generators: Sequence[torch.Generator], **truth: Tensor) -> TrainingPair:
        """State, target and region (the box) of images ``x0`` (B, C, …) in [-1, 1] at levels ``t`` (B,)."""
        boxes = [patch.box for patch in patch_boxes(x0.shape[2:], self.patch_size)]
        chosen = [boxes[int(torch.randint(len(boxes), (), generator=each))] for each in generators]
        region = box_mask(x0, chosen)
        source = x0 if self.corruption is None else self.corruption(x0, generators)
        noise = self.noise(x0, generators)
        state = torch.where(region > 0, self.schedule.add_noise(source, noise, t), source)
        return TrainingPair(state, training_target(x0, noise, self.schedule, t, self.prediction_type), region)
