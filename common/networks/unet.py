"""The denoising UNet that the bundles share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from monai.networks.nets.diffusion_model_unet import DiffusionModelUNet, get_timestep_embedding
from monai.networks.utils import pixelshuffle, pixelunshuffle
from torch import Tensor

from common.errors import InputError
from common.networks.devices import channels_last

__all__ = ["DenoisingUNet", "check_input"]


class DenoisingUNet(DiffusionModelUNet):
    """MONAI's ``DiffusionModelUNet`` with a patch stem, flash attention, a check of sizes, and access to its features.

    Args:
        spatial_dims: 2 or 3.
        in_channels: image channels.
        out_channels: output channels.
        patch_size: each block of ``patch_size`` voxels a side becomes channels at the input and voxels again at the
            output (Shi et al. 2016; Hoogeboom et al. 2023 for diffusion). 2 makes a 2-D network about four times
            faster; 1 is the plain UNet.
        channels: of each level.
        norm_num_groups: groups of the normalisation; divides every entry of ``channels``.
        use_flash_attention: equal result, less memory and time.
        **kwargs: further arguments of ``DiffusionModelUNet``.

    Raises:
        InputError: ``attention_levels`` that are not booleans.
    """

    encoder_parts: tuple[str, ...] = ("conv_in", "time_embed", "down_blocks")
    """Modules that ``freeze`` takes for the encoder."""

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        *,
        patch_size: int = 1,
        channels: Sequence[int] = (64, 128, 128),
        norm_num_groups: int = 16,
        use_flash_attention: bool = True,
        **kwargs: Any,
    ) -> None:
        levels = kwargs.get("attention_levels", ())
        if not all(isinstance(level, bool) for level in levels):  # MONAI's command line reads `true` as a word
            raise InputError(f"attention_levels {list(levels)}", "are not booleans", "write [True,False], as in Python")
        block = patch_size**spatial_dims
        super().__init__(
            spatial_dims,
            in_channels * block,
            out_channels * block,
            channels=channels,
            norm_num_groups=norm_num_groups,
            use_flash_attention=use_flash_attention,
            **kwargs,
        )
        self.spatial_dims, self.image_channels, self.patch_size = spatial_dims, in_channels, patch_size
        self.size_divisor = patch_size * 2 ** (len(channels) - 1)
        channels_last(self)  # before anything else, DDP say, looks at the weights

    def forward(  # type: ignore[override]
        self, x: Tensor, timesteps: Tensor | None = None, context: Tensor | None = None, **kwargs: Any
    ) -> Tensor:
        """Output of the network for states ``x`` (B, C, …) at levels ``timesteps`` (B,).

        Without ``timesteps`` the level is 0: shape checks call a network with its image alone.

        Raises:
            InputError: channels or sizes that the network cannot take.
            RuntimeError: traced without timesteps, which would freeze the level into the exported network.
        """
        self._check(x)
        if timesteps is None:
            if torch._C._get_tracing_state() is not None:
                raise RuntimeError("export the network with its timesteps: a trace without them is frozen at level 0")
            timesteps = torch.zeros(x.shape[0], dtype=torch.long, device=x.device)
        if self.patch_size == 1:
            return super().forward(x, timesteps, context, **kwargs)
        patches = pixelunshuffle(x, self.spatial_dims, self.patch_size)
        output = super().forward(patches, timesteps, context, **kwargs)
        return pixelshuffle(output, self.spatial_dims, self.patch_size)

    def features(self, x: Tensor, timesteps: Tensor) -> list[Tensor]:
        """Encoder features of ``x`` (B, C, …), one tensor (B, channels, …) a level; the decoder is not run."""
        self._check(x)
        if self.patch_size > 1:
            x = pixelunshuffle(x, self.spatial_dims, self.patch_size)
        embedding, context = self._embed(x, timesteps), self._context(x)
        hidden, features = self.conv_in(x), []
        for block in self.down_blocks:
            hidden, residuals = block(hidden_states=hidden, temb=embedding, context=context)
            # The last residual of a level that downsamples is already at the next resolution.
            features.append(residuals[-2] if block.downsampler is not None else residuals[-1])
        return features

    def _embed(self, x: Tensor, timesteps: Tensor) -> Tensor:
        return self.time_embed(get_timestep_embedding(timesteps, self.block_out_channels[0]).to(x.dtype))

    def _context(self, x: Tensor) -> Tensor | None:
        return None

    def _check(self, x: Tensor) -> None:
        check_input(x, self.spatial_dims, self.image_channels, self.size_divisor)


def check_input(x: Tensor, spatial_dims: int, channels: int, divisor: int) -> None:
    """Stop unless a network of so many dimensions and channels can take ``x``, its sizes multiples of ``divisor``.

    Raises:
        InputError: it cannot.
    """
    if x.ndim != spatial_dims + 2 or x.shape[1] != channels:
        raise InputError(
            f"network input of shape {tuple(x.shape)}",
            f"is not (batch, {channels}, {'height, width' if spatial_dims == 2 else 'x, y, z'})",
            "check channels and dimensions of the image against 'network_data_format' in metadata.json",
        )
    if any(size % divisor for size in x.shape[2:]):
        raise InputError(
            f"network input of size {tuple(x.shape[2:])}",
            f"is not divisible by {divisor}",
            "pad it (the inferers do so by themselves)",
        )
