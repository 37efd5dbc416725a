"""Counterfactuals by classifier guidance: the image encoded, and decoded towards the healthy class (Wolleb 2022)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from common.diffusion import Clip, to_image_range, to_model_range
from common.inferers.base import AnomalyInferer, Restored
from common.networks import HEALTHY, Denoiser, label_of
from common.options import choice, number, whole_number
from common.samplers import (
    Callback,
    GradientGuidance,
    Solver,
    check_solver,
    class_log_probability,
    ddim_round_trip,
    segment_log_probability,
    value_log_likelihood,
)

__all__ = ["TASKS", "ClassifierGuidedInferer"]

TASKS: dict[str, Callable[[Callable[..., Tensor]], Callable[[Tensor, int], Tensor]]] = {
    "class": partial(class_log_probability, label=HEALTHY),  # a classifier says healthy
    "segmentation": partial(segment_log_probability, label=HEALTHY),  # a segmenter says background, everywhere
    "value": partial(value_log_likelihood, value=0.0),  # a regressor says 0, the grade of a healthy image
}


class ClassifierGuidedInferer(AnomalyInferer):
    """Encode the image by DDIM inversion, decode it along the gradient of a network that knows healthy, and compare.

    Args:
        classifier: time-conditioned, ``(x, timesteps)`` to logits (B, classes), class 0 healthy; or the network of
            another ``task``. Its weights are frozen.
        guidance_scale: s of the gradient; 0 is the plain round trip.
        guidance_level: the highest that ``classifier`` was trained on; there is no gradient above it.
        noise_level: L, to encode to.
        num_inference_steps: levels on the way up, and again on the way down; ``None`` visits every level.
        spacing: of the visited levels.
        sampler: up and down, ``ddim`` or the second-order ``dpm++``.
        fixed_point_steps: further evaluations a level on the way up, which make the inversion exact; of ``ddim``.
        task: what the network knows: ``class``, ``segmentation``, ``value`` (see ``TASKS``).
        inversion_class: that the denoiser is told on the way up; ``healthy``, as on the way down, makes a round trip
            that only the gradient changes; with ``diseased`` the change of class moves the image by itself.
        clip: by default none, so that the inversion is one.
        **kwargs: of ``AnomalyInferer``; nothing is drawn at random.

    Raises:
        InputError: unknown task, class or sampler, or levels outside the schedule, at construction.
    """

    def __init__(
        self,
        *,
        classifier: nn.Module,
        guidance_scale: float = 100.0,
        guidance_level: int | None = None,
        noise_level: int = 500,
        num_inference_steps: int | None = None,
        spacing: str = "linspace",
        sampler: Solver = "ddim",
        fixed_point_steps: int = 0,
        task: Literal["class", "segmentation", "value"] = "class",
        inversion_class: Literal["healthy", "diseased"] = "healthy",
        clip: Clip | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(clip=clip, **kwargs)
        choice("task", task, TASKS)
        self.inversion_class = label_of(inversion_class)
        check_solver(sampler, fixed_point_steps)
        self.method: Solver = sampler
        self.timesteps = self.levels(noise_level, num_inference_steps, spacing)
        self.log_likelihood = TASKS[task](classifier.eval().requires_grad_(False))
        self.guidance_scale = number("guidance_scale", guidance_scale)
        self.guidance_level = (
            guidance_level if guidance_level is None else whole_number("guidance_level", guidance_level, 0)
        )
        self.fixed_point_steps = fixed_point_steps

    @property
    def evaluations_per_slice(self) -> int:
        """Steps up and steps down."""
        return 2 * (len(self.timesteps) - 1)

    def restore(
        self, image: Tensor, denoiser: Denoiser, generator: list[torch.Generator], callback: Callback
    ) -> Restored:
        """Encode, decode under guidance, and compare."""
        label = partial(torch.full, (image.shape[0],), device=image.device)
        healthy = to_image_range(
            ddim_round_trip(
                denoiser,
                to_model_range(image),
                self.timesteps,
                method=self.method,
                fixed_point_steps=self.fixed_point_steps,
                guidance=GradientGuidance(denoiser, self.log_likelihood, self.guidance_scale, self.guidance_level),
                callback=callback,
                inversion_conditioning={"class_labels": label(fill_value=self.inversion_class)},
                class_labels=label(fill_value=HEALTHY),
            )
        )
        return Restored(None, healthy)
