"""Mahalanobis distance, pixel by pixel, of an image from several reconstructions of it."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from common.anomaly.filters import grey_closing
from common.errors import InputError
from common.options import choice, number

__all__ = ["body_region", "check_mahalanobis", "mahalanobis"]

_LARGEST_HOLE = 9  # pixels


def body_region(image: Tensor) -> Tensor:
    """Where any channel of images (B, C, …) is above 0, small holes closed: (B, 1, …), boolean.

    The darkest part of a brain may be 0 as the background is. What lies between the body and the border is no hole.
    """
    margin = _LARGEST_HOLE - 1
    occupied = F.pad((image > 0).any(dim=1, keepdim=True).float(), [margin] * (2 * (image.ndim - 2)))
    closed = grey_closing(occupied, _LARGEST_HOLE) > 0
    for axis, size in enumerate(image.shape[2:], start=2):
        closed = closed.narrow(axis, margin, size)
    return closed


def check_mahalanobis(count: int, ridge: float) -> None:
    """Stop unless there is a distance from ``count`` reconstructions with this ``ridge``.

    Raises:
        InputError: fewer than two reconstructions, or a ridge that is not above 0.
    """
    if count < 2:
        raise InputError(f"{count} reconstructions", "have no covariance", "make at least 2")
    if number("ridge", ridge) <= 0:
        raise InputError(f"ridge {ridge}", "leaves the covariance singular", "use a small positive number, e.g. 0.01")


def mahalanobis(
    image: Tensor,
    reconstructions: Tensor,
    region: Tensor | None = None,
    *,
    ridge: float = 0.01,
    terms: Literal["whitened", "product"] = "whitened",
) -> Tensor:
    """How unusual each pixel is among ``n`` reconstructions, given how pixels vary together (arXiv 2407.12474).

    With the mean μ and the covariance Σ (plus ``ridge`` on its diagonal) of all pixels of the region, the squared
    distance of the image as a whole is (x-μ)ᵀ Σ⁻¹ (x-μ). It is shared out among the pixels in one of two ways:

    * ``whitened``: squares of Σ^(-1/2) (x-μ), the symmetric root. They are never negative, and their sum is the whole.
    * ``product``: [Σ⁻¹ (x-μ)]_i (x-μ)_i, as in the authors' code. Their sum is the whole too, but a term may be
      negative; such a pixel is given 0.

    Σ has as many rows as there are pixels, but only n directions differ from the ridge: everything is computed from
    the n x n products of the reconstructions (Woodbury's identity), exactly, in O(n² P), in double precision.

    Args:
        image: (B, C, …).
        reconstructions: (n, B, C, …), n at least 2.
        region: (B, 1, …), 1 where pixels count; ``None`` counts all.
        ridge: λ on the diagonal of Σ, above 0.
        terms: how the distance is shared out.

    Returns:
        (B, 1, …): the root of each pixel's share, summed over channels; 0 outside the region. Finite for finite images.

    Raises:
        InputError: as ``check_mahalanobis``, or an unknown kind of terms.
    """
    count = reconstructions.shape[0]
    check_mahalanobis(count, ridge)
    choice("terms", terms, ("whitened", "product"))

    # 1. Centred on the mean; what lies outside the region varies with nothing and is nowhere off the mean.
    inside = torch.ones_like(image) if region is None else (region > 0).expand_as(image)
    samples = reconstructions.double().transpose(0, 1) * inside[:, None]
    mean = samples.mean(dim=1)
    centred = (samples - mean[:, None]).flatten(2)
    offset = (image.double() * inside - mean).flatten(1)

    # 2. Σ = λ 1 + Σ_k s_k v_k v_kᵀ, with s_k from the n x n matrix of products and v_k ∝ u_k · centred.
    energies, vectors = torch.linalg.eigh(centred @ centred.mT)
    spread = energies.clamp(min=0) / (count - 1)
    projection = vectors.mT @ (centred @ offset[..., None])

    # 3. f(Σ) δ = f(λ) δ + Σ_k (f(s_k + λ) - f(λ)) v_k v_kᵀ δ, the difference over the length of v_k written without
    # subtraction, so that directions without energy need no exception.
    if terms == "whitened":
        root, roots = ridge**0.5, (spread + ridge).sqrt()
        scaled, weight = offset / root, -1 / ((count - 1) * root * roots * (root + roots))
    else:
        scaled, weight = offset / ridge, -1 / ((count - 1) * ridge * (spread + ridge))
    correction = centred.mT @ (vectors @ (weight[..., None] * projection))
    filtered = scaled + correction[..., 0]
    shares = filtered.square() if terms == "whitened" else filtered * offset
    shares = shares.reshape(image.shape).sum(dim=1, keepdim=True)
    return shares.clamp(min=0).sqrt().to(image.dtype)
