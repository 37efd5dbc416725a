"""Denoising UNets that are told more: the class of an image, as embedding or token; or the image of a mask."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from monai.networks.blocks.spatialattention import SpatialAttentionBlock
from monai.networks.nets.diffusion_model_unet import SpatialTransformer
from torch import Tensor, nn

from common.networks.unet import DenoisingUNet
from common.options import choice

__all__ = ["HEALTHY", "ClassConditionedUNet", "ClassTokenUNet", "ImageConcatenatedUNet", "label_of"]

HEALTHY = 0  # the class of healthy images, everywhere
_CLASSES = {"healthy": HEALTHY, "diseased": 1}


def label_of(name: str) -> int:
    """The label of a class by its name, ``healthy`` or ``diseased``.

    Raises:
        InputError: another name.
    """
    choice("class", name, _CLASSES)
    return _CLASSES[name]


class ClassConditionedUNet(DenoisingUNet):
    """``DenoisingUNet`` with the embedding of a class added to that of the level (Dhariwal & Nichol 2021).

    Args:
        spatial_dims: 2 or 3.
        in_channels: image channels.
        out_channels: output channels.
        num_classes: classes; 0 is healthy, and ``num_classes`` itself is the null class: nothing is added (Ho &
            Salimans 2022).
        **kwargs: of ``DenoisingUNet``.

    Attributes:
        null_class: number of the null class.
    """

    def __init__(
        self, spatial_dims: int, in_channels: int, out_channels: int, *, num_classes: int = 2, **kwargs: Any
    ) -> None:
        super().__init__(spatial_dims, in_channels, out_channels, num_class_embeds=num_classes, **kwargs)
        self.null_class = num_classes
        vectors = self.get_parameter("class_embedding.weight")
        self.class_embedding = _ClassEmbedding(num_classes, vectors.shape[1], _weight=vectors)

    def forward(  # type: ignore[override]
        self,
        x: Tensor,
        timesteps: Tensor | None = None,
        context: Tensor | None = None,
        class_labels: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Output of the network for states ``x`` (B, C, …) at levels ``timesteps`` (B,).

        Args:
            x: states.
            timesteps: levels; without them level 0.
            context: as MONAI's network takes it.
            class_labels: classes (B,), integers; without them all are healthy.
            **kwargs: of MONAI's network.

        Raises:
            InputError: channels or sizes that the network cannot take.
        """
        return super().forward(x, timesteps, context, class_labels=_labels(x, class_labels, HEALTHY), **kwargs)

    def _embed(self, x: Tensor, timesteps: Tensor) -> Tensor:
        return super()._embed(x, timesteps) + self.class_embedding(_labels(x, None, HEALTHY)).to(x.dtype)


