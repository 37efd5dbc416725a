"""Where the brain is: the template's mask for images in MNI space, or an estimate from the image."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import ndimage
from skimage.filters import threshold_otsu

from common.errors import InputError

__all__ = ["MNI_AFFINE", "MNI_SHAPE", "estimate_brain_mask", "mni_brain_mask"]

# Grid of the ICBM 152 2009a template at 1 mm: voxel (0, 0, 0) is left, back, low.
MNI_SHAPE = (197, 233, 189)
MNI_AFFINE = np.array([[1, 0, 0, -98], [0, 1, 0, -134], [0, 0, 1, -72], [0, 0, 0, 1]], dtype=np.float64)

_SKULL_MM = 4.0  # half the width of the bridges between brain and scalp that the opening must cut
_RIM_MM = 5.0  # skull and scalp are thicker than this
_RIM_SHARE = 0.45  # of the tissue's edge that near to the brain, from which on there is no skull


def estimate_brain_mask(image: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    """Estimate the brain in a T1-like volume; meant for axial slices above the eyes.

    Each axial slice by itself: Otsu threshold, opening that cuts the brain off the scalp, large components, holes
    filled. Where the edge of all tissue is as near to the result as no skull would allow, the image has been
    brain-extracted before, and the mask is all of its tissue. It is a heuristic: hand in a mask where you have one.

    Args:
        image: (x, y, z), any scale, background darker than tissue.
        spacing: voxel size in mm.

    Returns:
        Boolean mask of the shape of ``image``; empty where nothing looks like tissue.
    """
    positive = image[image > image.min()]
    if positive.size == 0:
        return np.zeros(image.shape, dtype=bool)
    bright = image > 0.6 * threshold_otsu(positive)
    scale = np.percentile(positive, 99)
    pixel = min(spacing[:2])
    brain = np.zeros(image.shape, dtype=bool)
    extracted = brain.copy()
    near = total = 0
    for k in range(image.shape[-1]):
        brain[..., k] = _core(bright[..., k], max(1, round(_SKULL_MM / pixel)))
        extracted[..., k] = ndimage.binary_fill_holes(image[..., k] > 0.02 * scale)
        edge = _edge(image[..., k] > 0.1 * scale)
        if brain[..., k].any():
            near += int(np.count_nonzero(ndimage.distance_transform_edt(~brain[..., k])[edge] * pixel <= _RIM_MM))
            total += int(np.count_nonzero(edge))
    return extracted if total and near / total >= _RIM_SHARE else brain


def _edge(tissue: np.ndarray) -> np.ndarray:
    """The outer edge of all tissue in a slice, specks left out."""
    filled = ndimage.binary_opening(ndimage.binary_fill_holes(tissue), iterations=2)
    return filled & ~ndimage.binary_erosion(filled)


def _core(bright: np.ndarray, radius: int) -> np.ndarray:
    """The blobs that survive an erosion by ``radius`` pixels, grown back and filled; small ones left out."""
    distance = ndimage.distance_transform_edt(np.pad(bright, 1))[1:-1, 1:-1]
    labels, count = ndimage.label(distance > radius)
    if not count:
        return np.zeros_like(bright)
    areas = np.bincount(labels.ravel())[1:]  # a wide fissure may leave two halves
    kept = np.isin(labels, 1 + np.flatnonzero(areas >= 0.25 * areas.max()))
    # Grown by a little more than was taken: sulci and the rim are darker than the threshold.
    return ndimage.binary_fill_holes(ndimage.distance_transform_edt(~kept) <= radius + 1)


@lru_cache(maxsize=1)
def _template_brain_mask() -> np.ndarray:
    try:
        from nilearn import datasets
    except ImportError as error:
        raise InputError("brain mask 'mni'", "needs the package nilearn", "pip install nilearn") from error
    mask = np.asarray(datasets.load_mni152_brain_mask(resolution=1).dataobj) > 0
    in_plane = ndimage.generate_binary_structure(2, 1)[..., None]
    return ndimage.binary_dilation(mask, in_plane, iterations=2)


def mni_brain_mask(shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
    """The ICBM 152 brain mask, dilated in plane by 2 mm, on the grid of an image in MNI space.

    Args:
        shape: of the image, (x, y, z).
        affine: voxel to world in mm (RAS), 4×4.

    Raises:
        InputError: the package that carries the template is not installed.
    """
    to_mask = np.linalg.inv(MNI_AFFINE) @ affine
    mask = _template_brain_mask().astype(np.uint8)
    return ndimage.affine_transform(mask, to_mask, output_shape=shape, order=0).astype(bool)
