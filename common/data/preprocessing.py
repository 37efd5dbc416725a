"""The one way of an image from its file to the network, and back: the same for training, inference and evaluation."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Literal

import torch
from monai.data import MetaTensor
from monai.transforms import (
    CenterSpatialCropd,
    Compose,
    CropForegroundd,
    DivisiblePadd,
    EnsureTyped,
    Lambdad,
    LoadImaged,
    Orientationd,
    RandAdjustContrastd,
    RandAffined,
    RandBiasFieldd,
    RandFlipd,
    RandGaussianSmoothd,
    RandSpatialCropd,
    ResizeWithPadOrCropd,
    SelectItemsd,
    Spacingd,
    SpatialPadd,
    SqueezeDimd,
    Transform,
)

from common.data.masks import marked_from
from common.data.scaling import Scaling
from common.data.transforms import (
    AntiAliasd,
    BrainMaskd,
    FullScaled,
    HealthyMaskd,
    PicturesToVolumesd,
    RobustIntensityd,
    SelectLeveld,
)
from common.errors import InputError
from common.options import number, whole_number

__all__ = ["Preprocessing", "SliceTraining"]

# x to the right, y to the back, z upwards: a slice array shown transposed looks like a picture of the slice.
_AXES = "RPS"
_INTENSITIES = ["image", "twin"]
_IMAGES = [*_INTENSITIES, "brain_mask", "mask"]
_KEPT = [*_IMAGES, "label", "case", "subject"]


class Preprocessing(Compose):
    """From files to a case for the network; invertible, so that results return to the geometry of the input.

    Pictures become volumes of one slice. Then: orientation, brain mask, the slices at the level that the weights
    know, in-plane resampling with anti-aliasing, crop to the brain, padding, robust intensity to [0, 1] with 0
    outside the brain.

    Args:
        spatial_size: smallest in-plane size (x, y) in pixels; larger brains keep their size.
        pixdim: in-plane pixel size in mm; ``None`` keeps the image's own. Pictures count as 1 mm.
        size_divisor: in-plane sizes become multiples of it.
        fixed_size: crop to ``spatial_size`` too, so that training batches have one size.
        brain_mask: how to find the brain where no mask is given (``auto``, ``mni``, ``none``; see ``BrainMaskd``).
        slice_mm: level of pictures in mm (see ``PicturesToVolumesd``).
        slice_range_mm: levels of a volume to use (see ``SelectLeveld``); ``None`` or "none" uses all.
        space: space of volumes (``auto``, ``mni``, ``native``; see ``SelectLeveld``).
        percentiles: inside the brain, that become 0 and ``top``; ``None`` or "none" trusts intensities that are
            comparable already: [0, 1], or 8 bits, which are divided by 255.
        top: intensity of the upper percentile.
        weights: of the network; ``preprocessing.json`` beside them, if there is one, says what pixel size, percentiles
            and top have to be.

    Attributes:
        scaling: in space and intensity, what the weights depend on.

    A case then has ``image`` (C, x, y, z), ``brain_mask`` (1, x, y, z) and, where there are any, ``mask``
    (1, x, y, z) and ``twin`` (C, x, y, z), all ``MetaTensor``; it keeps its ``label``, ``case`` and ``subject``.

    Raises:
        InputError: unknown option, weights that were trained with another scaling, or an image that cannot be prepared
            (with its file).
    """

    def __init__(
        self,
        *,
        spatial_size: Sequence[int] = (80, 96),
        pixdim: Sequence[float] | None = (2.0, 2.0),
        size_divisor: int = 8,
        fixed_size: bool = False,
        brain_mask: str = "auto",
        slice_mm: float | None = None,
        slice_range_mm: Sequence[float] | Literal["none"] | None = None,
        space: str = "auto",
        percentiles: Sequence[float] | Literal["none"] | None = (1.0, 99.0),
        top: float = 0.8,
        weights: str | None = None,
    ) -> None:
        # "none", because MONAI's command line takes None for an argument that is not given.
        level, window = _pair("slice_range_mm", slice_range_mm), _pair("percentiles", percentiles)
        self.scaling = Scaling(pixdim, window, top)
        if weights is not None:
            self.scaling.check(weights)
        size = [*_size(spatial_size), -1]
        options: dict[str, Any] = {"allow_missing_keys": True}
        steps: list[Any] = [
            # Spacingd takes all `image_…` for metadata; MONAI Label has `image_path`.
            SelectItemsd([*_KEPT, "slice_mm"], **options),
            _loader(),
            EnsureTyped(_IMAGES, dtype=torch.float32, **options),
            PicturesToVolumesd(_IMAGES, None if slice_mm is None else number("slice_mm", slice_mm)),
            Orientationd(_IMAGES, axcodes=_AXES, labels=None, **options),
            BrainMaskd(brain_mask),
            HealthyMaskd(),
            SelectLeveld(_IMAGES, level, space),
        ]
        if pixdim is not None:
            in_plane = (float(pixdim[0]), float(pixdim[1]), -1.0)  # the third axis keeps its spacing
            modes = ("bilinear", "bilinear", "nearest", "nearest")
            steps.append(AntiAliasd(_INTENSITIES, in_plane))
            steps.append(Spacingd(_IMAGES, pixdim=in_plane, mode=modes, padding_mode="zeros", **options))
        steps += [
            CropForegroundd(_IMAGES, source_key="brain_mask", allow_smaller=False, **options),
            SpatialPadd(_IMAGES, spatial_size=size, **options),
            DivisiblePadd(_IMAGES, k=(size_divisor, size_divisor, 1), **options),
        ]
        if fixed_size:
            steps.append(ResizeWithPadOrCropd(_IMAGES, spatial_size=size, **options))
        steps += [
            FullScaled(_INTENSITIES) if window is None else RobustIntensityd(_INTENSITIES, *window, top),
            Lambdad("mask", _to_binary, **options),
            SelectItemsd(_KEPT, **options),
        ]
        super().__init__(steps)


def _loader() -> LoadImaged:
    """MONAI's reader of images; that a decoder for GPUs is missing, which it says where pydicom is, concerns nobody."""
    logging.getLogger("monai.data.nvimgcodec_pydicom_plugin").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="NvImgCodecPydicomReader")
        return LoadImaged(_IMAGES, ensure_channel_first=True, image_only=True, allow_missing_keys=True)