class ClassTokenUNet(DenoisingUNet):
    """``DenoisingUNet`` whose attention sees one token more, which stands for the class (Sanchez et al. 2022).

    The class becomes a vector, the zero vector for the null class, then a token; every attention block makes a key
    and a value of it and appends them to its own. Parameters that it shares with ``DenoisingUNet`` have the same names.

    Args:
        spatial_dims: 2 or 3.
        in_channels: image channels.
        out_channels: output channels.
        num_classes: classes; 0 is healthy, and ``num_classes`` itself is the null class: nothing is said.
        **kwargs: of ``DenoisingUNet``; at least one level should have attention.

    Attributes:
        null_class: number of the null class.
    """

    def __init__(
        self, spatial_dims: int, in_channels: int, out_channels: int, *, num_classes: int = 2, **kwargs: Any
    ) -> None:
        dim = kwargs.get("channels", (64,))[0]
        # MONAI's network for cross attention hands its context to every attention block, which is all that is needed:
        # the blocks themselves are replaced.
        super().__init__(
            spatial_dims, in_channels, out_channels, with_conditioning=True, cross_attention_dim=dim, **kwargs
        )
        self.null_class = num_classes
        self.class_vector = nn.Embedding(num_classes + 1, dim, padding_idx=num_classes)
        self.class_token = nn.Sequential(nn.Linear(dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        for parent in list(self.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, SpatialTransformer):
                    setattr(parent, name, _TokenAttention.instead_of(child, dim))

    def forward(  # type: ignore[override]
        self,
        x: Tensor,
        timesteps: Tensor | None = None,
        context: Tensor | None = None,
        class_labels: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Output of the network for states ``x`` (B, C, …) at levels ``timesteps`` (B,).

        Args:
            x: states.
            timesteps: levels; without them level 0.
            context: not used; the class takes its place.
            class_labels: classes (B,), integers; without them the null class.
            **kwargs: of MONAI's network.

        Raises:
            InputError: channels or sizes that the network cannot take.
        """
        return super().forward(x, timesteps, self._token(x, class_labels), **kwargs)

    def _context(self, x: Tensor) -> Tensor | None:
        return self._token(x, None)

    def _token(self, x: Tensor, class_labels: Tensor | None) -> Tensor:
        vector = self.class_vector(_labels(x, class_labels, self.null_class))
        return self.class_token(vector)[:, None]


class ImageConcatenatedUNet(DenoisingUNet):
    """``DenoisingUNet`` that draws something under an image, which it sees as further channels (Wolleb et al. 2022).

    Args as ``DenoisingUNet``; ``in_channels`` counts the image's channels and those that are drawn.
    """

    def forward(  # type: ignore[override]
        self,
        x: Tensor,
        timesteps: Tensor | None = None,
        context: Tensor | None = None,
        *,
        image: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Output of the network for states ``x`` (B, D, …) at levels ``timesteps`` (B,).

        Args:
            x: states of what is drawn; without ``image`` both together, (B, C + D, …).
            timesteps: levels; without them level 0.
            context: as MONAI's network takes it.
            image: (B, C, …) in the model's range.
            **kwargs: of MONAI's network.

        Raises:
            InputError: channels or sizes that the network cannot take.
        """
        return super().forward(x if image is None else torch.cat([image, x], dim=1), timesteps, context, **kwargs)


class _ClassEmbedding(nn.Embedding):
    """Vectors (B, dim) of classes (B,); of numbers that are not a class, the null class, the zero vector."""

    def forward(self, labels: Tensor) -> Tensor:
        known = labels < self.num_embeddings
        return super().forward(labels * known) * known[:, None]


class _TokenAttention(SpatialAttentionBlock):
    """MONAI's self-attention over places, with tokens (B, n, dim) appended to keys and values."""

    def __init__(self, dim: int, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.token_kv = nn.Linear(dim, 2 * self.attn.inner_dim)

    @classmethod
    def instead_of(cls, block: SpatialTransformer, dim: int) -> _TokenAttention:
        """Attention of the same width and heads as a block of cross attention."""
        attention = block.transformer_blocks[0].attn1
        groups, eps = block.norm.num_groups, block.norm.eps
        return cls(dim, block.spatial_dims, block.in_channels, attention.dim_head, groups, eps)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        attn, heads = self.attn, self.attn.num_heads
        places = self.norm(x).flatten(2).transpose(1, 2)
        token_key, token_value = self.token_kv(context).chunk(2, dim=2)
        key = torch.cat([attn.to_k(places), token_key], dim=1)
        value = torch.cat([attn.to_v(places), token_value], dim=1)
        query, key, value = (each.unflatten(2, (heads, -1)).transpose(1, 2) for each in (attn.to_q(places), key, value))
        attended = F.scaled_dot_product_attention(query, key, value, scale=attn.scale).transpose(1, 2).flatten(2)
        return attn.out_proj(attended).transpose(1, 2).reshape(x.shape) + x


def _labels(x: Tensor, class_labels: Tensor | None, otherwise: int) -> Tensor:
    if class_labels is not None:
        return class_labels
    return torch.full((x.shape[0],), otherwise, dtype=torch.long, device=x.device)
