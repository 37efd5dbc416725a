"""Synthetic lesions in T1 brain images: shapes, how they are drawn, and whole data sets with a known truth."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from monai.transforms import Compose, EnsureTyped, LoadImaged
from nibabel.filebasedimages import ImageFileError
from PIL import Image
from scipy import ndimage

from common.data import Case, load_cases, subject_of
from common.data.brain_mask import MNI_SHAPE
from common.data.discovery import searched_folder
from common.data.kinds import kind
from common.data.transforms import BrainMaskd, PicturesToVolumesd
from common.diffusion import case_seed
from common.errors import InputError
from common.files import check_writable

__all__ = ["CONTRASTS", "blob", "plant", "plant_dataset", "tissue"]

CONTRASTS = (-0.6, -0.45, -0.3, 0.3, 0.45)
_LEVELS_MM = 25  # shapes come from slices at most so far from the picture's own level
_SMALLEST = 25  # pixels of a lesion
_TUMOUR_RADII = (6.0, 18.0)
_TEXTURE_PX = 2.5  # grain of a lesion's texture
_CSF = 0.4  # below this share of the in-brain range a smoothed T1 image shows ventricle or a wide sulcus
_WHITE = 0.75  # above this share it shows white matter, which cannot get much brighter


def blob(shape: Sequence[int], centre: Sequence[float], radius: float, generator: np.random.Generator) -> np.ndarray:
    """An irregular blob: a ball whose surface a smooth random field moves in and out.

    Args:
        shape: of the result, 2-D or 3-D.
        centre: in pixels, inside ``shape``.
        radius: mean radius in pixels, at least 1; the surface stays between 0.5 and 1.5 radii from the centre.
        generator: source of the randomness.

    Returns:
        Boolean array of ``shape``, one connected piece.

    Raises:
        InputError: centre outside the image, or a radius below one pixel.
    """
    if len(centre) != len(shape) or not all(0 <= c < size for c, size in zip(centre, shape, strict=True)):
        raise InputError(f"centre {tuple(centre)}", f"is not inside {tuple(shape)}", "choose a point of the image")
    if not radius >= 1:
        raise InputError(f"radius {radius}", "is less than a pixel", "choose a larger one")
    reach = int(np.ceil(1.5 * radius))
    origin = [round(c) - reach for c in centre]
    axes = [start + np.arange(2 * reach + 1) for start in origin]
    squares = [((axis - c) / radius) ** 2 for axis, c in zip(axes, centre, strict=True)]
    distance = np.sqrt(sum(np.meshgrid(*squares, indexing="ij")))
    inside = distance < 1 + np.clip(0.25 * _smooth_noise(distance.shape, radius / 2, generator), -0.5, 0.5)
    labels, _ = ndimage.label(inside)
    piece = ndimage.binary_fill_holes(labels == labels[(reach,) * len(shape)])
    result = np.zeros(tuple(shape), dtype=bool)
    here = tuple(slice(max(0, o), o + 2 * reach + 1) for o in origin)
    there = tuple(slice(max(0, -o), max(0, -o) + size) for o, size in zip(origin, result[here].shape, strict=True))
    result[here] = piece[there]
    return result


def plant(
    image: np.ndarray,
    lesion: np.ndarray,
    *,
    contrast: float,
    brain_mask: np.ndarray,
    edge: float = 1.0,
    texture: float = 0.3,
    generator: np.random.Generator,
) -> np.ndarray:
    """Draw a lesion into an image, softly, and without a value that healthy tissue does not have.

    The anatomy stays visible through the lesion, as through an infiltrating one. Towards the ends of the in-brain
    range the change saturates, so that no lesion is found by being the darkest or the brightest spot.

    Args:
        image: any number of axes, any scale; integers stay integers.
        lesion: boolean, of the same shape.
        contrast: in units of the in-brain range (percentiles 1 to 99); above 0 brighter, below 0 darker.
        brain_mask: boolean, of the same shape; nothing outside it changes.
        edge: sigma in pixels of the Gaussian that softens the shape; on its rim the change is half of that inside.
        texture: strength of the lesion's own smooth texture, as a share of the contrast in [0, 1].
        generator: source of the texture.

    Returns:
        A new array with the dtype of ``image``, within the range of ``image``.

    Raises:
        InputError: shapes that differ, an empty lesion or mask, a constant brain, or a setting out of range.
    """
    if not image.shape == lesion.shape == brain_mask.shape:
        shapes = f"image {image.shape}, lesion {lesion.shape}, brain mask {brain_mask.shape}"
        raise InputError("lesion", f"shapes differ: {shapes}", "bring all three to one grid")
    if not (lesion & brain_mask).any():
        raise InputError("lesion", "has no pixel inside the brain", "choose another place")
    if not (-1 <= contrast <= 1 and contrast != 0 and edge >= 0 and 0 <= texture <= 1):
        given = f"contrast {contrast}, edge {edge}, texture {texture}"
        raise InputError("lesion", f"{given} is out of range", "use 0 < |contrast| ≤ 1, edge ≥ 0, texture in [0, 1]")
    values = image.astype(np.float64)
    low, high = _brain_range(values, brain_mask)
    grain = np.clip(_smooth_noise(image.shape, _TEXTURE_PX, generator) / 2, -1, 1)
    strength = ndimage.gaussian_filter(lesion.astype(np.float64), edge) * brain_mask
    change = abs(contrast) * (high - low) * strength * (1 + texture * grain)
    room = np.maximum(high - values if contrast > 0 else values - low, 0)
    # A small change is kept as it is; tanh bends a large one, so that the end of the range is never reached.
    change = np.where(room > 0, room * np.tanh(change / np.maximum(room, 1e-12)), 0)
    planted = values + np.sign(contrast) * change
    return (np.rint(planted) if np.issubdtype(image.dtype, np.integer) else planted).astype(image.dtype)


def tissue(image: np.ndarray, brain_mask: np.ndarray, contrast: float = -1.0) -> np.ndarray:
    """Where a lesion of a T1 image may lie: the brain without its outermost 4 pixels and without the ventricles.

    A bright lesion may lie in grey matter only: in white matter, the brightest tissue, it would not show.

    Args:
        image: T1, any scale, any number of axes.
        brain_mask: boolean, of the same shape.
        contrast: of the lesion, see ``plant``; only its sign counts.

    Returns:
        Boolean mask.

    Raises:
        InputError: the image is constant inside the brain.
    """
    values = image.astype(np.float64)
    low, high = _brain_range(values, brain_mask)
    level = (ndimage.gaussian_filter(values, 1.5) - low) / (high - low)
    allowed = ndimage.binary_erosion(brain_mask, iterations=4) & (level > _CSF)
    return allowed if contrast < 0 else allowed & (level < _WHITE)


def plant_dataset(
    dataset_dir: str | Path,
    output_dir: str | Path,
    *,
    split: str | None = "validation",
    shapes_dir: str | Path | None = None,
    seed: int = 0,
    repeats: int = 1,
    slice_mm: float = 23.0,
    contrasts: Sequence[float] = CONTRASTS,
) -> Path:
    """Write a data set with known lesions: each picture as it is, and once or more with a lesion drawn in.

    A case gets a ``tumour`` (one blob with a radius of 6 to 18 mm) or, every other case where shapes are given, a
    ``shape``: the lesions in an axial slice of a random patient, at most 25 mm from the level of the pictures. Shapes
    are always darker than their surroundings, as white-matter lesions are in T1. All else depends on the seed and the
    id of the case only.

    Args:
        dataset_dir: pictures of healthy T1 slices, axial, 8 bit, in any form that ``load_cases`` knows. Without brain
            masks of their own they must be on the in-plane grid of the ICBM 152 template (197×233 pixels).
        output_dir: gets ``datalist.json`` and the folders ``images``, ``masks`` and ``brain_masks`` of PNG files.
        split: of the data set; None takes all. The list names it so too; for None each case keeps its own. Where
            no case has one the list has none, and training divides it by subject; where some do, the others are
            ``validation``.
        shapes_dir: NIfTI lesion masks in MNI space.
        seed: of the run.
        repeats: versions of each picture with a lesion, each with one of its own.
        slice_mm: level of the pictures in MNI space.
        contrasts: to draw from, see ``plant``.

    Returns:
        Path of the ``datalist.json``. Each entry has ``image``, ``mask``, ``brain_mask``, ``label`` (0 or 1),
        ``subject``, ``case``, ``lesion`` (kind), ``contrast`` and ``pixels``; with a lesion also ``twin``, the picture
        as it was.

    Raises:
        InputError: data or shapes that cannot be used, pictures that are not healthy by label or mask, or a folder that
            cannot be written or lies in the data set.
    """
    if not contrasts:
        raise InputError("contrasts", "are empty", "give at least one")
    _refuse_within(Path(output_dir).resolve(), dataset_dir)
    shapes = [] if shapes_dir is None else _shape_files(Path(shapes_dir))
    check_writable(output_dir)
    prepare = Compose(
        [
            LoadImaged(["image", "brain_mask"], ensure_channel_first=True, image_only=True, allow_missing_keys=True),
            EnsureTyped(["image", "brain_mask"], dtype=torch.float32, allow_missing_keys=True),
            PicturesToVolumesd(["image", "brain_mask"], slice_mm),
            BrainMaskd("mni"),
        ]
    )
    output = Path(output_dir)
    entries: dict[str, list[dict[str, Any]]] = {}
    for index, case in enumerate(load_cases(dataset_dir, split, truth="healthy")):
        loaded = prepare({key: case[key] for key in ("image", "brain_mask") if key in case})
        picture = _picture(case, loaded["image"])
        brain = np.asarray(loaded["brain_mask"])[0, ..., 0] > 0
        _write(output / _brain_file(case), 255 * brain)
        healthy = _entry(output, case, "healthy", picture, np.zeros_like(brain), lesion="none", contrast=0.0)
        listed = entries.setdefault(split or case.get("split", ""), [])
        listed.append(healthy)
        for repeat in range(repeats):
            again = () if repeat == 0 else (repeat,)
            generator = np.random.default_rng(case_seed(seed, case["case"], *again))
            contrast = float(generator.choice(np.asarray(contrasts, dtype=float)))
            lesion_kind = "shape" if shapes and (index + repeat) % 2 else "tumour"
            if lesion_kind == "shape":
                contrast = -abs(contrast)
                affine = np.asarray(loaded["image"].affine)
                lesion = _shape(shapes, affine, tissue(picture, brain, contrast), generator)
            else:
                lesion = _tumour(case, tissue(picture, brain, contrast), generator)
            planted = plant(picture, lesion, contrast=contrast, brain_mask=brain, generator=generator)
            version = "_".join(["lesion", *map(str, again)])
            details = {"lesion": lesion_kind, "contrast": contrast, "twin": healthy["image"]}
            listed.append(_entry(output, case, version, planted, lesion, **details))
    # Last, so that there is no list of files that are not there.
    file = output / "datalist.json"
    without = entries.pop("", [])
    if entries and without:
        entries.setdefault("validation", []).extend(without)
    file.write_text(json.dumps(entries or without, indent=1) + "\n", encoding="utf-8")
    return file


def _refuse_within(output: Path, dataset_dir: str | Path) -> None:
    """The new list would take the place of the old one, and new pictures would be found among the old ones."""
    given, searched = Path(dataset_dir).resolve(), searched_folder(dataset_dir)
    if given in (output, output / "datalist.json") or (searched and output.is_relative_to(searched.resolve())):
        raise InputError(f"output_dir {output}", "lies in the data set", "give an --output_dir outside of it")


def _smooth_noise(shape: Sequence[int], sigma: float, generator: np.random.Generator) -> np.ndarray:
    """A Gaussian random field with mean 0, standard deviation 1 and grain ``sigma``."""
    field = ndimage.gaussian_filter(generator.standard_normal(tuple(shape)), sigma)
    return (field - field.mean()) / field.std()


def _brain_range(values: np.ndarray, brain_mask: np.ndarray) -> tuple[float, float]:
    inside = values[brain_mask]
    low, high = np.percentile(inside, [1, 99]) if inside.size else (0.0, 0.0)
    if not high > low:
        raise InputError("image", "is empty or constant inside the brain mask", "check image and brain mask")
    return float(low), float(high)


def _picture(case: Case, image: Any) -> np.ndarray:
    """Pixels (x, y) of 8 bit of a loaded picture (1, x, y, 1), whose place is known."""
    values = np.asarray(image)
    if values.shape[-1] != 1 or not (values.min() >= 0 and values.max() <= 255):
        raise InputError(case["image"], "is no picture of 8 bit", "give axial slices as PNG or JPEG")
    if "brain_mask" not in case and values.shape[1:3] != MNI_SHAPE[:2]:
        problem = f"is {values.shape[1]}×{values.shape[2]} and has no brain mask"
        raise InputError(case["image"], problem, "give brain masks, or pictures of 197×233 pixels in MNI space")
    return np.rint(values[0, ..., 0]).astype(np.uint8)


def _brain_file(case: Case) -> str:
    return f"brain_masks/{case['case']}.png"


def _entry(
    output: Path, case: Case, version: str, values: np.ndarray, mask: np.ndarray, **details: Any
) -> dict[str, Any]:
    """Write a version of a picture with its mask, and make its entry in the list."""
    name = f"{case['case']}_{version}"
    files = {"image": f"images/{name}.png", "mask": f"masks/{name}.png", "brain_mask": _brain_file(case)}
    _write(output / files["image"], values)
    _write(output / files["mask"], 255 * mask)
    known = {"label": int(mask.any()), "subject": subject_of(case), "case": name}
    return {**files, **known, **details, "pixels": int(mask.sum())}


def _write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(pixels.T.astype(np.uint8))).save(path)


def _tumour(case: Case, inside: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A blob within the tissue, mostly whole: the deeper its centre, the larger it may be."""
    radius = generator.uniform(*_TUMOUR_RADII)
    depth = ndimage.distance_transform_edt(ndimage.binary_closing(inside, iterations=2))
    deepest = depth[inside].max(initial=0)  # not of the closed tissue, whose deepest pixel may lie in a gap
    centres = np.argwhere(inside & (depth >= min(radius / 2, deepest)))
    if not len(centres):
        raise InputError(case["image"], "shows no tissue to put a lesion into", "check image and brain mask")
    lesion = blob(inside.shape, generator.choice(centres), radius, generator) & inside
    labels, _ = ndimage.label(lesion)
    return labels == 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))


