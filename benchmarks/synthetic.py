"""A brain that is none: an ellipsoid with a smooth texture, and empty slices at both ends."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
from scipy import ndimage

__all__ = ["brain", "write_volume"]


def brain(shape: tuple[int, int, int]) -> np.ndarray:
    """An image (x, y, z) in [0, 1] as float32; a tenth of a long z axis is empty."""
    place = np.stack(np.meshgrid(*(np.linspace(-1, 1, size) for size in shape), indexing="ij"))
    reach = np.array([0.8, 0.85, 0.9 if shape[2] > 32 else 2.5]).reshape(3, 1, 1, 1)
    inside = ((place / reach) ** 2).sum(axis=0) < 1
    texture = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal(shape), 2)
    return np.where(inside, (0.5 + 0.1 * texture / texture.std()).clip(0.1, 0.9), 0).astype(np.float32)


def write_volume(path: Path, shape: tuple[int, int, int]) -> Path:
    """Write it as NIfTI, with voxels of 2 × 2 × 1 mm."""
    nibabel.save(nibabel.Nifti1Image(brain(shape), np.diag([2.0, 2.0, 1.0, 1.0])), path)
    return path
