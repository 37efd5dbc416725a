"""One pass of a network over the image as it is: what it removes is the anomaly (Kascenas et al. 2022)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from common.diffusion import CLEAN, to_image_range, to_model_range
from common.inferers.base import AnomalyInferer, Restored
from common.networks import Denoiser
from common.samplers import Callback, Step

__all__ = ["DenoisingAutoencoderInferer"]


class DenoisingAutoencoderInferer(AnomalyInferer):
    """Show the network the clean image, once; no noise is added, and no seed has an effect.

    Args:
        **kwargs: of ``AnomalyInferer``; by default the network outputs the image, and ``noise`` has no effect.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"prediction_type": "sample", **kwargs})
        self.timesteps = [0, CLEAN]

    def restore(
        self, image: Tensor, denoiser: Denoiser, generator: list[torch.Generator], callback: Callback
    ) -> Restored:
        """Denoise and compare."""
        x = to_model_range(image)
        prediction = denoiser(x, self.timesteps[0])
        callback(Step(0, self.timesteps[0], x, prediction.x0, prediction.eps))
        return Restored(None, to_image_range(prediction.x0))
