"""Synthetic anomalies of graded severity, and how a network learns to undo them (Naval Marimont et al. 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from common.anomaly import gaussian_smooth
from common.diffusion import NoiseSchedule, gaussian_noise, level_of_severity, to_image_range, to_model_range
from common.errors import InputError
from common.training.batch import DenoisingBatch, TrainingPair
from common.training.draws import along, random_integers, random_places, uniform

__all__ = ["Degradation", "DegradationBatch", "Degraded"]

_SURFACE = 0.25  # how far a blob's surface moves in and out, as a share of its radius
_GRAIN = 1 / 16  # sigma of the field that moves it, as a share of the image's shortest side
_EDGES = (1.0, 8.0)  # pixels over which a shape fades out
_BANDS = (0.05, 0.5)  # half-width of the range of intensities that a bias changes


class Degraded(NamedTuple):
    """Images (B, C, …) with an anomaly, where it is (B, 1, …) in [0, 1], and how severe it is (B,) in [0, 1]."""

    image: Tensor
    shape: Tensor
    severity: Tensor


class Degradation:
    """Put one synthetic anomaly into each healthy image: foreign texture, and then a bias of intensity.

    An anomaly is an ellipsoid, a box, or an irregular blob around a place in the foreground, with a soft edge. Its
    texture comes from another place, possibly mirrored, of another image, and is mixed in with a share of 0 to 1. The
    bias adds or subtracts 0 to 1 where, inside the shape, the image is about as bright as at its centre. The severity
    is the larger of the share and the largest change by the bias.

    Args:
        radius: smallest and largest radius of a shape, as shares of the shortest side of the image.
        texture: probability of a foreign texture.
        bias: probability of a bias.

    Raises:
        InputError: radii that are no range, or probabilities that are none.
    """

    def __init__(self, *, radius: Sequence[float] = (0.04, 0.42), texture: float = 1.0, bias: float = 1.0) -> None:
        if len(radius) != 2 or not 0 < radius[0] <= radius[1]:
            raise InputError(f"radius {radius}", "is no range", "give the smallest and the largest, above 0")
        if not (0 <= texture <= 1 and 0 <= bias <= 1):
            raise InputError("degradation", f"texture {texture}, bias {bias} is no probability", "use 0 to 1")
        self.radius, self.texture, self.bias = radius, texture, bias

    def __call__(self, image: Tensor, foreign: Tensor, generators: Sequence[torch.Generator]) -> Degraded:
        """Degrade images (B, C, …) in [0, 1], background 0, with textures of ``foreign`` images of that shape.

        The background stays as it is. Images without foreground are returned with severity 0.
        """
        foreground = (image > 0).any(dim=1)
        draws = uniform(6, generators, image.device)
        centre = random_places(foreground, draws[:, 0])
        shape = self._shape(image, centre, generators) * foreground[:, None]

        share = (draws[:, 1] * (draws[:, 2] < self.texture)).reshape(-1, *(1,) * (image.ndim - 1))
        textured = image + share * shape * (_moved(foreign, centre, generators) - image)
        severity = share.flatten() * (textured != image).flatten(1).any(dim=1)

        sign = torch.where(draws[:, 3] < 0.5, -1.0, 1.0)
        change = sign * draws[:, 4] * (draws[:, 5] < self.bias)
        band = self._band(textured, centre, generators)
        biased = (textured + change.reshape(share.shape) * shape * band).clamp(0, 1)
        effective = (biased - textured).abs().flatten(1).amax(dim=1)
        return Degraded(biased, shape, torch.maximum(severity, effective))

    def _shape(self, image: Tensor, centre: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """Soft masks (B, 1, …) around the centres (B, axes)."""
        dims, shortest = image.ndim - 2, min(image.shape[2:])
        draws = uniform(2 + dims, generators, image.device)
        low, high = (share * shortest for share in self.radius)
        radii = low + draws[:, 2:] * (high - low)
        offsets = []
        for axis in range(dims):
            line = torch.arange(image.shape[axis + 2], device=image.device)
            offsets.append(along((line - centre[:, axis, None]) / radii[:, axis, None], axis, dims))
        offset = torch.stack(torch.broadcast_tensors(*offsets))
        kind = random_integers(0, 2, draws[:, 0]).reshape(-1, *(1,) * dims)
        field = gaussian_smooth(gaussian_noise(image[:, :1], generators), _GRAIN * shortest)[:, 0]
        field = field / field.flatten(1).std(dim=1).clamp(min=1e-6).reshape(-1, *(1,) * dims)
        surface = _SURFACE * field.clamp(-2, 2) * (kind == 2)
        distance = torch.where(kind == 1, offset.abs().amax(dim=0), offset.square().sum(dim=0).sqrt()) - surface
        edge = _EDGES[0] + draws[:, 1] * (_EDGES[1] - _EDGES[0])
        slope = (radii.amin(dim=1) / edge).reshape(-1, *(1,) * dims)
        return ((1 - distance) * slope + 0.5).clamp(0, 1)[:, None]

    def _band(self, image: Tensor, centre: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """Where images are about as bright as at the centre, blurred: (B, 1, …) in [0, 1]."""
        draws = uniform(1, generators, image.device)[:, 0]
        brightness = image.mean(dim=1, keepdim=True)
        cases = torch.arange(image.shape[0], device=image.device)
        here = brightness[(cases, torch.zeros_like(cases), *centre.T)]
        width = _BANDS[0] + draws * (_BANDS[1] - _BANDS[0])
        shape = (-1, *(1,) * (image.ndim - 1))
        return gaussian_smooth(((brightness - here.reshape(shape)).abs() < width.reshape(shape)).to(image.dtype), 1.0)


def _moved(image: Tensor, centre: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """Each image so moved that a random place of its foreground comes to its centre (B, axes), mirrored or not.

    What leaves at one end comes in at the other.
    """
    dims = image.ndim - 2
    draws = uniform(1 + dims, generators, image.device)
    place = random_places((image > 0).any(dim=1), draws[:, 0])
    for axis in range(dims):
        size = image.shape[axis + 2]
        step = torch.where(draws[:, 1 + axis] < 0.5, -1, 1)
        line = torch.arange(size, device=image.device)
        index = (place[:, axis, None] + step[:, None] * (line - centre[:, axis, None])) % size
        image = image.gather(axis + 2, along(index, axis, dims)[:, None].expand_as(image))
    return image


class DegradationBatch(DenoisingBatch):
    """Degrade images; the network is told how severely, as a level, and shall return the healthy image.

    Textures come from the next image of the batch, in validation from the image itself, so that a validation loss
    does not depend on the neighbours. The level is the one of the severity that came about
    (``common.diffusion.level_of_severity``); no level is drawn.

    Args:
        schedule: its levels are severities.
        degradation: makes the anomalies.
        validation_seed: as of ``DenoisingBatch``.
    """

    def __init__(
        self, schedule: NoiseSchedule, degradation: Degradation | None = None, validation_seed: int | None = None
    ) -> None:
        super().__init__(schedule, "sample", validation_seed=validation_seed)
        self.degradation = Degradation() if degradation is None else degradation

    def pair(self, x0: Tensor, t: Tensor, generators: Sequence[torch.Generator], **truth: Tensor) -> TrainingPair:
        """Degraded images, the healthy ``x0`` (B, C, …) in [-1, 1], and the levels of their severity.

        ``t`` has no effect.
        """
        image = to_image_range(x0)
        foreign = image.roll(1, dims=0) if self.validation_seed is None else image
        degraded = self.degradation(image, foreign, generators)
        levels = level_of_severity(self.schedule, degraded.severity)
        return TrainingPair(to_model_range(degraded.image), x0, conditioning={"timesteps": levels})
