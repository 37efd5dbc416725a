"""One exact step between any two levels. All of them take states (B, C, …) and integer levels.

With ``a = ᾱ_t / ᾱ_s`` for a level s below t, the chain from s to t is one Gaussian step of variance ``1 - a``; all
formulae of DDPM hold with a for α_t and 1 - a for β_t, which is what makes respaced sampling exact (Nichol &
Dhariwal 2021, §4).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from common.diffusion.prediction import Prediction
from common.diffusion.schedule import CLEAN, NoiseSchedule
from common.errors import InputError
from common.options import choice

__all__ = ["Variance", "between", "ddim_step", "ddpm_step", "forward_step"]

Variance = Literal["fixed_small", "fixed_large", "learned"]


def ddpm_step(
    x: Tensor,
    prediction: Prediction,
    schedule: NoiseSchedule,
    t: int,
    t_next: int,
    *,
    noise: Callable[[], Tensor],
    variance: Variance = "fixed_small",
) -> Tensor:
    """Draw from the posterior q(x_{t_next} | x_t, x̂_0) (Ho et al. 2020, eq. 6 and 7).

    Args:
        x: state at level ``t``.
        prediction: the denoiser's, of this state.
        schedule: gives ᾱ.
        t: level of ``x``.
        t_next: a lower level; ``CLEAN`` gives x̂_0 itself, without noise.
        noise: draws standard noise of the shape of ``x``; not called where the step has none.
        variance: ``fixed_small`` (posterior variance), ``fixed_large`` (1 - ᾱ_t/ᾱ_{t_next}), or ``learned``, in between
            where the prediction says.

    Raises:
        InputError: ``t_next`` is not below ``t``, or the variance is not known.
    """
    if t_next >= t:
        raise InputError(f"DDPM step {t} → {t_next}", "does not go down", "use ddim_step to go up")
    choice("variance", variance, get_args(Variance))
    if variance == "learned" and prediction.variance is None:
        raise InputError("variance 'learned'", "is not what this network says", "choose 'fixed_small' or 'fixed_large'")
    alpha_bar, alpha_bar_next = schedule.alpha_bar(t), schedule.alpha_bar(t_next)
    alpha = alpha_bar / alpha_bar_next
    beta = 1 - alpha
    shrink = (1 - alpha_bar_next) / (1 - alpha_bar)
    weight_x0 = math.sqrt(alpha_bar_next) * beta / (1 - alpha_bar)
    mean = weight_x0 * prediction.x0 + math.sqrt(alpha) * shrink * x
    if t_next == CLEAN:
        return mean
    if variance == "learned" and prediction.variance is not None:
        return mean + between(prediction.variance, beta * shrink, beta).sqrt() * noise()
    return mean + math.sqrt(beta * shrink if variance == "fixed_small" else beta) * noise()


def between(place: Tensor, small: float | Tensor, large: float | Tensor) -> Tensor:
    """The variance whose logarithm lies between those of two, at -1 and at 1 (Nichol & Dhariwal 2021, eq. 15)."""
    low, high = (torch.as_tensor(each, dtype=place.dtype, device=place.device).log() for each in (small, large))
    return torch.exp(low + (place + 1) / 2 * (high - low))


def ddim_step(
    prediction: Prediction,
    schedule: NoiseSchedule,
    t: int,
    t_next: int,
    *,
    noise: Callable[[], Tensor] | None = None,
    eta: float = 0.0,
) -> Tensor:
    """Go from level ``t`` to ``t_next``, down (sampling) or up (inversion) (Song et al. 2021, eq. 12).

    Args:
        prediction: the denoiser's, of the state at level ``t``.
        schedule: gives ᾱ.
        t: level of the state.
        t_next: level to reach.
        noise: draws standard noise of the shape of the state; needed where ``eta`` is not 0.
        eta: 0 is deterministic; 1 has the marginal of ``ddpm_step`` with ``fixed_small``.

    Raises:
        InputError: ``eta`` without noise, or on the way up.
    """
    alpha_bar_next = schedule.alpha_bar(t_next)
    sigma = 0.0
    if eta:
        if t_next > t or noise is None:
            raise InputError(f"DDIM step {t} → {t_next}", f"cannot have eta {eta}", "use eta 0, or go down with noise")
        alpha_bar = schedule.alpha_bar(t)
        sigma = eta * math.sqrt((1 - alpha_bar_next) / (1 - alpha_bar) * (1 - alpha_bar / alpha_bar_next))
    x = math.sqrt(alpha_bar_next) * prediction.x0 + math.sqrt(1 - alpha_bar_next - sigma**2) * prediction.eps
    return x + sigma * noise() if sigma and noise is not None else x


def forward_step(x: Tensor, noise: Tensor, schedule: NoiseSchedule, t: int, t_next: int) -> Tensor:
    """Add the noise that lies between level ``t`` and a higher level ``t_next``: q(x_{t_next} | x_t).

    Raises:
        InputError: ``t_next`` is below ``t``.
    """
    if t_next < t:
        raise InputError(f"forward step {t} → {t_next}", "does not go up", "use ddpm_step or ddim_step to go down")
    alpha = schedule.alpha_bar(t_next) / schedule.alpha_bar(t)
    return math.sqrt(alpha) * x + math.sqrt(1 - alpha) * noise
