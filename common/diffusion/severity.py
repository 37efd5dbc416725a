"""Levels as severities, for processes that mix something into an image instead of noising it (cold diffusion).

There is one convention, in training and in restoration: a high level is a severe one. The severity of level t is
√ᾱ_{T-1-t} of the schedule, which rises from nearly 0 at level 0 to nearly 1 at level T - 1. The published code of
DISYRE steps down with this table, but trains with the reversed one, index T - 1 - t.
"""

from __future__ import annotations

import torch
from torch import Tensor

from common.diffusion.schedule import CLEAN, NoiseSchedule

__all__ = ["level_of_severity", "severity"]


def severity(schedule: NoiseSchedule, t: int) -> float:
    """Share of an image that is replaced at level ``t``, in [0, 1]; 0 at ``CLEAN``.

    Raises:
        InputError: the level is not in the schedule.
    """
    schedule.alpha_bar(t)
    return 0.0 if t == CLEAN else float(schedule.alpha_bar(schedule.steps - 1 - t) ** 0.5)


def level_of_severity(schedule: NoiseSchedule, severities: Tensor) -> Tensor:
    """The levels (B,) whose severities are nearest to those given (B,)."""
    table = schedule.alphas_cumprod.to(severities.device).sqrt().flip(0)
    return torch.argmin((table - severities[:, None]).abs(), dim=1)
