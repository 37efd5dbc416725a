"""A denoising UNet that is conditioned on an image as a whole (Behrendt et al. 2023, arXiv 2312.04215)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from monai.networks.nets.diffusion_model_unet import DiffusionUNetResnetBlock
from torch import Tensor, nn

from common.errors import InputError
from common.networks.encoder import ImageEncoder
from common.networks.unet import DenoisingUNet
from common.networks.weights import load_weights

__all__ = ["ConditionedUNet"]


class ConditionedUNet(DenoisingUNet):
    """``DenoisingUNet`` whose residual blocks are scaled and shifted by the noise level and the code of an image.

    The embedding of the level [d] and that of the code [d] stand side by side; from both, every residual block makes
    a scale and a shift after its second normalisation. An image reaches the decoder through the bottleneck of its
    code alone, which tells contrast and anatomy at large, but no place.

    Args:
        spatial_dims: 2 or 3.
        in_channels: image channels.
        out_channels: output channels.
        encoder: makes codes of images; trained together with the rest.
        **kwargs: of ``DenoisingUNet``.
    """

    encoder_parts: tuple[str, ...] = (*DenoisingUNet.encoder_parts, "class_embedding", "encoder")
    """Modules that ``freeze`` takes for the encoder."""

    def __init__(
        self, spatial_dims: int, in_channels: int, out_channels: int, *, encoder: ImageEncoder, **kwargs: Any
    ) -> None:
        super().__init__(spatial_dims, in_channels, out_channels, **kwargs)
        dim = 4 * self.block_out_channels[0]
        # MONAI's network adds an embedding of `class_labels` to that of the level. With each padded by zeros to its
        # own half, the sum is both side by side, and MONAI's forward pass serves as it is.
        code_embed = nn.Sequential(nn.Linear(encoder.dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.time_embed: nn.Module = _Half(self.get_submodule("time_embed"), 0, dim)
        self.class_embedding: nn.Module = _Half(code_embed, dim, 0)
        self.num_class_embeds = encoder.dim
        for parent in list(self.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, DiffusionUNetResnetBlock):
                    setattr(parent, name, _ScaleShiftBlock.like(child))
        self.encoder = encoder

    def load_encoder(self, path: str | Path) -> Self:
        """Load weights of a pre-trained encoder (in place); an empty path leaves the encoder as it is.

        Raises:
            InputError: as ``load_weights``.
        """
        if str(path):
            load_weights(self.encoder, path)
        return self

    def encode(self, image: Tensor) -> Tensor:
        """Codes (B, dim) of images (B, C, …) in the model's range, to be given as ``condition`` again and again.

        Raises:
            InputError: channels or dimensions that the network does not have.
        """
        if image.ndim != self.spatial_dims + 2 or image.shape[1] != self.image_channels:
            raise InputError(
                f"condition of shape {tuple(image.shape)}",
                f"is not (batch, {self.image_channels}, …) with {self.spatial_dims} spatial dimensions",
                "give the image, or its code as encode() makes it",
            )
        return self.encoder(image)

    def forward(  # type: ignore[override]
        self,
        x: Tensor,
        timesteps: Tensor | None = None,
        context: Tensor | None = None,
        *,
        condition: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Output of the network for states ``x`` (B, C, …) at levels ``timesteps`` (B,).

        Args:
            x: states.
            timesteps: levels; without them level 0.
            context: as MONAI's network takes it.
            condition: images (B, C, …) in the model's range, or their codes (B, dim); without it the code is 0.
            **kwargs: of MONAI's network.

        Raises:
            InputError: channels or sizes that the network cannot take.
        """
        if condition is None:
            condition = self._no_code(x)
        elif condition.ndim > 2:
            condition = self.encode(condition)
        return super().forward(x, timesteps, context, class_labels=condition, **kwargs)

    def _no_code(self, x: Tensor) -> Tensor:
        return torch.zeros(x.shape[0], self.encoder.dim, dtype=x.dtype, device=x.device)

    def _embed(self, x: Tensor, timesteps: Tensor) -> Tensor:
        return super()._embed(x, timesteps) + self.class_embedding(self._no_code(x))


class _Half(nn.Module):
    """Embedding layers whose output is padded with zeros ``before`` and ``after``."""

    def __init__(self, layers: nn.Module, before: int, after: int) -> None:
        super().__init__()
        self.layers, self.padding = layers, (before, after)

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(self.layers(x), self.padding)


class _ScaleShiftBlock(DiffusionUNetResnetBlock):
    """MONAI's residual block, where the embedding scales and shifts after the second normalisation (Dhariwal 2021)."""

    @classmethod
    def like(cls, block: DiffusionUNetResnetBlock) -> _ScaleShiftBlock:
        """A block of the same sizes, for an embedding twice as long."""
        made = cls(
            block.spatial_dims,
            block.channels,
            2 * block.emb_channels,
            block.out_channels,
            block.up,
            block.down,
            block.norm1.num_groups,
            block.norm1.eps,
        )
        made.time_emb_proj = nn.Linear(made.emb_channels, 2 * made.out_channels)
        return made

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.nonlinearity(self.norm1(x))
        for resample in (self.upsample, self.downsample):
            if resample is not None:
                x, h = resample(x), resample(h)
        h = self.norm2(self.conv1(h))
        weights = self.time_emb_proj(self.nonlinearity(emb))
        scale, shift = weights.reshape(*weights.shape, *(1,) * self.spatial_dims).chunk(2, dim=1)
        h = self.conv2(self.nonlinearity(h * (1 + scale) + shift))
        return self.skip_connection(x) + h
