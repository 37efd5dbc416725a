"""What preprocessing and its inverse do to a place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from monai.transforms import Invertd
from scipy import ndimage

from common.data import Preprocessing
from tests.bundles.synthetic import brain, oblique
from tests.data.files import nifti

CASES = {
    "oblique": ((61, 71, 14), (1.4, 1.7, 3.0), (0, 1, 2)),
    "finer than the network's grid": ((101, 121, 8), (0.8, 0.9, 4.0), (0, 1, 2)),
    "sagittal": ((30, 64, 48), (3.5, 1.9, 2.2), (1, 2, 0)),
    "coronal": ((55, 60, 40), (2.1, 2.4, 2.6), (0, 2, 1)),
}


def test_a_nifti_file_of_two_axes_is_a_slice_of_its_own_geometry(tmp_path: Path) -> None:
    drawn = brain((61, 71), seed=4)
    affine = oblique((2.0, 2.0, 2.0))
    prepared, returned = [], []
    for name, last in (("flat", ()), ("slice", (1,))):
        file = nifti(tmp_path / f"{name}.nii.gz", drawn.image.reshape(61, 71, *last), affine)
        mask = nifti(
            tmp_path / f"{name}_brain_mask.nii.gz", drawn.brain.astype(np.uint8).reshape(61, 71, *last), affine
        )
        preprocessing = Preprocessing(pixdim=(1.5, 1.5), slice_mm=23)
        case = preprocessing({"image": str(file), "brain_mask": str(mask), "case": "a"})
        prepared.append(case["image"])
        case["anomaly_map"] = case["image"].clone()
        returned.append(
            Invertd("anomaly_map", preprocessing, orig_keys="image", nearest_interp=False)(case)["anomaly_map"]
        )
    for one, other in (prepared, returned):
        np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(one.affine, other.affine)
    assert returned[0].shape == (1, 61, 71, 1)
    np.testing.assert_allclose(returned[0].affine, affine, atol=1e-5)


def centre(weights: np.ndarray) -> np.ndarray:
    return np.array(ndimage.center_of_mass(weights))


@pytest.mark.parametrize("some", [False, True], ids=["all slices", "some slices"])
@pytest.mark.parametrize("name", CASES)
def test_a_place_survives_the_way_there_and_back(tmp_path: Path, name: str, some: bool) -> None:
    shape, spacing, axes = CASES[name]
    drawn = brain(shape, seed=3)
    up = axes.index(2)
    height = spacing[up] * np.ptp(np.nonzero(drawn.brain)[up])
    levels = (80 - 0.7 * height, 95) if some else None  # the top of the brain counts as 80 mm
    affine = oblique(spacing, axes)
    # A ball in mm, off the middle along every axis.
    place = np.stack(np.meshgrid(*(np.arange(size) for size in shape), indexing="ij"))
    middle = np.array([(size - 1) / 2 for size in shape]).reshape(3, 1, 1, 1)
    offset = (place - middle) * np.reshape(spacing, (3, 1, 1, 1)) - np.array([6, -8, 7]).reshape(3, 1, 1, 1)
    blob = np.exp(-(offset**2).sum(axis=0) / (2 * 5.0**2))
    file = nifti(tmp_path / "a.nii.gz", (drawn.image + 300 * blob * drawn.brain).astype(np.float32), affine)
    mask = nifti(tmp_path / "a_brain_mask.nii.gz", drawn.brain.astype(np.uint8), affine)

    preprocessing = Preprocessing(slice_range_mm=levels)
    case = preprocessing({"image": str(file), "brain_mask": str(mask), "case": "a"})
    assert case["image"].shape[1] % 8 == case["image"].shape[2] % 8 == 0
    case["anomaly_map"] = case["image"].clone()
    back = Invertd("anomaly_map", preprocessing, orig_keys="image", nearest_interp=False)(case)["anomaly_map"]

    assert back.shape == (1, *shape)
    np.testing.assert_allclose(back.affine, affine, atol=1e-4)
    restored = np.asarray(back)[0]
    if some:
        assert (drawn.brain & (restored > 0)).sum() < 0.9 * drawn.brain.sum()
    near = (blob > 0.3) & (restored > 0)
    assert near.sum() > 20
    there = centre(np.where(near, 300 * blob, 0))
    # The same voxels, weighted by what came back above the tissue around.
    tissue = np.median(restored[drawn.brain & (restored > 0)])
    here = centre(np.where(near, (restored - tissue).clip(0), 0))
    assert np.abs(here - there).max() < 1
    # And not only near it: brightest there, nothing outside the brain.
    brightest = centre(restored >= 0.95 * restored.max())
    assert np.linalg.norm((brightest - there) * spacing) < 3
    beside = ndimage.distance_transform_edt(~drawn.brain, sampling=spacing)
    assert beside[restored > 0].max() < 4.25  # 1.5 of the pixels of 2 mm along both axes
