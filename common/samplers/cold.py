"""Restoring an image that is taken for a degraded one (Bansal et al. 2022, cold diffusion; Naval Marimont et al. 2024).

At level t the state is a mixture, ``x_t = (1 - α_t) x_0 + α_t x_T``, of the healthy image and an unknown fully
degraded one; α is ``common.diffusion.severity``. Networks estimate x_0; no noise is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from common.diffusion import Prediction, severity
from common.networks import Denoiser
from common.samplers.walk import Callback, Guidance, check_falling, walk

__all__ = ["cold_sample"]


def cold_sample(
    denoiser: Denoiser,
    x: Tensor,
    timesteps: Sequence[int],
    *,
    guidance: Guidance | None = None,
    callback: Callback | None = None,
    **conditioning: Any,
) -> Tensor:
    """Undo a degradation step by step: x_s = x_t - D(x̂_0, α_t) + D(x̂_0, α_s) (Bansal et al. 2022, alg. 2).

    With D(x̂_0, α) = (1 - α) x̂_0 + α x̂_T, and x̂_T what explains the state with x̂_0, the step is
    x̂_0 + (α_s / α_t) (x_t - x̂_0).

    Args:
        denoiser: estimates the image.
        x: image (B, C, …) in the model's range, taken for the state at ``timesteps[0]``.
        timesteps: falling levels; ends at ``CLEAN`` for a restored image, which is x̂_0 itself.
        guidance: changes each prediction.
        callback: sees every step.
        **conditioning: for the network.

    Returns:
        The state at ``timesteps[-1]``.

    Raises:
        InputError: levels that do not fall, or are not in the schedule.
    """
    check_falling(timesteps, "cold_sample")

    def advance(x: Tensor, prediction: Prediction, t: int, t_next: int) -> Tensor:
        kept = severity(denoiser.schedule, t_next) / severity(denoiser.schedule, t)
        return prediction.x0 + kept * (x - prediction.x0)

    return walk(denoiser, x, timesteps, advance, guidance=guidance, callback=callback, **conditioning)
