"""Guidance: objects ``(x_t, t, prediction) -> prediction`` that steer a sampler. Scale 0 changes not a bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from common.diffusion import Prediction
from common.networks import Denoiser
from common.samplers.walk import Guidance

__all__ = [
    "ClassifierFreeGuidance",
    "GradientGuidance",
    "class_log_probability",
    "compose",
    "segment_log_probability",
    "value_log_likelihood",
]


class GradientGuidance:
    """Shift the noise along the gradient of a log-likelihood: ε' = ε̂ - s √(1-ᾱ_t) ∇_x log p(y | x_t).

    The DDIM form of classifier guidance (Dhariwal & Nichol 2021, alg. 2); any differentiable task (classifier,
    regressor, segmenter) will do. x̂_0 follows the shifted noise and is not clipped again, as in the original.

    Args:
        denoiser: the sampler's own; gives the schedule.
        log_likelihood: ``(x_t, t) -> (B,)``, differentiable in ``x_t``; its parameters should be frozen.
        scale: s; 0 returns the prediction untouched.
        highest_level: above it, too; where a likelihood has not been trained its gradient means nothing.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        log_likelihood: Callable[[Tensor, int], Tensor],
        scale: float,
        highest_level: int | None = None,
    ) -> None:
        self.schedule, self.log_likelihood = denoiser.schedule, log_likelihood
        self.scale, self.highest_level = scale, highest_level

    def __call__(self, x_t: Tensor, t: int, prediction: Prediction) -> Prediction:
        """Return the guided prediction."""
        if self.scale == 0 or (self.highest_level is not None and t > self.highest_level):
            return prediction
        with torch.enable_grad():
            x = x_t.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self.log_likelihood(x, t).sum(), x)
        _, sigma = self.schedule.signal_and_noise(t, x_t.ndim)
        guided = Prediction.from_eps(prediction.eps - self.scale * sigma * gradient, x_t, self.schedule, t)
        return guided._replace(variance=prediction.variance)


class ClassifierFreeGuidance:
    """Move from the unconditional prediction past the conditional one: ε' = ε_u + w (ε_c - ε_u) (Ho & Salimans 2022).

    Samplers let it ``predict``: the two predictions are mixed as the network makes them, and x̂_0 is kept in range
    after that, as the denoiser does it. Where both have the same conditioning, with other values, they are one batch.
    Called as other guidance is, it mixes the prediction that it is given, in range already, with a conditional one.

    Args:
        denoiser: called with ``conditioning`` besides.
        scale: w; 0 returns the prediction untouched, 1 is the conditional prediction.
        **conditioning: the condition, as the network takes it.
    """

    def __init__(self, denoiser: Denoiser, scale: float, **conditioning: Any) -> None:
        self.denoiser, self.scale, self.conditioning = denoiser, scale, conditioning

    def __call__(self, x_t: Tensor, t: int, prediction: Prediction) -> Prediction:
        """Return the guided prediction."""
        if self.scale == 0:
            return prediction
        return self._between(x_t, t, prediction, self.denoiser.unclipped(x_t, t, **self.conditioning))

    def predict(self, x_t: Tensor, t: int, **unconditional: Any) -> Prediction:
        """The guided prediction of states (B, C, …), whose unconditional one is not known yet."""
        if self.scale == 0:
            return self.denoiser(x_t, t, **unconditional)
        pairs = [(unconditional.get(key), value) for key, value in self.conditioning.items()]
        alike = len(pairs) == len(unconditional) and all(_same_shape(*pair) for pair in pairs)
        if not alike:
            return self(x_t, t, self.denoiser.unclipped(x_t, t, **unconditional))
        both = {key: torch.cat([unconditional[key], value]) for key, value in self.conditioning.items()}
        prediction, cases = self.denoiser.unclipped(torch.cat([x_t, x_t]), t, **both), x_t.shape[0]
        halves = (prediction.of_cases(part) for part in (slice(None, cases), slice(cases, None)))
        return self._between(x_t, t, *halves)

    def _between(self, x_t: Tensor, t: int, prediction: Prediction, conditional: Prediction) -> Prediction:
        eps = prediction.eps + self.scale * (conditional.eps - prediction.eps)
        guided = Prediction.from_eps(eps, x_t, self.denoiser.schedule, t)._replace(variance=prediction.variance)
        return self.denoiser.clipped(guided, x_t, t)


def _same_shape(first: Any, second: Any) -> bool:
    return isinstance(first, Tensor) and isinstance(second, Tensor) and first.shape == second.shape


def class_log_probability(classifier: Callable[..., Tensor], label: int) -> Callable[[Tensor, int], Tensor]:
    """The log-likelihood of one class under a time-conditioned classifier ``(x, timesteps) -> logits (B, classes)``."""

    def log_probability(x_t: Tensor, t: int) -> Tensor:
        return torch.log_softmax(classifier(x_t, _levels(x_t, t)).float(), dim=1)[:, label]

    return log_probability


def value_log_likelihood(
    regressor: Callable[..., Tensor], value: float, spread: float = 1.0
) -> Callable[[Tensor, int], Tensor]:
    """The log-likelihood of a value (an age, a grade) under a time-conditioned regressor ``(x, timesteps) -> (B, 1)``.

    Normal around what the regressor says, with standard deviation ``spread``, up to a constant.
    """

    def log_likelihood(x_t: Tensor, t: int) -> Tensor:
        said = regressor(x_t, _levels(x_t, t)).float().flatten(1)[:, 0]
        return -0.5 * ((said - value) / spread).square()

    return log_likelihood


def segment_log_probability(segmenter: Callable[..., Tensor], label: int) -> Callable[[Tensor, int], Tensor]:
    """The mean over places of the log-probability of one class under ``(x, timesteps) -> logits (B, classes, …)``."""

    def log_probability(x_t: Tensor, t: int) -> Tensor:
        logits = segmenter(x_t, _levels(x_t, t)).float()
        return torch.log_softmax(logits, dim=1)[:, label].flatten(1).mean(dim=1)

    return log_probability


def _levels(x_t: Tensor, t: int) -> Tensor:
    return torch.full((x_t.shape[0],), t, device=x_t.device)


def compose(*guidances: Guidance) -> Guidance:
    """Apply several guidances one after the other."""

    def composed(x_t: Tensor, t: int, prediction: Prediction) -> Prediction:
        for guidance in guidances:
            prediction = guidance(x_t, t, prediction)
        return prediction

    return composed
