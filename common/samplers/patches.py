"""Patched estimates: one box at a time is noised and estimated from its clean surroundings (Behrendt et al. 2023)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise, product
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor

from common.diffusion import Generators, Noise, gaussian_noise
from common.errors import InputError
from common.networks import Denoiser
from common.options import choice, whole_number
from common.samplers.estimate import estimate_states
from common.samplers.walk import Callback

__all__ = ["Overlap", "Patch", "box_mask", "patch_boxes", "patched_estimate"]

Overlap = Literal["none", "cut", "average"]
Box = tuple[slice, ...]


class Patch(NamedTuple):
    """Where to noise (``box``), and which part of the box's estimate enters the result (``paste``)."""

    box: Box
    paste: Box


def patch_boxes(size: Sequence[int], patch_size: int | Sequence[int], overlap: Overlap = "none") -> list[Patch]:
    """A grid of boxes that covers an image; the last axis changes fastest.

    Args:
        size: of the image, one number a spatial axis.
        patch_size: of the boxes, one number for all axes or one each.
        overlap: ``none`` puts box beside box, and where the size is no multiple moves the last one inside; the others
            spread boxes evenly, at most half a box apart, and ``cut`` divides their overlaps in the middle, while
            ``average`` takes the mean there.

    Raises:
        InputError: unknown overlap, or boxes that are empty, larger than the image, or of other dimensions.
    """
    choice("overlap", overlap, get_args(Overlap))
    given = patch_size if isinstance(patch_size, list | tuple) else [patch_size] * len(size)
    sides = [whole_number("patch_size", side, 1) for side in given]
    if len(sides) != len(size) or not all(0 < side <= whole for side, whole in zip(sides, size, strict=False)):
        raise InputError(
            f"patch_size {patch_size}", f"does not fit an image of {tuple(size)}", "use 1 to its size on each axis"
        )
    axes = [_intervals(whole, side, overlap) for whole, side in zip(size, sides, strict=True)]
    return [Patch(*zip(*intervals, strict=True)) for intervals in product(*axes)]


def _intervals(size: int, side: int, overlap: Overlap) -> list[tuple[slice, slice]]:
    """Box and paste region of every patch along one axis."""
    stride = side if overlap == "none" else max(side // 2, 1)
    count = math.ceil((size - side) / stride) + 1
    if overlap == "none":
        starts = [min(i * stride, size - side) for i in range(count)]
        cuts = starts[1:]
    else:
        starts = np.linspace(0, size - side, count).round().astype(int).tolist()
        cuts = [(left + side + right) // 2 for left, right in pairwise(starts)]
    boxes = [slice(start, start + side) for start in starts]
    if overlap == "average":
        return [(box, box) for box in boxes]
    return list(zip(boxes, [slice(*ends) for ends in pairwise([0, *cuts, size])], strict=True))


def box_mask(x: Tensor, boxes: Sequence[Box]) -> Tensor:
    """1 inside box i, 0 outside: (len(boxes), 1, …) with the spatial size, type and device of ``x`` (B, C, …)."""
    mask = x.new_zeros(len(boxes), 1, *x.shape[2:])
    for index, box in enumerate(boxes):
        mask[index, 0][box] = 1
    return mask


def patched_estimate(
    denoiser: Denoiser,
    x: Tensor,
    level: int,
    patches: Sequence[Patch],
    *,
    noise: Noise = gaussian_noise,
    generator: Generators = None,
    callback: Callback | None = None,
    **conditioning: Tensor,
) -> Tensor:
    """Noise an image inside one box at a time, estimate it at once, and put the boxes' estimates together.

    Args:
        denoiser: estimates image and noise.
        x: image (B, C, …) in the model's range.
        level: to noise to.
        patches: of ``patch_boxes``; their paste regions cover the image.
        noise: kind of noise; one field a case, of which every box takes its part.
        generator: source of randomness, one for all or one a case.
        callback: sees the estimates, one call a box.
        **conditioning: for the network, tensors (B, …).

    Returns:
        x̂_0 (B, C, …).

    Raises:
        InputError: the level is not in the schedule.
    """
    noised = denoiser.schedule.add_noise(x, noise(x, generator), level)
    inside = box_mask(x, [patch.box for patch in patches])[:, None].bool()
    states = torch.where(inside, noised, x)
    levels = [level] * len(patches)
    estimates = estimate_states(denoiser, states, levels, callback=callback, **conditioning).x0
    weights = box_mask(x, [patch.paste for patch in patches])
    weights = (weights / weights.sum(dim=0))[:, None]
    return (weights * estimates).sum(dim=0)
