"""Counterfactuals by classifier-free guidance: encoded without a class, decoded past the healthy one (Sanchez 2022)."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from common.diffusion import Clip, DynamicThreshold, to_image_range, to_model_range
from common.inferers.base import AnomalyInferer, Restored
from common.networks import HEALTHY, Denoiser, label_of
from common.options import number, whole_number
from common.samplers import Callback, ClassifierFreeGuidance, Solver, check_solver, ddim_round_trip

__all__ = ["ClassifierFreeInferer"]

_THRESHOLD = DynamicThreshold()


class ClassifierFreeInferer(AnomalyInferer):
    """Encode the image by DDIM inversion with the null class, decode it with guidance to the healthy class, compare.

    The network takes ``class_labels`` and has a ``null_class``, as ``ClassConditionedUNet`` and ``ClassTokenUNet``.

    Args:
        guidance_scale: w; 0 is the round trip without a class, 1 the conditional network.
        noise_level: to encode to; with ``spacing="leading"`` the level below which levels are spread.
        num_inference_steps: levels on the way up, and again on the way down, where each needs two evaluations.
        spacing: of the visited levels.
        sampler: up and down, ``ddim`` or the second-order ``dpm++``.
        fixed_point_steps: of ``ddim``: further evaluations a level on the way up, which make the inversion exact where
            nothing is clipped.
        inversion_class: that the network is told on the way up.
        clip: of x̂_0; by default dynamic thresholding at the 99th percentile.
        **kwargs: of ``AnomalyInferer``; nothing is drawn at random.

    Raises:
        InputError: unknown class or sampler, or levels outside the schedule, at construction.
    """

    def __init__(
        self,
        *,
        guidance_scale: float = 3.0,
        noise_level: int = 749,
        num_inference_steps: int | None = 75,
        spacing: str = "leading",
        sampler: Solver = "ddim",
        fixed_point_steps: int = 0,
        inversion_class: Literal["none", "healthy", "diseased"] = "none",
        clip: Clip | None = _THRESHOLD,
        **kwargs: Any,
    ) -> None:
        super().__init__(clip=clip, **kwargs)
        check_solver(sampler, fixed_point_steps)
        self.method: Solver = sampler
        self.timesteps = self.levels(noise_level, num_inference_steps, spacing)
        self.inversion_class = None if inversion_class == "none" else label_of(inversion_class)
        self.guidance_scale = number("guidance_scale", guidance_scale)
        self.fixed_point_steps = whole_number("fixed_point_steps", fixed_point_steps, 0)

    @property
    def evaluations_per_slice(self) -> int:
        """Steps up and steps down."""
        return 2 * (len(self.timesteps) - 1)

    def restore(
        self, image: Tensor, denoiser: Denoiser, generator: list[torch.Generator], callback: Callback
    ) -> Restored:
        """Encode, decode under guidance, and compare."""
        labels = torch.full((image.shape[0],), HEALTHY, device=image.device)
        null = getattr(denoiser.network, "null_class", None)  # said outright, it can share a batch with the class
        nothing: dict[str, Any] = {} if null is None else {"class_labels": torch.full_like(labels, null)}
        told = self.inversion_class
        encoding = nothing if told is None else {"class_labels": torch.full_like(labels, told)}
        healthy = to_image_range(
            ddim_round_trip(
                denoiser,
                to_model_range(image),
                self.timesteps,
                method=self.method,
                fixed_point_steps=self.fixed_point_steps,
                guidance=ClassifierFreeGuidance(denoiser, self.guidance_scale, class_labels=labels),
                callback=callback,
                inversion_conditioning=encoding,
                **nothing,
            )
        )
        return Restored(None, healthy)
