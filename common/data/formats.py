"""Reading one image file, or one DICOM series, with every doubt about its content raised as an error."""

from __future__ import annotations

import gzip
import math
import os
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.data.kinds import content, dicom_series, dicom_tags, kind, unlisted
from common.errors import InputError

__all__ = ["Image", "load"]

_COPY_AGAIN = "copy or export the file again"
_PROJECTIONS = {"CR", "DX", "MG", "RG", "XA", "RF", "IO", "PX"}


@dataclass(frozen=True)
class Image:
    """The content of one file.

    Args:
        array: the values, spatial axes first, then one axis of channels where there is more than one.
        channels: how many channels.
        affine: voxel to world, in mm (RAS); None for a picture, which has none.
        remarks: (problem, remedy) of what is odd, though not wrong.
    """

    array: np.ndarray[Any, Any]
    channels: int = 1
    affine: np.ndarray[Any, Any] | None = None
    remarks: tuple[tuple[str, str], ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """The spatial shape; a last axis of length one does not count."""
        shape: tuple[int, ...] = self.array.shape[:-1] if self.channels > 1 else self.array.shape
        return shape[:-1] if len(shape) == 3 and shape[-1] == 1 else shape


def load(path: str) -> Image:
    """Read one image, distrusting it.

    Args:
        path: a NIfTI, PNG, JPEG or DICOM file, or the folder of one DICOM series.

    Raises:
        InputError: it cannot be read, is damaged, is not what its name says, or has no usable geometry.
    """
    file = Path(path)
    if not os.path.lexists(file):
        raise InputError(path, "does not exist", "correct the path")
    if file.is_dir():
        return _load_dicom_folder(path)
    try:
        if file.stat().st_size == 0:
            raise InputError(path, "is empty (0 bytes)", _COPY_AGAIN)
        found = content(file)
    except OSError as error:
        raise InputError(path, f"cannot be read ({error.strerror})", "check the link or the access rights") from error
    claimed = kind(file)
    if found == "damaged gzip":
        raise InputError(path, "is damaged: its compressed data cannot be unpacked", _COPY_AGAIN)
    fitting = "gzipped NIfTI" if file.name.lower().endswith(".nii.gz") else claimed
    if found is None or found != fitting:
        problem = f"is named like {fitting or 'no image'}, but holds {found or 'something else'}"
        raise InputError(path, problem, "give the file the ending of what it is, or remove it")
    if claimed == "NIfTI":
        return _load_nifti(path)
    return _load_dicom(path, [path]) if claimed == "DICOM" else _load_picture(path)


def _unpacked_size(path: str) -> int:
    """Read a file to its end: gzip compares its check sum only there, and readers of NIfTI stop short of it."""
    if not path.lower().endswith(".gz"):
        return os.path.getsize(path)
    size = 0
    try:
        with gzip.open(path) as file:
            while block := file.read(1 << 20):
                size += len(block)
    except EOFError as error:
        raise InputError(path, "is cut off: the compressed data end too early", _COPY_AGAIN) from error
    except (OSError, zlib.error) as error:
        raise InputError(path, f"is damaged: {error}", _COPY_AGAIN) from error
    return size


def _load_nifti(path: str) -> Image:
    import nibabel
    from nibabel.openers import ImageOpener

    size = _unpacked_size(path)
    try:
        image = nibabel.load(path)
        header, shape, dtype = image.header, tuple(image.shape), image.get_data_dtype()
    except Exception as error:  # nibabel raises many types for a header that makes no sense
        raise InputError(path, f"has a NIfTI header that cannot be read ({error})", _COPY_AGAIN) from error
    if dtype.kind == "c" or dtype.names:
        what = "RGB colours" if dtype.names else "complex numbers"
        raise InputError(path, f"holds {what}", "save one file of real numbers for each channel (the magnitude, say)")
    if any(side < 1 for side in shape) or len(shape) < 2:
        raise InputError(path, f"has the impossible shape {shape}", _COPY_AGAIN)
    need = int(image.dataobj.offset) + math.prod(shape) * int(dtype.itemsize)
    if size < need:
        raise InputError(path, f"is cut off: its header promises {need} bytes, there are {size}", _COPY_AGAIN)
    if math.prod(shape[3:]) > 1:
        remedy = "extract the one volume that is meant, or save each channel as a file of its own"
        raise InputError(path, f"holds {math.prod(shape[3:])} volumes (shape {shape}), one is expected", remedy)
    with ImageOpener(path) as file:  # as it is written: loading mends a negative spacing in silence
        written = type(header).from_fileobj(file, check=False)
    _refuse_affine(path, image.affine, np.asarray(written["pixdim"][1:4]))
    remarks = []
    if header["qform_code"] == 0 and header["sform_code"] == 0:
        problem = "does not say how it lies in the head (its sform and qform codes are 0)"
        remarks.append((problem, "make sure that x runs to the left and y to the front, or convert it again"))
    if header["qform_code"] > 0 and header["sform_code"] > 0:
        off = float(np.abs(image.get_qform() - image.get_sform()).max())
        if off > 1e-2:
            problem = f"states two geometries (sform and qform, up to {off:.3g} apart)"
            remarks.append((problem, "make sure that the sform is right: it is the one used"))
    array = np.asanyarray(image.dataobj).reshape(shape[:3])
    return Image(array, affine=np.asarray(image.affine, float), remarks=tuple(remarks))


def _refuse_affine(path: str, affine: np.ndarray[Any, Any], pixdim: np.ndarray[Any, Any]) -> None:
    remedy = "repair the header from the source, or convert the DICOM series again"
    if not np.isfinite(affine).all() or not np.isfinite(pixdim).all():
        raise InputError(path, "has an affine or spacing with NaN or infinity in it", remedy)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if (pixdim < 0).any() or (spacing < 1e-3).any():
        stated = pixdim if (pixdim < 0).any() else spacing
        problem = f"has the spacing {' x '.join(f'{value:.3g}' for value in stated)} mm, it must be above 0"
        raise InputError(path, problem, remedy)
    if abs(np.linalg.det(affine[:3, :3] / spacing)) < 1e-3:
        raise InputError(path, "has a singular affine (two axes point the same way)", remedy)


def _load_picture(path: str) -> Image:
    from PIL import Image as Pictures

    try:
        with Pictures.open(path) as picture:
            picture.verify()
        with Pictures.open(path) as picture:  # verify() leaves the picture unusable, and does not decode it
            mode, array = picture.mode, np.asarray(picture)
    except Exception as error:  # a damaged picture can make Pillow raise nearly anything
        raise InputError(path, f"is damaged: {error}", _COPY_AGAIN) from error
    if mode not in ("1", "L", "I", "F", "RGB") and not mode.startswith("I;16"):
        raise InputError(path, f"has the colour mode {mode}", "save it as greyscale or RGB")
    return Image(array, channels=3 if mode == "RGB" else 1)


def _load_dicom_folder(path: str) -> Image:
    try:
        series = dicom_series(path) if os.access(path, os.R_OK | os.X_OK) else {}
    except RuntimeError as error:
        raise InputError(path, f"cannot be read ({error})", "check the access rights") from error
    if not series:
        raise InputError(path, "is a folder without a readable DICOM image", "give a file, or a folder of DICOM files")
    for file in unlisted(path, series):
        problem = "lies among the files of a DICOM series, but cannot be read as one of them"
        raise InputError(file, problem, "copy or export it again, or remove it if it is none of them")
    if len(series) > 1:
        problem = f"holds {len(series)} DICOM series: {', '.join(sorted(series))}"
        raise InputError(path, problem, "put each series into a folder of its own")
    return _load_dicom(path, next(iter(series.values())))


def _load_dicom(path: str, files: list[str]) -> Image:
    from monai.data import ITKReader

    try:
        _refuse_slices(path, [dicom_tags(file) for file in files])
        reader = ITKReader()
        array, meta = reader.get_data(reader.read(path))
    except RuntimeError as error:
        reason = re.sub(r" ?\(0x[0-9a-f]+\)", "", str(error).strip().splitlines()[-1])  # ITK names a place in memory
        raise InputError(path, f"is no DICOM image that can be decoded ({reason})", _COPY_AGAIN) from error
    channels = 1 if math.isnan(float(meta["original_channel_dim"])) else array.shape[-1]
    return Image(np.asarray(array), channels=channels, affine=np.asarray(meta["affine"], float))


def _refuse_slices(path: str, slices: list[dict[str, str]]) -> None:
    """Refuse slices that do not make one evenly spaced volume; ITK would stack them all the same."""
    first = slices[0]
    name = f"DICOM series {first.get('0020|000e', '?')}"
    if any(int(tags.get("0028|0008") or 1) > 1 for tags in slices):
        raise InputError(path, f"{name} is a multi-frame object", "convert it to NIfTI, or to one file a slice")
    if len(slices) == 1 and first.get("0008|0060") in _PROJECTIONS:
        return  # an X-ray has no position in space
    try:
        positions = np.array([tags["0020|0032"].split("\\") for tags in slices], float).reshape(-1, 3)
        axes = np.array([tags["0020|0037"].split("\\") for tags in slices], float).reshape(-1, 2, 3)
    except (KeyError, ValueError) as error:
        problem = f"{name} has no geometry (image position and orientation of each slice)"
        raise InputError(path, problem, "export the original series, not screenshots of it") from error
    if np.abs(axes - axes[0]).max() > 1e-2:
        raise InputError(path, f"{name} mixes slices of different orientation", "split it into one series each")
    depth = positions @ np.cross(axes[0, 0], axes[0, 1])
    order = np.argsort(depth)
    gaps = np.diff(depth[order])
    if len(gaps) == 0:
        return
    middle = float(np.median(gaps))
    if gaps.min() < 1e-3:
        problem = f"{name} has several slices at one position (time points or echoes, {len(slices)} slices)"
        raise InputError(path, problem, "split it into one series a volume")
    if np.abs(gaps - middle).max() > 0.1 * middle:
        problem = f"{name} has a gap: slices lie {gaps.min():.3g} to {gaps.max():.3g} mm apart"
        raise InputError(path, problem, "export the series again with all its slices")
    drift = np.abs(np.diff(positions[order] @ axes[0].T, axis=0)).max()
    if drift > 0.02 * middle:
        problem = f"{name} has slices that shift sideways by {drift:.3g} mm each (gantry tilt)"
        raise InputError(path, problem, "resample it to an upright volume (dcm2niix does)")
