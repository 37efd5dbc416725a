"""Where a classifier would have to see something else to change its mind (Fontanella et al. 2023, ACAT)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from common.anomaly.filters import dilate
from common.errors import InputError
from common.quantile import quantile as quantile_of

__all__ = ["counterfactual_saliency", "saliency_mask"]


def counterfactual_saliency(
    image: Tensor,
    encode: Callable[[Tensor], Tensor],
    decode: Callable[[Tensor], Tensor],
    classify: Callable[[Tensor], Tensor],
    *,
    targets: Sequence[int] = (1, 0),
    steps: int = 20,
    step_size: float = 0.001,
    penalty: float = 100.0,
) -> Tensor:
    """Saliency of an image from small moves of its code that bring a classifier to each of two classes.

    From the code z₀ of the image, gradient steps lower CE(classify(decode(z)), target) + ``penalty`` · mean |z - z₀|.
    What a move changes in the decoded image, scaled to a largest value of 1, is averaged over the targets. Cases do not
    see each other.

    Args:
        image: (B, C, …) in the model's range.
        encode: image to code.
        decode: code to image.
        classify: image to logits (B, classes); parameters should be frozen.
        targets: classes to move towards.
        steps: gradient steps a target.
        step_size: of a step, in units of the gradient scaled to a root mean square of 1 a case; a raw gradient would
            make the move depend on how sure the classifier is.
        penalty: of the distance from z₀.

    Returns:
        Saliency (B, C, …), not negative, with a largest value of 1 a case (0 where nothing moves).

    Raises:
        InputError: no target, or no step.
    """
    if not targets or steps < 1:
        raise InputError(f"targets {list(targets)}, steps {steps}", "move nothing", "give targets, and 1 step or more")
    with torch.enable_grad():
        start = encode(image).detach()
        before = decode(start).detach()
        total = torch.zeros_like(image)
        for target in targets:
            code = start.clone()
            for _ in range(steps):
                code.requires_grad_()
                likelihood = torch.log_softmax(classify(decode(code)).float(), dim=1)[:, target]
                distance = (code - start).abs().flatten(1).mean(dim=1)
                (gradient,) = torch.autograd.grad((penalty * distance - likelihood).sum(), code)
                code = (code - step_size * _scaled(gradient)).detach()
            total += _to_one((decode(code).detach() - before).abs())
    return _to_one(total)


def saliency_mask(saliency: Tensor, *, quantile: float = 0.9, width: int = 5, region: Tensor | None = None) -> Tensor:
    """The most salient part of an image, widened: what is to be drawn anew.

    Args:
        saliency: (B, C, …), not negative, of one channel or several, which are taken together.
        quantile: share of the values of a case that is left out.
        width: side of the cube, odd, that widens the part; every value that a blur with such a kernel would reach.
        region: (B, 1, …), true where values count; everywhere without it.

    Returns:
        Boolean mask of the shape of ``saliency``.

    Raises:
        InputError: a quantile outside [0, 1).
    """
    if not 0 <= quantile < 1:
        raise InputError(f"saliency quantile {quantile}", "is outside [0, 1)", "use e.g. 0.9")
    counts = torch.ones_like(saliency, dtype=torch.bool) if region is None else (region > 0).expand_as(saliency)
    mask = torch.zeros_like(counts)
    for index, (case, inside) in enumerate(zip(saliency, counts, strict=True)):
        if inside.any():
            mask[index] = case > quantile_of(case[inside].float(), quantile, start_dim=0)
    return (dilate(mask.float(), width) > 0) & counts


def _scaled(gradient: Tensor) -> Tensor:
    size = gradient.square().flatten(1).mean(dim=1).sqrt().clamp(min=1e-12)
    return gradient / size.reshape(-1, *(1,) * (gradient.ndim - 1))


def _to_one(values: Tensor) -> Tensor:
    scale = 1 / values.flatten(1).amax(dim=1).clamp(min=1e-12)
    return values * scale.reshape(-1, *(1,) * (values.ndim - 1))
