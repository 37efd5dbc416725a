"""An image encoder that conditions denoisers, and what it learns from before: masked images."""

from __future__ import annotations

from collections.abc import Sequence

from monai.networks.layers.factories import Conv
from monai.networks.nets.resnet import ResNetBlock
from monai.networks.utils import pixelshuffle
from torch import Tensor, nn

__all__ = ["ImageEncoder", "MaskedAutoencoder"]


class ImageEncoder(nn.Module):
    """A residual network (He et al. 2016) that turns images (B, C, …) of any size into codes (B, dim).

    Groups normalise, so that a code does not depend on the neighbours in the batch, not in training either.

    Args:
        spatial_dims: 2 or 3.
        in_channels: image channels.
        channels: of each level; the last is the code's ``dim``. Stem and every level but the first halve the size.
        num_res_blocks: of each level.
        norm_num_groups: groups of the normalisation; divides every entry of ``channels``.

    Attributes:
        dim: length of the code.
        stride: pixels that one pixel of the last level stands for.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        *,
        channels: Sequence[int] = (32, 64, 96, 128),
        num_res_blocks: int = 1,
        norm_num_groups: int = 16,
    ) -> None:
        super().__init__()
        self.spatial_dims, self.in_channels = spatial_dims, in_channels
        self.dim, self.stride = channels[-1], 2 ** len(channels)
        convolution = Conv[Conv.CONV, spatial_dims]
        norm = ("group", {"num_groups": norm_num_groups})
        layers: list[nn.Module] = [
            convolution(in_channels, channels[0], kernel_size=7, stride=2, padding=3, bias=False),
            nn.GroupNorm(norm_num_groups, channels[0]),
            nn.ReLU(inplace=True),
        ]
        width = channels[0]
        for level, wanted in enumerate(channels):
            for block in range(num_res_blocks):
                stride = 2 if level > 0 and block == 0 else 1
                shortcut = None
                if stride > 1 or width != wanted:
                    shortcut = nn.Sequential(
                        convolution(width, wanted, kernel_size=1, stride=stride, bias=False),
                        nn.GroupNorm(norm_num_groups, wanted),
                    )
                layers.append(ResNetBlock(width, wanted, spatial_dims, stride, shortcut, norm=norm))
                width = wanted
        self.layers = nn.Sequential(*layers)

    def features(self, x: Tensor) -> Tensor:
        """The last level (B, dim, …) of images ``x`` (B, C, …), its size that of the image over ``stride``."""
        return self.layers(x)

    def forward(self, x: Tensor) -> Tensor:
        """Codes (B, dim) of images ``x`` (B, C, …) in the model's range: the mean over the last level."""
        return self.features(x).flatten(2).mean(dim=2)


class MaskedAutoencoder(nn.Module):
    """An encoder with a light decoder that restores masked images from the encoder's last level.

    The task of SparK (Tian et al. 2023) with dense convolutions: masked patches are given a constant.

    Args:
        encoder: what is to learn.
        hidden_channels: of the decoder.
    """

    def __init__(self, encoder: ImageEncoder, *, hidden_channels: int = 128) -> None:
        super().__init__()
        self.encoder = encoder
        dims = encoder.spatial_dims
        convolution = Conv[Conv.CONV, dims]
        self.decoder = nn.Sequential(
            convolution(encoder.dim, hidden_channels, kernel_size=3, padding=1),
            nn.SiLU(),
            convolution(hidden_channels, encoder.in_channels * encoder.stride**dims, kernel_size=1),
        )

    def forward(self, x: Tensor, timesteps: Tensor | None = None) -> Tensor:
        """Images (B, C, …) from masked images; ``timesteps`` are taken, as trainers give them, but say nothing."""
        output = pixelshuffle(self.decoder(self.encoder.features(x)), self.encoder.spatial_dims, self.encoder.stride)
        return output[(..., *(slice(size) for size in x.shape[2:]))]
