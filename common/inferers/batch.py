"""What an evaluator hands to an inferer."""

from __future__ import annotations

from typing import Any

import torch
from monai.engines import PrepareBatch
from torch import Tensor

from common.diffusion import case_seed

__all__ = ["InferenceBatch"]


class InferenceBatch(PrepareBatch):
    """Pass image, brain mask, and a seed for each case, made of the run's seed and the case's id.

    Args:
        seed: of the run.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def __call__(
        self,
        batchdata: dict[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, None, tuple[()], dict[str, Any]]:
        """Return images (B, C, …), no label, and the keywords of ``AnomalyInferer``."""
        image = batchdata["image"].to(device, non_blocking=non_blocking)
        mask = batchdata["brain_mask"].to(device, non_blocking=non_blocking)
        seeds = [case_seed(self.seed, case) for case in batchdata["case"]]
        return image, None, (), {"brain_mask": mask, "seeds": seeds}
