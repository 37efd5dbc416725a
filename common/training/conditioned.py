"""Training of a denoiser that is conditioned on the image itself."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from common.training.batch import DenoisingBatch, TrainingPair

__all__ = ["ConditionedBatch"]


class ConditionedBatch(DenoisingBatch):
    """Noised images, with the clean ones as ``condition``, augmented alike (Behrendt et al. 2023, arXiv 2312.04215).

    Args as ``DenoisingBatch``.
    """

    def pair(self, x0: Tensor, t: Tensor, generators: Sequence[torch.Generator], **truth: Tensor) -> TrainingPair:
        """State and target of images ``x0`` (B, C, …) in [-1, 1] at levels ``t`` (B,), one generator a case."""
        return super().pair(x0, t, generators)._replace(conditioning={"condition": x0})
