"""What a denoiser says of a state, whatever its network predicts, and how x̂_0 is kept in range."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

from torch import Tensor

from common.diffusion.schedule import Level, NoiseSchedule
from common.errors import InputError
from common.quantile import quantile

__all__ = ["Clip", "DynamicThreshold", "Prediction", "PredictionType", "StaticClip", "predict", "training_target"]

PredictionType = Literal["epsilon", "sample", "v_prediction"]
Clip = Callable[[Tensor], Tensor]


class Prediction(NamedTuple):
    """The estimate of the image and of the noise in a state; always ``x_t = √ᾱ_t x0 + √(1-ᾱ_t) eps``.

    ``variance`` is what a network with a learned variance says of it: where its logarithm lies between that of
    ``fixed_small``, at -1, and that of ``fixed_large``, at 1 (Nichol & Dhariwal 2021, eq. 15).
    """

    x0: Tensor
    eps: Tensor
    variance: Tensor | None = None

    def of_cases(self, cases: slice) -> Prediction:
        """The part of a batch."""
        return Prediction(self.x0[cases], self.eps[cases], None if self.variance is None else self.variance[cases])

    @classmethod
    def from_x0(cls, x0: Tensor, x_t: Tensor, schedule: NoiseSchedule, t: Level) -> Prediction:
        """Keep ``x0`` and derive the noise that explains the state with it."""
        signal, sigma = schedule.signal_and_noise(t, x_t.ndim)
        return cls(x0, (x_t - signal * x0) / sigma)

    @classmethod
    def from_eps(cls, eps: Tensor, x_t: Tensor, schedule: NoiseSchedule, t: Level) -> Prediction:
        """Keep ``eps`` and derive the image that explains the state with it."""
        signal, sigma = schedule.signal_and_noise(t, x_t.ndim)
        return cls((x_t - sigma * eps) / signal, eps)


class StaticClip:
    """Clamp x̂_0 to the range of the training images (Ho et al. 2020).

    Args:
        low: smallest value.
        high: largest value.
    """

    def __init__(self, low: float = -1.0, high: float = 1.0) -> None:
        self.low, self.high = low, high

    def __call__(self, x0: Tensor) -> Tensor:
        """Return the clamped image."""
        return x0.clamp(self.low, self.high)


class DynamicThreshold:
    """Clamp x̂_0 to its own quantile of absolute values, then scale to [-1, 1] (Saharia et al. 2022, §2.3).

    Args:
        quantile: share of absolute values, per case and channel, that stays below the threshold.
    """

    def __init__(self, quantile: float = 0.99) -> None:
        self.quantile = quantile

    def __call__(self, x0: Tensor) -> Tensor:
        """Return the clamped and scaled image; an image that already lies in [-1, 1] is only clamped."""
        bound = quantile(x0.abs(), self.quantile, start_dim=2).clamp(min=1.0)
        return x0.clamp(-bound, bound) / bound


def predict(
    output: Tensor,
    x_t: Tensor,
    schedule: NoiseSchedule,
    t: Level,
    prediction_type: PredictionType,
    clip: Clip | None = None,
) -> Prediction:
    """Turn a network's output into a ``Prediction``. After clipping, the noise is derived anew from the clipped x̂_0.

    Args:
        output: of the network, shape of ``x_t``.
        x_t: state (B, C, …).
        schedule: gives ᾱ_t.
        t: level, one for all or one a case (B,).
        prediction_type: what the output estimates: the noise, the image, or v = √ᾱ ε - √(1-ᾱ) x_0
            (Salimans & Ho 2022, appendix D).
        clip: keeps x̂_0 in range; ``None`` leaves it.

    Raises:
        InputError: unknown prediction type.
    """
    if prediction_type == "epsilon":
        prediction = Prediction.from_eps(output, x_t, schedule, t)
    elif prediction_type == "sample":
        prediction = Prediction.from_x0(output, x_t, schedule, t)
    elif prediction_type == "v_prediction":
        signal, sigma = schedule.signal_and_noise(t, x_t.ndim)
        prediction = Prediction(signal * x_t - sigma * output, signal * output + sigma * x_t)
    else:
        raise _unknown(prediction_type)
    return prediction if clip is None else Prediction.from_x0(clip(prediction.x0), x_t, schedule, t)


def training_target(
    x0: Tensor, noise: Tensor, schedule: NoiseSchedule, t: Level, prediction_type: PredictionType
) -> Tensor:
    """What the network shall output for the state made of ``x0`` and ``noise`` at level ``t``.

    Raises:
        InputError: unknown prediction type.
    """
    if prediction_type == "epsilon":
        return noise
    if prediction_type == "sample":
        return x0
    if prediction_type == "v_prediction":
        signal, sigma = schedule.signal_and_noise(t, x0.ndim)
        return signal * noise - sigma * x0
    raise _unknown(prediction_type)


def _unknown(prediction_type: str) -> InputError:
    return InputError(
        f"prediction type '{prediction_type}'", "is not known", "choose 'epsilon', 'sample' or 'v_prediction'"
    )
