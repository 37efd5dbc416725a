"""The preprocessing steps that MONAI does not have, as dictionary transforms on ``MetaTensor`` volumes (C, x, y, z)."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import Crop, Cropd, MapTransform, Transform
from scipy import ndimage

from common.data.brain_mask import MNI_AFFINE, MNI_SHAPE, estimate_brain_mask, mni_brain_mask
from common.data.kinds import is_dicom, kind
from common.errors import InputError
from common.options import choice

__all__ = [
    "AntiAliasd",
    "BrainMaskd",
    "FullScaled",
    "HealthyMaskd",
    "PicturesToVolumesd",
    "RobustIntensityd",
    "SelectLeveld",
    "case_name",
    "like",
]

_NIFTI_MNI152 = 4
_VERTEX_MM = 80.0  # top of the brain in MNI space
Data = Mapping[Hashable, Any]


def case_name(data: Data) -> str:
    """What to call a case in a message: its file if known, else its id; that of a DICOM series may name a patient."""
    image = data.get("image")
    name = str((image.meta.get("filename_or_obj") if isinstance(image, MetaTensor) else image) or "")
    if not name or (data.get("case") and (Path(name).is_dir() or is_dicom(name))):
        return str(data.get("case", "case"))
    return name


def like(values: Any, image: MetaTensor) -> MetaTensor:
    """``values`` as float32 with the geometry and history of ``image``, so that what undoes one undoes the other."""
    tensor = torch.as_tensor(np.ascontiguousarray(values) if isinstance(values, np.ndarray) else values)
    history = copy.deepcopy(image.applied_operations)
    return MetaTensor(tensor.to(torch.float32), meta=copy.deepcopy(image.meta), applied_operations=history)


class PicturesToVolumesd(MapTransform):
    """Make a picture (C, x, y) a volume of one slice (C, x, y, 1): 1 mm pixels, x to the right, y to the back.

    A NIfTI file of two axes is such a volume already, whose last axis was not written: it keeps its own affine.

    Args:
        keys: images; volumes pass untouched.
        slice_mm: level of the slice. Pictures of the size of the ICBM 152 template are then placed in MNI space; a
            case may have its own ``slice_mm``.
    """

    def __init__(self, keys: KeysCollection, slice_mm: float | None = None) -> None:
        super().__init__(keys, allow_missing_keys=True)
        self.slice_mm = slice_mm

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        """Return the case with volumes only."""
        case = dict(data)
        level = case.get("slice_mm", self.slice_mm)
        for key in self.key_iterator(case):
            image: MetaTensor = case[key]
            if image.ndim != 3:
                continue
            affine = _affine(image, level)
            meta = {**image.meta, "affine": torch.from_numpy(affine), "spatial_shape": (*image.shape[1:], 1)}
            meta["original_affine"] = affine
            case[key] = MetaTensor(image.as_tensor()[..., None], meta=meta)
        return case


def _affine(image: MetaTensor, level: float | None) -> np.ndarray:
    """Where a single slice (C, x, y) lies: as its NIfTI header says, or as a picture at a level."""
    if kind(str(image.meta.get("filename_or_obj", ""))) == "NIfTI":
        return np.asarray(image.meta["affine"], dtype=np.float64)
    affine = np.diag([1.0, -1.0, 1.0, 1.0])
    if level is not None:
        affine[2, 3] = float(level)
        if tuple(image.shape[1:]) == MNI_SHAPE[:2]:
            affine[:2, 3] = MNI_AFFINE[0, 3], MNI_AFFINE[1, 3] + MNI_SHAPE[1] - 1
    return affine


class BrainMaskd(Transform):
    """Add ``brain_mask`` (1, x, y, z) to a case: the one given, else by ``method``.

    Args:
        method: ``auto`` (estimated from the image), ``mni`` (the template's, for images in MNI space) or ``none``
            (everything).

    Raises:
        InputError: unknown method, another shape than the image, or no brain found.
    """

    METHODS = ("auto", "mni", "none")

    def __init__(self, method: str = "auto") -> None:
        choice("brain_mask", method, self.METHODS)
        self.method = method

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        """Return the case with its mask as 0 and 1."""
        case = dict(data)
        image: MetaTensor = case["image"]
        shape = tuple(image.shape[1:])
        if "brain_mask" in case:
            mask = np.asarray(case["brain_mask"])[0] > 0
            if mask.shape != shape:
                raise InputError(case_name(data), f"is {shape}, its brain mask {mask.shape}", "use one grid for both")
        elif self.method == "none":
            mask = np.ones(shape, dtype=bool)
        elif self.method == "mni":
            mask = mni_brain_mask(shape, np.asarray(image.affine))
        else:
            mask = estimate_brain_mask(np.asarray(image).mean(axis=0), tuple(np.asarray(image.pixdim, dtype=float)))
        if not mask.any():
            raise InputError(case_name(data), "no brain found", "give a brain_mask, or use --brain_mask none")
        case["brain_mask"] = like(mask[None], image)
        return case


class HealthyMaskd(Transform):
    """Give a case with ``label`` 0 and no ``mask`` an empty one: its truth is known without a file."""

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        """Return the case with its mask, where that is clear."""
        case = dict(data)
        if "mask" not in case and case.get("label") == 0:
            case["mask"] = like(torch.zeros_like(case["image"].as_tensor()[:1]), case["image"])
        return case


class SelectLeveld(Cropd):
    """Keep the axial slices of a volume that lie at a level of the head; the inverse puts zeros around them.

    In MNI space the level is the slice's own z. Elsewhere it is measured from the top of the brain, which lies at
    +80 mm in MNI space. A volume that does not reach the level so estimated is kept whole, with a warning.

    Args:
        keys: volumes to crop.
        range_mm: lowest and highest level in mm (MNI); ``None`` keeps all slices.
        space: ``mni``, ``native``, or ``auto``, which trusts the NIfTI code for MNI space.

    Raises:
        InputError: an empty range, unknown space, or a volume that has no slice (in MNI space), or none with a brain,
            in the range.
    """

    def __init__(self, keys: KeysCollection, range_mm: tuple[float, float] | None, space: str = "auto") -> None:
        super().__init__(keys, cropper=Crop(), allow_missing_keys=True)
        choice("space", space, ("auto", "mni", "native"))
        if range_mm is not None and not range_mm[0] < range_mm[1]:
            raise InputError(f"slice_range_mm {list(range_mm)}", "is empty", "give [lowest, highest] in mm")
        self.range_mm, self.space = range_mm, space

    def __call__(self, data: Data, lazy: bool | None = None) -> dict[Hashable, Any]:
        """Return the case with its volumes cropped along the last axis."""
        case = dict(data)
        slices = (slice(None), slice(None), self._slices(case))
        for key in self.key_iterator(case):
            case[key] = self.cropper(case[key], slices)
        if "brain_mask" in case and not case["brain_mask"].any():
            remedy = "give another --slice_range_mm, or a brain_mask that reaches there"
            raise InputError(case_name(data), f"has no brain in its slices at {list(self.range_mm or ())} mm", remedy)
        return case

    def _slices(self, case: Data) -> slice:
        image: MetaTensor = case["image"]
        depth = image.shape[-1]
        if self.range_mm is None or depth == 1:
            return slice(0, depth)
        centres = np.tile([*((size - 1) / 2 for size in image.shape[1:]), 1.0], (depth, 1))
        centres[:, 2] = np.arange(depth)
        level = (centres @ np.asarray(image.affine, dtype=np.float64).T)[:, 2]
        codes = (image.meta.get("sform_code"), image.meta.get("qform_code"))
        mni = self.space == "mni" or (self.space == "auto" and any(int(code or 0) == _NIFTI_MNI152 for code in codes))
        if not mni:
            brain = np.asarray(case["brain_mask"])[0].any(axis=(0, 1))
            level += _VERTEX_MM - level[brain].max()
        inside = np.flatnonzero((level >= self.range_mm[0]) & (level <= self.range_mm[1]))
        if inside.size:
            return slice(int(inside[0]), int(inside[-1]) + 1)
        reach = f"has slices from {level.min():.0f} to {level.max():.0f} mm, none in {list(self.range_mm)}"
        if mni:
            raise InputError(case_name(case), reach, "give another --slice_range_mm, or --space native")
        warnings.warn(f"{case_name(case)} {reach} (from the top of the brain); all slices are used", stacklevel=2)
        return slice(0, depth)


class AntiAliasd(MapTransform):
    """Smooth images along the axes that ``Spacingd`` will thin out, so that fine detail does not alias.

    Args:
        keys: images with a channel axis.
        pixdim: target voxel size in mm, as for ``Spacingd``; values ≤ 0 leave an axis alone.
    """

    def __init__(self, keys: KeysCollection, pixdim: tuple[float, ...]) -> None:
        super().__init__(keys, allow_missing_keys=True)
        self.pixdim = pixdim

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        """Return the case with smoothed images."""
        case = dict(data)
        for key in self.key_iterator(case):
            image: MetaTensor = case[key]
            ratios = [max(1.0, target / float(size)) for target, size in zip(self.pixdim, image.pixdim, strict=True)]
            # Full width at half maximum of the kernel: what is missing from the old voxel to the new.
            sigma = [math.sqrt(ratio**2 - 1) / 2.355 for ratio in ratios]
            case[key] = like(ndimage.gaussian_filter(np.asarray(image, dtype=np.float32), [0.0, *sigma]), image)
        return case


class RobustIntensityd(MapTransform):
    """Scale percentiles inside the brain to [0, ``top``], clip to [0, 1], and set everything outside to 0.

    Args:
        keys: images (C, …); each channel by itself.
        lower: percentile that becomes 0.
        upper: percentile that becomes ``top``.
        top: less than 1 leaves head-room for anomalies brighter than healthy tissue.

    Raises:
        InputError: percentiles that are no range from 0 to 100; or an image that is constant inside the brain.
    """

    def __init__(self, keys: KeysCollection, lower: float = 1.0, upper: float = 99.0, top: float = 0.8) -> None:
        super().__init__(keys, allow_missing_keys=True)
        if not 0 <= lower < upper <= 100:
            raise InputError(f"percentiles [{lower:g}, {upper:g}]", "are no range from 0 to 100", "give [low, high]")
        self.lower, self.upper, self.top = lower, upper, top

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        """Return the case with scaled images."""
        case = dict(data)
        brain = np.asarray(case["brain_mask"])[0] > 0.5
        for key in self.key_iterator(case):
            image = np.asarray(case[key], dtype=np.float32)
            scaled = np.zeros_like(image)
            for channel, target in zip(image, scaled, strict=True):
                low, high = np.percentile(channel[brain], [self.lower, self.upper])
                if not high > low:
                    raise InputError(case_name(data), "is constant inside the brain", "check image and brain mask")
                target[brain] = np.clip((channel[brain] - low) * (self.top / (high - low)), 0, 1)
            case[key] = like(scaled, case[key])
        return case


class FullScaled(MapTransform):
    """Take intensities as they are in [0, 1], or divide those of 8 bits by 255; everything outside the brain is 0.

    For images whose intensities are comparable already, so that a large lesion does not darken the rest.

    Args:
        keys: images (C, …).

    Raises:
        InputError: values below 0 or above 255.
    """

    def __init__(self, keys: KeysCollection) -> None:
        super().__init__(keys, allow_missing_keys=True)

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        """Return the case with scaled images."""
        case = dict(data)
        brain = np.asarray(case["brain_mask"]) > 0.5
        for key in self.key_iterator(case):
            image = np.asarray(case[key], dtype=np.float32)
            low, high = float(image.min()), float(image.max())
            if low < -1e-3 or high > 255 * (1 + 1e-3):
                reach = f"has values from {low:.3g} to {high:.3g}"
                raise InputError(case_name(data), reach, "scale it to [0, 1], or give percentiles")
            scale = 1 / 255 if high > 1 + 1e-3 else 1.0
            case[key] = like(np.clip(image * scale, 0, 1) * brain, case[key])
        return case