def _pair(name: str, value: Sequence[float] | str | None) -> tuple[float, float] | None:
    if value is None or value == "none":
        return None
    try:
        low, high = map(float, value)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{name} {value!r}", "is not a pair of numbers", f"write --{name} '[LOW,HIGH]' or none"
        ) from error
    return low, high


def _size(value: Sequence[int]) -> tuple[int, int]:
    """Two sizes in pixels."""
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise InputError(f"spatial_size {value}", "is no pair of sizes", "give two in pixels, e.g. [80,96]")
    return whole_number("spatial_size", value[0], 1), whole_number("spatial_size", value[1], 1)


def _to_binary(mask: MetaTensor) -> MetaTensor:
    return (mask >= marked_from(float(mask.max())) - 1e-5).to(mask.dtype)


def _to_range(image: MetaTensor) -> MetaTensor:
    return image.clamp(0, 1)


class SliceTraining(Compose):
    """Preprocessing and augmentation for training a 2-D network: cases with ``image`` (C, x, y), id and truth.

    A volume gives one slice at a time: a random one of those at the level, or the middle one without augmentation.
    The random steps come last, so that a ``CacheDataset`` keeps everything before them.

    Args:
        preprocessing: deterministic part.
        truth: what else a case brings: ``mask`` (1, x, y) of 0 and 1, or ``label`` of the slice, 0 is healthy. The mask
            says what a slice is; a case without one hands its own label to every slice. A ``twin`` (C, x, y), the
            slice without its lesion, comes along where a case has one, changed as the image is.
        augment: random slice, left-right flip, rotation, scale, shift and gamma; off for validation.
        flip_prob: probability of the flip.
        rotate_degrees: largest rotation.
        scale: largest relative change of size.
        translate: largest shift in pixels.
        gamma: range of the exponent on intensities, applied to every other image.
        bias_field_prob: probability of a smooth multiplicative field, as of an MR coil.
        blur_prob: probability of a Gaussian blur, σ up to a pixel.

    Attributes:
        scaling: of ``preprocessing``.
    """

    def __init__(
        self,
        preprocessing: Preprocessing,
        *,
        truth: Literal["mask", "label"] | None = None,
        augment: bool = True,
        flip_prob: float = 0.5,
        rotate_degrees: float = 10.0,
        scale: float = 0.1,
        translate: float = 4.0,
        gamma: Sequence[float] = (0.8, 1.25),
        bias_field_prob: float = 0.0,
        blur_prob: float = 0.0,
    ) -> None:
        one_slice = (-1, -1, 1)
        intensities = ["image"] if truth is None else _INTENSITIES
        both = intensities if truth is None else [*intensities, "mask"]
        options: dict[str, Any] = {"allow_missing_keys": True}
        kept = [*both, "case"] if truth != "label" else [*both, "label", "case"]
        steps: list[Any] = [*preprocessing.transforms, SelectItemsd(kept, **options)]
        if augment:
            steps.append(RandSpatialCropd(both, roi_size=one_slice, random_size=False, **options))
        else:
            steps.append(CenterSpatialCropd(both, roi_size=one_slice, **options))
        steps.append(SqueezeDimd(both, dim=-1, **options))
        if truth == "label":
            steps.append(_SliceLabeld())
        if augment:
            affine = RandAffined(
                both,
                prob=1.0,
                rotate_range=math.radians(rotate_degrees),
                scale_range=(scale, scale),
                translate_range=(translate, translate),
                mode=["nearest" if key == "mask" else "bilinear" for key in both],
                padding_mode="zeros",
                **options,
            )
            steps += [
                RandFlipd(both, prob=flip_prob, spatial_axis=0, **options),
                affine,
                RandAdjustContrastd(intensities, prob=0.5, gamma=(float(gamma[0]), float(gamma[1])), **options),
            ]
        if augment and bias_field_prob > 0:
            field = RandBiasFieldd(intensities, prob=bias_field_prob, degree=3, coeff_range=(-0.1, 0.1), **options)
            steps += [field, Lambdad(intensities, _to_range, **options)]
        if augment and blur_prob > 0:
            sigma = (0.25, 1.0)
            steps.append(RandGaussianSmoothd(intensities, sigma, sigma, prob=blur_prob, **options))
        steps.append(EnsureTyped(both, dtype=torch.float32, track_meta=False, **options))
        super().__init__(steps)
        self.scaling: Scaling | None = getattr(preprocessing, "scaling", None)


class _SliceLabeld(Transform):
    """``label``: whether the slice's mask holds anything, or else the case's own, as 0 or 1; the mask goes."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        case = dict(data)
        mask = case.pop("mask", None)
        case["label"] = int(bool(case["label"])) if mask is None else int(bool(mask.any()))
        return case
