"""The loop that every sampler is: over the pairs of neighbouring levels of an explicit list."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from torch import Tensor

from common.diffusion import Prediction
from common.errors import InputError
from common.networks import Denoiser

__all__ = ["Advance", "Callback", "Guidance", "Step", "check_falling", "check_rising", "walk"]


class Step(NamedTuple):
    """What a callback sees of step ``i``: the level ``t``, the state there, and the (guided) prediction from it."""

    i: int
    t: int
    x: Tensor
    x0: Tensor
    eps: Tensor


Callback = Callable[[Step], None]
Guidance = Callable[[Tensor, int, Prediction], Prediction]
Advance = Callable[[Tensor, Prediction, int, int], Tensor]


def walk(
    denoiser: Denoiser,
    x: Tensor,
    timesteps: Sequence[int],
    advance: Advance,
    *,
    guidance: Guidance | None = None,
    callback: Callback | None = None,
    ascend: Callable[[Tensor, int, int], Tensor] | None = None,
    **conditioning: Any,
) -> Tensor:
    """Carry the state from the first level of ``timesteps`` to the last.

    Args:
        denoiser: estimates image and noise in a state.
        x: state (B, C, …) at ``timesteps[0]``.
        timesteps: the levels to visit.
        advance: ``(x, prediction, t, t_next) -> x`` at ``t_next``.
        guidance: changes the prediction before the step; one that has ``predict`` makes it altogether.
        callback: called once a network evaluation.
        ascend: if given, steps to a higher level are ``(x, t, t_next) -> x`` without the network.
        **conditioning: for the network.

    Returns:
        The state at ``timesteps[-1]``.
    """
    evaluations = 0
    for t, t_next in pairwise(timesteps):
        if ascend is not None and t_next > t:
            x = ascend(x, t, t_next)
            continue
        predict = getattr(guidance, "predict", denoiser)
        prediction = predict(x, t, **conditioning)
        if guidance is not None and predict is denoiser:
            prediction = guidance(x, t, prediction)
        if callback is not None:
            callback(Step(evaluations, t, x, prediction.x0, prediction.eps))
        x = advance(x, prediction, t, t_next)
        evaluations += 1
    return x


def check_falling(timesteps: Sequence[int], name: str) -> None:
    """Stop unless the levels fall strictly.

    Raises:
        InputError: fewer than two levels, or one that is not below its predecessor.
    """
    if len(timesteps) < 2 or any(t_next >= t for t, t_next in pairwise(timesteps)):
        raise InputError(f"timesteps of {name}", "do not fall", "build them with sampling_levels")


def check_rising(timesteps: Sequence[int], name: str) -> None:
    """Stop unless the levels rise strictly.

    Raises:
        InputError: fewer than two levels, or one that is not above its predecessor.
    """
    if len(timesteps) < 2 or any(t_next <= t for t, t_next in pairwise(timesteps)):
        raise InputError(f"timesteps of {name}", "do not rise", "reverse a list of sampling_levels")
