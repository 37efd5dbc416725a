"""Noise schedules: how much of the image is left at each level, computed in float64.

Levels are indices ``t = 0 … T-1``. ``CLEAN = -1`` stands for the image itself (ᾱ = 1), so that every step, the last
one included, is a step between two levels. A state is ``x_t = √ᾱ_t x_0 + √(1-ᾱ_t) ε``.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from common.errors import InputError
from common.options import choice

__all__ = ["BETA_SCHEDULES", "CLEAN", "Level", "NoiseSchedule"]

CLEAN = -1
Level = int | Tensor


def _linear(steps: int, beta_start: float = 1e-4, beta_end: float = 0.02) -> np.ndarray:
    return np.linspace(beta_start, beta_end, steps, dtype=np.float64)


def _linear_rescaled(steps: int, beta_start: float = 1e-4, beta_end: float = 0.02) -> np.ndarray:
    return _linear(steps, beta_start * 1000 / steps, beta_end * 1000 / steps)


def _scaled_linear(steps: int, beta_start: float = 0.0015, beta_end: float = 0.0195) -> np.ndarray:
    return np.linspace(math.sqrt(beta_start), math.sqrt(beta_end), steps, dtype=np.float64) ** 2


def _cosine(steps: int, offset: float = 0.008, max_beta: float = 0.999) -> np.ndarray:
    fraction = np.arange(steps + 1, dtype=np.float64) / steps
    signal = np.cos((fraction + offset) / (1 + offset) * math.pi / 2) ** 2
    return np.minimum(1 - signal[1:] / signal[:-1], max_beta)


BETA_SCHEDULES: dict[str, Callable[..., np.ndarray]] = {
    "linear": _linear,  # Ho et al. 2020
    "linear_rescaled": _linear_rescaled,  # guided-diffusion: the ends scale with 1000 / T
    "scaled_linear": _scaled_linear,  # Rombach et al. 2022: linear in √β; 0.00085 to 0.012 for Stable Diffusion
    "cosine": _cosine,  # Nichol & Dhariwal 2021, eq. 17
}


class NoiseSchedule(nn.Module):
    """The levels of a diffusion process. Holds float64 values for samplers and a float32 buffer for batches.

    Args:
        name: a key of ``BETA_SCHEDULES``.
        steps: number of levels T.
        **parameters: of the schedule, e.g. ``beta_start``, ``beta_end``; ``offset``, ``max_beta`` for the cosine.

    Raises:
        InputError: unknown name, or fewer than two levels.

    The cosine in double precision is the one of guided-diffusion and its descendants; rounded to float32 (the
    buffer) it is the one of the ports that store ᾱ in single precision. There is no other difference between them.
    """

    alphas_cumprod: Tensor
    _signal_noise: Tensor

    def __init__(self, name: str = "linear", steps: int = 1000, **parameters: float) -> None:
        super().__init__()
        choice("schedule", name, BETA_SCHEDULES)
        if steps < 2:
            raise InputError(f"schedule with {steps} steps", "has no levels to step between", "use at least 2")
        self.name, self.steps, self.options = name, steps, dict(parameters)
        alpha_bar = np.cumprod(1 - BETA_SCHEDULES[name](steps, **parameters))
        self._alpha_bar: list[float] = [1.0, *alpha_bar.tolist()]  # CLEAN first: level t stands at t + 1
        self.register_buffer("alphas_cumprod", torch.tensor(self._alpha_bar, dtype=torch.float32)[1:], persistent=False)
        pairs = [(math.sqrt(a), math.sqrt(1 - a)) for a in self._alpha_bar]
        self.register_buffer("_signal_noise", torch.tensor(pairs, dtype=torch.float64).float(), persistent=False)

    def alpha_bar(self, t: int) -> float:
        """ᾱ_t in double precision; 1 at ``CLEAN``.

        Raises:
            InputError: ``t`` is not a level of this schedule.
        """
        if not CLEAN <= t < self.steps:
            raise InputError(f"level {t}", f"is outside the schedule's {self.steps} levels", "use -1 (clean) to T - 1")
        return self._alpha_bar[t + 1]

    def signal_and_noise(self, t: Level, ndim: int = 1) -> tuple[float, float] | tuple[Tensor, Tensor]:
        """The weights √ᾱ_t and √(1-ᾱ_t): floats for one level, tensors (B, 1, …) of ``ndim`` axes for a level a case.

        Raises:
            InputError: an integer level outside the schedule.
            IndexError: a tensor with such a level.
        """
        if isinstance(t, Tensor):
            weights = self._signal_noise.to(t.device).index_select(0, t.reshape(-1).long() + 1)
            shape = (-1,) + (1,) * (ndim - 1)
            return weights[:, 0].reshape(shape), weights[:, 1].reshape(shape)
        alpha_bar = self.alpha_bar(t)
        return math.sqrt(alpha_bar), math.sqrt(1 - alpha_bar)

    def add_noise(self, x0: Tensor, noise: Tensor, t: Level) -> Tensor:
        """The forward process q(x_t | x_0) with the given ``noise``: √ᾱ_t x_0 + √(1-ᾱ_t) ε. Shapes (B, C, …)."""
        signal, sigma = self.signal_and_noise(t, x0.ndim)
        return signal * x0 + sigma * noise

    def extra_repr(self) -> str:
        """What ``repr`` shows."""
        return f"{self.name}, steps={self.steps}, {self.options}"
