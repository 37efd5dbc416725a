"""Corruption of the images that a denoiser starts from: parts are hidden in the image or in its spectrum.

Masked DDPM (Iqbal et al. 2023) masks the image, or its frequencies; its released code does both together.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from common.diffusion import to_model_range
from common.errors import InputError
from common.training.draws import along, random_integers, uniform

__all__ = ["MaskedCorruption"]


class MaskedCorruption:
    """Hide parts of healthy images, each image by its own generator.

    With ``patches`` alone, up to ``max_patches`` rectangles are set to background. With ``frequency`` alone, the whole
    image loses its low or its high frequencies. With both, as in the released code, the rectangles are filled from the
    image that lost them. The background always stays as it was.

    Args:
        patches: hide rectangles.
        frequency: hide frequencies.
        max_patches: 0 to so many rectangles an image, evenly.
        patch_share: largest side of a rectangle, as a share of the extent of the foreground along the first axis; the
            smallest is half of it.
        margin: pixels that rectangles keep from the ends of the foreground's bounding box, where there is room.
        radius: smallest and largest half-width of the square (cube) around frequency 0 that is hidden, or kept.
        low_pass: probability of keeping the square instead of hiding it.

    Raises:
        InputError: nothing to hide, or a setting out of range.
    """

    def __init__(
        self,
        *,
        patches: bool = True,
        frequency: bool = True,
        max_patches: int = 5,
        patch_share: float = 0.18,
        margin: int = 5,
        radius: Sequence[int] = (2, 10),
        low_pass: float = 0.5,
    ) -> None:
        if not (patches or frequency):
            raise InputError("corruption", "hides neither patches nor frequencies", "leave it away, or switch one on")
        if not (max_patches > 0 and 0 < patch_share <= 1 and margin >= 0 and 0 <= low_pass <= 1):
            given = f"max_patches {max_patches}, patch_share {patch_share}, margin {margin}, low_pass {low_pass}"
            raise InputError(
                "corruption", f"{given} is out of range", "use at least 1 patch, a share in (0, 1], a probability"
            )
        if len(radius) != 2 or not 0 < radius[0] <= radius[1]:
            raise InputError(f"radius {radius}", "is no range", "give the smallest and the largest, from 1")
        self.patches, self.frequency, self.max_patches = patches, frequency, max_patches
        self.patch_share, self.margin, self.radius, self.low_pass = patch_share, margin, radius, low_pass

    def __call__(self, x: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """Corrupted images for ``x`` (B, C, …) in [-1, 1], background -1; same shape.

        Where high frequencies are left, values may leave [-1, 1].
        """
        foreground = (x > -1).any(dim=1, keepdim=True)
        fill = to_model_range(torch.zeros_like(x))
        if self.frequency:
            fill = self._filtered(x, generators)
        hidden = self._rectangles(foreground[:, 0], generators)[:, None] if self.patches else foreground
        return torch.where(hidden & foreground, fill, x)

    def _filtered(self, x: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """The images without their low frequencies, or with them alone."""
        draws, axes = uniform(2, generators, x.device), tuple(range(2, x.ndim))
        half = random_integers(self.radius[0], self.radius[1], draws[:, :1])
        inside = torch.ones_like(x[:, :1], dtype=torch.bool)
        for axis, size in enumerate(x.shape[2:]):
            distance = torch.arange(size, device=x.device) - size // 2
            kept = (distance >= -half) & (distance < half)  # 2 half wide, as published
            inside &= along(kept, axis, len(axes))[:, None]
        low_pass = (draws[:, 1] < self.low_pass).reshape(-1, *(1,) * (x.ndim - 1))
        image = (x.float() + 1) / 2  # the spectrum of an image whose background is 0
        spectrum = torch.fft.fftshift(torch.fft.fftn(image, dim=axes), dim=axes) * (inside == low_pass)
        return to_model_range(torch.fft.ifftn(torch.fft.ifftshift(spectrum, dim=axes), dim=axes).real).to(x.dtype)

    def _rectangles(self, foreground: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """True inside the rectangles (B, …) of images with that foreground."""
        dims = foreground.ndim - 1
        draws = uniform(1 + 2 * dims * self.max_patches, generators, foreground.device)
        count = random_integers(0, self.max_patches, draws[:, 0])
        sizes, places = draws[:, 1:].unflatten(1, (2, dims, self.max_patches)).unbind(1)
        ends = [_extent(foreground, axis) for axis in range(1, dims + 1)]
        largest = (self.patch_share * (ends[0][1] - ends[0][0] + 1)).long()
        wanted = torch.arange(self.max_patches, device=foreground.device) < count[:, None]
        hidden = torch.zeros_like(foreground)
        for index in range(self.max_patches):
            inside = wanted[:, index].reshape(-1, *(1,) * dims)
            for axis, (low, high) in enumerate(ends):
                side = random_integers(largest // 2, largest, sizes[:, axis, index])
                room = torch.maximum(high - self.margin - largest, low + self.margin)
                start = random_integers(low + self.margin, room, places[:, axis, index])
                line = torch.arange(foreground.shape[axis + 1], device=foreground.device)
                part = (line >= start[:, None]) & (line < (start + side)[:, None])
                inside = inside & along(part, axis, dims)
            hidden |= inside
        return hidden


def _extent(mask: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """First and last index along ``axis`` where each mask (B, …) has a true voxel; 0 and -1 of an empty one."""
    others = [each for each in range(1, mask.ndim) if each != axis]
    profile = mask.any(dim=others) if others else mask
    first = profile.int().argmax(dim=1)
    last = profile.shape[1] - 1 - profile.flip(1).int().argmax(dim=1)
    empty = ~profile.any(dim=1)
    return first.masked_fill(empty, 0), last.masked_fill(empty, -1)
