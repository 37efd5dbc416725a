"""The denoiser protocol: what samplers know of a network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from common.diffusion import CLEAN, Clip, Level, NoiseSchedule, Prediction, PredictionType, StaticClip, predict
from common.networks.devices import autocast, for_inference, states_at_once

__all__ = ["Denoiser"]

_DEFAULT_CLIP = StaticClip()


class Denoiser:
    """Makes any network ``network(x, timesteps, **conditioning)`` a function ``(x_t, t) -> Prediction``.

    Args:
        network: called with the state (B, C, …) and integer levels (B,); its output has the shape of the state, or
            twice its channels, the second half being the learned variance.
        schedule: the one that the network was trained with.
        prediction_type: what the network outputs.
        clip: keeps x̂_0 in range and lets the noise follow; ``None`` for exact inversion.
        amp: run the network in bfloat16 where the device can; states and predictions stay in float32.
        max_batch: most states in one call of the network, which bounds its memory; by default what suits the device
            and the size of the states (``states_at_once``).

    Attributes:
        evaluations: network calls so far, times the cases in each.
    """

    def __init__(
        self,
        network: Callable[..., Tensor],
        schedule: NoiseSchedule,
        prediction_type: PredictionType = "epsilon",
        clip: Clip | None = _DEFAULT_CLIP,
        amp: bool = False,
        max_batch: int | None = None,
    ) -> None:
        self.network, self.schedule = network, schedule
        self.prediction_type, self.clip, self.amp, self.max_batch = prediction_type, clip, amp, max_batch
        self.evaluations = 0
        self._run = for_inference(network, amp)

    def __call__(self, x_t: Tensor, t: Level, **conditioning: Any) -> Prediction:
        """Estimate the image and the noise in ``x_t``.

        Args:
            x_t: states (B, C, …).
            t: level, one for all or a tensor (B,). At ``CLEAN`` the state is the image, and the noise is what the
                network sees at level 0: the start of an inversion.
            conditioning: passed to the network (``context``, ``class_labels``, …); tensors with one entry a state are
                divided as the states are.

        Raises:
            InputError: the level is not in the schedule.
        """
        return self.clipped(self.unclipped(x_t, t, **conditioning), x_t, t)

    def clipped(self, prediction: Prediction, x_t: Tensor, t: Level) -> Prediction:
        """A prediction from ``x_t`` with x̂_0 kept in range, and the noise that goes with it; at ``CLEAN`` unchanged."""
        if self.clip is None or _is_clean(t):
            return prediction
        kept = Prediction.from_x0(self.clip(prediction.x0), x_t, self.schedule, t)
        return kept._replace(variance=prediction.variance)

    def unclipped(self, x_t: Tensor, t: Level, **conditioning: Any) -> Prediction:
        """What ``__call__`` returns, before x̂_0 is kept in range."""
        clean = _is_clean(t)
        level: Level = 0 if clean else t
        if isinstance(level, int):
            self.schedule.alpha_bar(level)
            timesteps = torch.full((x_t.shape[0],), level, device=x_t.device)
        else:
            timesteps = level
        output, variance = self._output(x_t, timesteps, conditioning), None
        if output.shape[1] == 2 * x_t.shape[1]:
            output, variance = output.chunk(2, dim=1)
        prediction = predict(output, x_t, self.schedule, level, self.prediction_type)
        return Prediction(x_t if clean else prediction.x0, prediction.eps, variance)

    def _output(self, x_t: Tensor, timesteps: Tensor, conditioning: dict[str, Any]) -> Tensor:
        """What the network says, in float32, in as many calls as it takes."""
        device, cases = x_t.device, x_t.shape[0]
        calls = -(-cases // (self.max_batch or states_at_once(x_t)))
        size = max(1, -(-cases // max(1, calls)))  # parts of equal size
        outputs = []
        with autocast(device, self.amp):
            for start in range(0, cases, size):
                part = slice(start, start + size)
                given = {key: _part(value, part, cases) for key, value in conditioning.items()}
                outputs.append(self._run(x_t[part], timesteps=timesteps[part], **given).float())
        self.evaluations += cases
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def _is_clean(t: Level) -> bool:
    return isinstance(t, int) and t == CLEAN


def _part(value: Any, part: slice, cases: int) -> Any:
    return value[part] if isinstance(value, Tensor) and value.ndim and value.shape[0] == cases else value
