"""Classifiers of noised images, and an autoencoder whose codes keep their place: what weak supervision is made of."""

from __future__ import annotations

from typing import Any

import torch
from monai.networks.layers.factories import Conv
from monai.networks.nets import AutoEncoder
from torch import Tensor, nn

from common.networks.unet import DenoisingUNet

__all__ = ["ImageAutoencoder", "NoisyClassifier"]


class NoisyClassifier(DenoisingUNet):
    """The encoder of a ``DenoisingUNet`` with attention pooling: what class a noised image shows.

    Each place of the last level has an opinion (logits) and a say (a weight; they sum to 1), as in multiple-instance
    learning (Ilse et al. 2018): a small lesion is not averaged away, and gradients lead to it.

    Args:
        spatial_dims: 2 or 3.
        in_channels: image channels.
        num_classes: classes; 0 is healthy.
        **kwargs: of ``DenoisingUNet``.
    """

    def __init__(self, spatial_dims: int, in_channels: int, num_classes: int = 2, **kwargs: Any) -> None:
        super().__init__(spatial_dims, in_channels, in_channels, **kwargs)
        del self.middle_block, self.up_blocks, self.out
        width, groups = self.block_out_channels[-1], kwargs.get("norm_num_groups", 16)
        convolution = Conv[Conv.CONV, spatial_dims]
        self.head = nn.Sequential(nn.GroupNorm(groups, width), nn.SiLU(), convolution(width, num_classes + 1, 1))

    def forward(  # type: ignore[override]
        self, x: Tensor, timesteps: Tensor | None = None, *args: Any, **kwargs: Any
    ) -> Tensor:
        """Logits (B, classes) of states ``x`` (B, C, …) in the model's range at levels ``timesteps`` (B,).

        Without ``timesteps`` the level is 0: clean images.

        Raises:
            InputError: channels or sizes that the network cannot take.
        """
        if timesteps is None:
            timesteps = torch.zeros(x.shape[0], dtype=torch.long, device=x.device)
        opinions = self.head(self.features(x, timesteps)[-1]).flatten(2)
        return (opinions[:, 1:] * opinions[:, :1].softmax(dim=2)).sum(dim=2)


class ImageAutoencoder(AutoEncoder):
    """MONAI's ``AutoEncoder`` as trainers here call it; ``encode`` and ``decode`` are its halves.

    The codes (B, channels, …) keep the places of the image, at a size divided by the product of ``strides``.

    Args:
        **kwargs: of MONAI's network.

    Attributes:
        size_divisor: sizes of images must be multiples of it.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.size_divisor = 1
        for stride in self.strides:
            self.size_divisor *= stride

    def forward(self, x: Tensor, timesteps: Tensor | None = None) -> Tensor:
        """Images (B, C, …) from images; ``timesteps`` are taken, as trainers give them, but say nothing."""
        return super().forward(x)
