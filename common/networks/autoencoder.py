"""The UNet that removes coarse noise in one pass: no level, weight-standardised convolutions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from monai.networks.layers import Conv, Pool
from torch import Tensor, nn

from common.networks.devices import channels_last
from common.networks.unet import check_input

__all__ = ["DenoisingAutoencoder"]


class _StandardisedConv(nn.Module):
    """3×3 convolution of the reflected image by weights of mean 0 and variance 1 (Qiao et al. 2019)."""

    def __init__(self, spatial_dims: int, in_channels: int, channels: int) -> None:
        super().__init__()
        kind = Conv[Conv.CONV, spatial_dims]
        self.conv = kind(in_channels, channels, 3, padding=1, padding_mode="reflect")

    def forward(self, x: Tensor) -> Tensor:
        weight = self.conv.weight
        return self.conv._conv_forward(x, F.layer_norm(weight, weight.shape[1:]), self.conv.bias)


class _Block(nn.Sequential):
    """Twice: convolution, Swish, group normalisation."""

    def __init__(self, spatial_dims: int, in_channels: int, channels: int) -> None:
        layers: list[nn.Module] = []
        for width in (in_channels, channels):
            convolution = _StandardisedConv(spatial_dims, width, channels)
            layers += [convolution, nn.SiLU(), nn.GroupNorm(_groups(channels), channels)]
        super().__init__(*layers)


def _groups(channels: int) -> int:
    """The largest divisor that is no larger than the root."""
    return next(groups for groups in range(math.isqrt(channels), 0, -1) if channels % groups == 0)


class DenoisingAutoencoder(nn.Module):
    """UNet of the coarse-noise denoising autoencoder (Kascenas et al. 2022).

    Averages down, transposed convolutions up, skips by concatenation. It returns the image, at whatever level it is
    asked: noise is not announced to it.

    Args:
        spatial_dims: 2 or 3.
        in_channels: image channels, which are also the output's.
        channels: of each level; the published network has 64, 128, 256, 512.

    Attributes:
        size_divisor: sizes of images are multiples of it.
    """

    encoder_parts: tuple[str, ...] = ("down",)
    """Modules that ``freeze`` takes for the encoder."""

    def __init__(self, spatial_dims: int, in_channels: int, *, channels: Sequence[int] = (64, 128, 256, 512)) -> None:
        super().__init__()
        self.spatial_dims, self.in_channels = spatial_dims, in_channels
        self.size_divisor = 2 ** (len(channels) - 1)
        before = [in_channels, *channels[:-1]]
        self.down = nn.ModuleList(_Block(spatial_dims, *widths) for widths in zip(before, channels, strict=True))
        self.pool = Pool[Pool.AVG, spatial_dims](2)
        steps = list(zip(channels[:0:-1], channels[-2::-1], strict=True))
        transposed = Conv[Conv.CONVTRANS, spatial_dims]
        self.enlarge = nn.ModuleList(transposed(deep, wide, 2, stride=2) for deep, wide in steps)
        self.up = nn.ModuleList(_Block(spatial_dims, 2 * wide, wide) for _, wide in steps)
        self.out = Conv[Conv.CONV, spatial_dims](channels[0], in_channels, 1)
        channels_last(self)

    def forward(self, x: Tensor, timesteps: Tensor | None = None) -> Tensor:
        """The image in ``x`` (B, C, …), of the same shape; ``timesteps`` have no effect.

        Raises:
            InputError: channels or sizes that the network cannot take.
        """
        check_input(x, self.spatial_dims, self.in_channels, self.size_divisor)
        skips: list[Tensor] = []
        for block in self.down:
            x = block(self.pool(x) if skips else x)
            skips.append(x)
        for enlarge, block, skip in zip(self.enlarge, self.up, skips[-2::-1], strict=True):
            x = block(torch.cat([skip, enlarge(x)], dim=1))
        return self.out(x)
