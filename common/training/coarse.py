"""Training a network to remove coarse noise (Kascenas et al. 2022)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from common.diffusion import CoarseNoise, NoiseSchedule
from common.training.batch import DenoisingBatch, TrainingPair

__all__ = ["CoarseNoiseBatch"]


class CoarseNoiseBatch(DenoisingBatch):
    """Add coarse noise to the foreground; the network returns the image, and the loss counts the foreground.

    Args:
        schedule: tells the levels of the network, which ignores them.
        std: of the noise, for images in [0, 1].
        resolution: side of the noise's grid.
        validation_seed: as of ``DenoisingBatch``.
    """

    def __init__(
        self, schedule: NoiseSchedule, std: float = 0.2, resolution: int = 16, validation_seed: int | None = None
    ) -> None:
        noise = CoarseNoise(resolution, 2 * std)  # the model's range is twice as wide
        super().__init__(schedule, "sample", noise, levels=(0, 0), validation_seed=validation_seed)

    def pair(self, x0: Tensor, t: Tensor, generators: Sequence[torch.Generator], **truth: Tensor) -> TrainingPair:
        """Noised images, the images ``x0`` (B, C, …) in [-1, 1], and their foreground, which is above -1."""
        foreground = (x0 > -1).any(dim=1, keepdim=True).to(x0.dtype)
        return TrainingPair(x0 + foreground * self.noise(x0, generators), x0, foreground)
