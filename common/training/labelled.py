"""Batches that bring a truth: the class of a slice, or the mask of its lesion, and often a twin without the lesion.

A slice and its twin are augmented alike and noised alike, so that nothing tells them apart but the lesion.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from common.anomaly import dilate
from common.diffusion import NoiseSchedule, case_generators, training_target
from common.networks import HEALTHY
from common.samplers import class_log_probability
from common.training.batch import DenoisingBatch, TrainingPair
from common.training.variational import variance_target

__all__ = ["ClassBatch", "ClassifierBatch", "ReconstructionBatch", "SegmentationBatch"]


class _LabelledBatch(DenoisingBatch):
    """Images with ``label``; twins follow behind them in the batch, healthy."""

    def read(self, batchdata: dict[str, Any], device: torch.device | str | None) -> tuple[Tensor, dict[str, Tensor]]:
        image, truth = super().read(batchdata, device)
        label = torch.as_tensor(batchdata["label"]).long().to(image.device)
        if "twin" in batchdata:
            twin, _ = super().read({"image": batchdata["twin"]}, device)
            image, label = torch.cat([image, twin]), torch.cat([label, torch.full_like(label, HEALTHY)])
        return image, {**truth, "label": label}


class ClassBatch(_LabelledBatch):
    """Noised images, with their class as ``class_labels``; some are not told it, so that guidance may be without.

    Args:
        schedule: of the process.
        class_dropout: probability of the null class instead (Sanchez et al. 2022: 0.35, drawn for each case by itself).
        null_class: its number, that of the network (its ``null_class``).
        learned_variance: the network says the variance besides, and ``HybridLoss`` is its loss.
        **kwargs: of ``DenoisingBatch``.
    """

    def __init__(
        self,
        schedule: NoiseSchedule,
        *,
        class_dropout: float = 0.0,
        null_class: int = 2,
        learned_variance: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(schedule, **kwargs)
        self.class_dropout, self.null_class, self.learned_variance = class_dropout, null_class, learned_variance

    def pair(self, x0: Tensor, t: Tensor, generators: Sequence[torch.Generator], **truth: Tensor) -> TrainingPair:
        """State and target of images ``x0`` (B, C, …) in [-1, 1] at levels ``t`` (B,), and ``label`` (B,)."""
        label = truth["label"]
        if self.class_dropout > 0:
            dropped = [float(torch.rand((), generator=each)) < self.class_dropout for each in generators]
            label = label.masked_fill(torch.tensor(dropped, device=label.device), self.null_class)
        pair = super().pair(x0, t, generators)
        target = variance_target(pair.target, t) if self.learned_variance else pair.target
        return pair._replace(target=target, conditioning={"class_labels": label})


class ClassifierBatch(_LabelledBatch):
    """Noised images, with their class, one-hot (B, classes), as the target of a classifier.

    Args:
        schedule: of the process.
        num_classes: classes; 0 is healthy.
        **kwargs: of ``DenoisingBatch``; ``levels=(0, 0)`` with ``noised=False`` trains on clean images.
        noised: noise the images; without it they stay as they are.
    """

    def __init__(self, schedule: NoiseSchedule, *, num_classes: int = 2, noised: bool = True, **kwargs: Any) -> None:
        super().__init__(schedule, **kwargs)
        self.num_classes, self.noised = num_classes, noised

    def pair(self, x0: Tensor, t: Tensor, generators: Sequence[torch.Generator], **truth: Tensor) -> TrainingPair:
        """Noised images ``x0`` (B, C, …) at levels ``t`` (B,), and their classes ``label`` (B,) one-hot."""
        state = self.schedule.add_noise(x0, self.noise(x0, generators), t) if self.noised else x0
        return TrainingPair(state, F.one_hot(truth["label"], self.num_classes).to(x0.dtype))

    def show(self, network: Callable[..., Tensor], batchdata: dict[str, Any], level: int) -> tuple[Tensor, Tensor]:
        """For pictures: states, and where the classifier looks for their class, scaled to the model's range."""
        x0, truth = self.read(batchdata, None)
        t = torch.full((x0.shape[0],), level if self.noised else 0, device=x0.device)
        with torch.enable_grad():
            state = self.pair(x0, t, case_generators(range(x0.shape[0])), **truth).state.requires_grad_()
            likelihood = class_log_probability(network, HEALTHY)(state, int(t[0]))
            (gradient,) = torch.autograd.grad(likelihood.sum(), state)
        looks = gradient.abs().mean(dim=1, keepdim=True)
        largest = looks.flatten(1).amax(dim=1).clamp(min=1e-12).reshape(-1, *(1,) * (x0.ndim - 1))
        return state.detach(), 2 * looks / largest - 1


class SegmentationBatch(DenoisingBatch):
    """The mask of a lesion, noised, under its image: the network sees both and says what the mask is (Wolleb 2022).

    Args:
        schedule: of the process.
        lesion_weight: of the loss in a lesion and up to 4 pixels around it, and in the same place of the twin. Lesions
            are so small that an empty mask is nearly right everywhere; a network takes long to see that it is not.
        **kwargs: of ``DenoisingBatch``; the state is the noised mask (B, 1, …), of 0 and 1 where it is clean.
    """

    def __init__(self, schedule: NoiseSchedule, *, lesion_weight: float = 1.0, **kwargs: Any) -> None:
        super().__init__(schedule, **kwargs)
        self.lesion_weight = lesion_weight

    def read(self, batchdata: dict[str, Any], device: torch.device | str | None) -> tuple[Tensor, dict[str, Tensor]]:
        """Images (B, C, …) in [-1, 1], twins behind them, and their masks (B, 1, …)."""
        image, truth = super().read(batchdata, device)
        mask = (torch.as_tensor(batchdata["mask"]).to(image) > 0.5).to(image)
        # The region multiplies output and target, which a squared error squares.
        weight = 1 + (self.lesion_weight**0.5 - 1) * dilate(mask, 9)
        if "twin" in batchdata:
            twin, _ = super().read({"image": batchdata["twin"]}, device)
            image, mask = torch.cat([image, twin]), torch.cat([mask, torch.zeros_like(mask)])
            weight = torch.cat([weight, weight])
        return image, {**truth, "mask": mask, "weight": weight}

    def pair(self, x0: Tensor, t: Tensor, generators: Sequence[torch.Generator], **truth: Tensor) -> TrainingPair:
        """State and target of images ``x0`` (B, C, …) and their ``mask`` (B, 1, …) at levels ``t`` (B,)."""
        mask = truth["mask"]
        noise = self.noise(mask, generators)
        noised = self.schedule.add_noise(mask, noise, t)
        target = training_target(mask, noise, self.schedule, t, self.prediction_type)
        return TrainingPair(noised, target, truth["weight"], {"image": x0})


class ReconstructionBatch(_LabelledBatch):
    """Images as they are, which are the target too: what an autoencoder is trained on, healthy or not.

    Args:
        schedule: not used, but what trainers share.
        **kwargs: of ``DenoisingBatch``.
    """

    def __init__(self, schedule: NoiseSchedule, **kwargs: Any) -> None:
        super().__init__(schedule, "sample", **{**kwargs, "levels": (0, 0)})

    def pair(self, x0: Tensor, t: Tensor, generators: Sequence[torch.Generator], **truth: Tensor) -> TrainingPair:
        """Images ``x0`` (B, C, …) in [-1, 1], twice."""
        return TrainingPair(x0, x0)
