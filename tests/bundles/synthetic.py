"""Brains that are no brains: ellipsoids with a smooth texture, and lesions that are balls."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from tests.data.files import nifti, picture

SHAPE = (47, 55, 6)
SPACING = (1.8, 2.2, 3.0)


class Brain(NamedTuple):
    """An image with its truth."""

    image: np.ndarray
    brain: np.ndarray
    lesion: np.ndarray


def oblique(spacing: tuple[float, ...] = SPACING, axes: tuple[int, int, int] = (0, 1, 2)) -> np.ndarray:
    """The affine of an oblique acquisition.

    Args:
        spacing: of the voxel axes, in mm.
        axes: which axis of the head each voxel axis lies nearest to.
    """
    affine = np.eye(4)
    turned = Rotation.from_euler("zyx", [17, -8, 12], degrees=True).as_matrix()[:, list(axes)]
    affine[:3, :3] = turned * np.asarray(spacing)
    affine[:3, 3] = 31, -42, 23
    return affine


def brain(shape: tuple[int, ...], seed: int, lesion: float = 0.0) -> Brain:
    """Draw a brain of about 30 to 90, background 0.

    Args:
        shape: of the image.
        seed: of texture and place of the lesion.
        lesion: what the lesion adds; 0 for none.
    """
    generator = np.random.default_rng(seed)
    axes = [np.linspace(-1, 1, size) if size > 1 else np.zeros(1) for size in shape]
    place = np.stack(np.meshgrid(*axes, indexing="ij"))
    # Flat along a short axis, so that no slice is empty.
    reach = np.array([0.75 if size > 12 else 2.5 for size in shape]).reshape(-1, *(1,) * len(shape))
    inside = ((place / reach) ** 2).sum(axis=0) < 1
    texture = ndimage.gaussian_filter(generator.standard_normal(shape), 3)
    image = 60 + 15 * texture / texture.std()
    centre = np.array([0.3 * generator.uniform(-1, 1) if size > 12 else 0.0 for size in shape])
    distance = np.stack([(p - c) * s / 2 for p, c, s in zip(place, centre, shape, strict=True)])
    ball = np.sqrt((distance**2).sum(axis=0)) < 4
    ball &= inside & (lesion != 0)
    image = np.where(inside, np.clip(image, 25, 95), 0) + lesion * ball
    return Brain(image.astype(np.float32), inside, ball)


def write_volume(folder: Path, name: str, seed: int, lesion: float = 0.0) -> dict[str, object]:
    """Write an oblique volume (with its mask, if it has a lesion) and return its entry in a data list."""
    drawn = brain(SHAPE, seed, lesion)
    entry: dict[str, object] = {"case": name, "image": nifti(folder / f"{name}.nii.gz", drawn.image, oblique()).name}
    if lesion:
        mask = nifti(folder / f"{name}_mask.nii.gz", drawn.lesion.astype(np.uint8), oblique())
        return {**entry, "mask": mask.name, "label": 1}
    return {**entry, "label": 0}


def write_volumes(folder: Path, **lesions: float) -> Path:
    """Write a data set of volumes, by name; 0 for a healthy one."""
    entries = [write_volume(folder, name, seed, lesion) for seed, (name, lesion) in enumerate(lesions.items())]
    (folder / "datalist.json").write_text(json.dumps(entries))
    return folder


def write_pictures(folder: Path, training: int = 8, validation: int = 4, *, healthy: bool = False) -> Path:
    """Write slices as pictures in two splits: healthy ones and others in turn, or healthy ones alone."""
    splits: dict[str, list[dict[str, object]]] = {"training": [], "validation": []}
    for index in range(training + validation):
        split, label = "training" if index < training else "validation", 0 if healthy else index % 2
        drawn = brain((90, 108), index, 120.0 * label)
        name = f"{split}_{index}"
        image = picture(folder / f"{name}.png", drawn.image.clip(0, 255).astype(np.uint8))
        entry: dict[str, object] = {"image": image.name, "label": label, "subject": name}
        if label:
            entry["mask"] = picture(folder / f"{name}_mask.png", 255 * drawn.lesion.astype(np.uint8)).name
        splits[split].append(entry)
    (folder / "datalist.json").write_text(json.dumps(splits))
    return folder
