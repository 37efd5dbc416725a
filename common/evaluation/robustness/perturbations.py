"""Ways in which a scan may be worse than those that a bundle was trained on."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from monai.transforms import (
    AdjustContrast,
    GaussianSmooth,
    RandBiasField,
    RandGaussianNoise,
    Rotate,
    Transform,
)
from scipy import ndimage
from torch import Tensor

from common.diffusion import case_seed

__all__ = ["PERTURBATIONS", "Perturb", "Perturbation"]

Case = dict[Hashable, Any]
Change = Callable[[Case, float, int], Case]


@dataclass(frozen=True)
class Perturbation:
    """One way, at several strengths.

    Args:
        name: in a word or two.
        unit: of the strengths.
        strengths: mild first.
        change: ``(case, strength, seed) -> case``; ``region``, where scores count, stays unless it moves.
        meaning: what it stands for.
    """

    name: str
    unit: str
    strengths: tuple[float, ...]
    change: Change
    meaning: str


class Perturb(Transform):
    """Apply a perturbation to a preprocessed case (``image`` (C, x, y, z) in [0, 1], ``brain_mask``, ``mask``).

    The image stays in [0, 1] and zero outside its brain mask. The random numbers depend on the case, not
    on the strength.

    Args:
        perturbation: the way.
        strength: one of its strengths.
        seed: of the run.
    """

    def __init__(self, perturbation: Perturbation, strength: float, seed: int = 0) -> None:
        self.perturbation, self.strength, self.seed = perturbation, strength, seed

    def __call__(self, data: Mapping[Hashable, Any]) -> Case:
        """Return a changed copy."""
        seed = case_seed(self.seed, self.perturbation.name, data["case"]) % 2**32
        case = self.perturbation.change(dict(data), self.strength, seed)
        image = case["image"].clamp(0, 1) * (case["brain_mask"] > 0)
        return {**case, "image": _like(case["image"], image)}


def _like(template: Tensor, values: Any) -> Tensor:
    """The values as what the template is, with its geometry."""
    result = template.clone()
    return result.copy_(torch.as_tensor(np.asarray(values)))


def _image(change: Callable[[Tensor, float, int], Any]) -> Change:
    """A change of the image alone."""

    def apply(case: Case, strength: float, seed: int) -> Case:
        plain = torch.as_tensor(np.asarray(case["image"]).copy())
        return {**case, "image": _like(case["image"], change(plain, strength, seed))}

    return apply


def _noise(image: Tensor, std: float, seed: int) -> Any:
    return RandGaussianNoise(prob=1, std=std, sample_std=False).set_random_state(seed)(image)


def _blur(image: Tensor, sigma: float, seed: int) -> Any:
    return GaussianSmooth(sigma=(sigma, sigma, 1e-3))(image)


def _gamma(image: Tensor, gamma: float, seed: int) -> Any:
    return AdjustContrast(gamma=gamma)(image)


def _bias(image: Tensor, strength: float, seed: int) -> Any:
    """One field for all slices; the mean of the image stays, since the preprocessing would bring it back."""
    field = RandBiasField(prob=1, degree=3, coeff_range=(-strength, strength)).set_random_state(seed)
    factor = torch.as_tensor(np.asarray(field(torch.ones_like(image[..., 0]))))[..., None]
    return image * factor * (image.mean() / (image * factor).mean().clamp_min(1e-6))


def _resolution(image: Tensor, factor: float, seed: int) -> Any:
    slices = image.movedim(-1, 0)
    size = [max(1, round(side / factor)) for side in slices.shape[2:]]
    coarse = F.interpolate(slices, size=size, mode="area")
    return F.interpolate(coarse, size=slices.shape[2:], mode="bilinear").movedim(0, -1)


def _rotation(case: Case, degrees: float, seed: int) -> Case:
    rotated = dict(case)
    for key, mode in (("image", "bilinear"), ("brain_mask", "nearest"), ("mask", "nearest"), ("region", "nearest")):
        turn = Rotate(angle=(0, 0, math.radians(degrees)), keep_size=True, mode=mode, padding_mode="zeros")
        rotated[key] = _like(case[key], turn(torch.as_tensor(np.asarray(case[key]).copy())))
    return rotated


def _small_mask(case: Case, pixels: float, seed: int) -> Case:
    inside = np.asarray(case["brain_mask"])[0] > 0
    plane = ndimage.generate_binary_structure(2, 1)[..., None]
    smaller = ndimage.binary_erosion(inside, plane, iterations=int(pixels))
    return {**case, "brain_mask": _like(case["brain_mask"], smaller[None].astype(np.float32))}


def _shifted_mask(case: Case, pixels: float, seed: int) -> Case:
    inside = np.asarray(case["brain_mask"])
    moved = ndimage.shift(inside, (0, pixels, 0, 0), order=0)
    return {**case, "brain_mask": _like(case["brain_mask"], moved)}


PERTURBATIONS: tuple[Perturbation, ...] = (
    Perturbation("noise", "σ, share of the range", (0.02, 0.05, 0.1), _image(_noise), "Gaussian noise"),
    Perturbation("blur", "σ in pixels", (0.5, 1.0, 2.0), _image(_blur), "Gaussian blur in plane"),
    Perturbation("gamma", "exponent", (0.7, 0.85, 1.2, 1.5), _image(_gamma), "another contrast"),
    Perturbation(
        "bias field", "largest coefficient", (0.03, 0.1, 0.2), _image(_bias), "smooth field of degree 3, mean kept"
    ),
    Perturbation("rotation", "degrees", (5.0, 10.0, 20.0), _rotation, "in plane, masks with it"),
    Perturbation("resolution", "factor", (1.5, 2.0, 3.0), _image(_resolution), "coarser in plane, and back"),
    Perturbation("mask too small", "pixels", (1.0, 2.0, 4.0), _small_mask, "brain mask eroded; scored in the true one"),
    Perturbation("mask shifted", "pixels", (2.0, 4.0), _shifted_mask, "brain mask moved; scored in the true one"),
)
"""All of them are applied to the preprocessed image, on the grid of the network."""