def _shape_files(folder: Path) -> list[Path]:
    files = sorted(path for path in folder.glob("*") if kind(path) == "NIfTI") if folder.is_dir() else []
    if not files:
        raise InputError(folder, "holds no NIfTI file", "give the folder of the lesion masks with --shapes_dir")
    return files


def _shape(files: list[Path], affine: np.ndarray, inside: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """The lesions of a random patient in a random slice around the level of a picture, within its tissue."""
    for index in generator.permutation(len(files)):
        slices = _slices(files[index], tuple(affine.ravel().tolist()), inside.shape) & inside[..., None]
        enough = np.flatnonzero(slices.sum(axis=(0, 1)) >= _SMALLEST)
        if len(enough):
            return slices[..., generator.choice(enough)]
    problem = f"no mask has {_SMALLEST} pixels of lesion in the brain within {_LEVELS_MM} mm of level {affine[2, 3]:g}"
    raise InputError(files[0].parent, problem, "check that the masks are in MNI space, or give more of them")


@lru_cache(maxsize=64)
def _slices(file: Path, affine: tuple[float, ...], shape: tuple[int, int]) -> np.ndarray:
    """Lesions of a patient on a picture's grid, one slice a mm around its level, (x, y, 51) boolean."""
    try:
        mask: Any = nibabel.load(file)
        values = np.asarray(mask.dataobj, dtype=np.float32)
        to_mask = np.linalg.inv(mask.affine) @ np.reshape(affine, (4, 4)) @ _from_level(-_LEVELS_MM)
        if values.ndim != 3:
            raise ValueError(f"{values.ndim} axes instead of 3")
    except (OSError, EOFError, ValueError, ImageFileError) as error:
        raise InputError(file, f"cannot be read as a lesion mask ({error})", "replace or remove it") from error
    grid = (*shape, 2 * _LEVELS_MM + 1)
    resampled: np.ndarray = ndimage.affine_transform(values, to_mask, output_shape=grid, order=1)
    return resampled >= 0.5 * max(float(values.max()), 1e-6)


def _from_level(offset: float) -> np.ndarray:
    step = np.eye(4)
    step[2, 3] = offset
    return step
