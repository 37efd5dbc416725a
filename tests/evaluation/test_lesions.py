from __future__ import annotations

import math

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from common.evaluation.lesions import components, diameter, hausdorff95, match
from common.evaluation.restoration import MARGIN_MM, restoration_quality, ssim_map

SHAPE = (30, 26, 1)


def box(*corners: tuple[int, int, int, int], shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    mask = np.zeros(shape, bool)
    for left, right, top, bottom in corners:
        mask[left:right, top:bottom] = True
    return mask


def test_corners_touch() -> None:
    mask = np.zeros((4, 4, 2), bool)
    mask[0, 0, 0] = mask[1, 1, 1] = mask[3, 3, 0] = True
    assert components(mask).max() == 2


def test_pairs_are_one_to_one() -> None:
    truth = box((0, 4, 0, 4), (10, 14, 10, 14))
    predicted = box((0, 4, 0, 3), (10, 12, 10, 14), (20, 22, 20, 22))
    found = match(predicted, truth, 0.1)
    assert found[:3] == (2, 1, 0)
    assert found.iou == pytest.approx(0.75 + 0.5)
    strict = match(predicted, truth, 0.5)  # 0.5 is not above 0.5
    assert strict[:3] == (1, 2, 1)
    assert strict.iou == pytest.approx(0.75)


def test_one_prediction_over_two_lesions_finds_one() -> None:
    truth = box((0, 4, 0, 4), (6, 10, 0, 4))
    assert match(box((0, 10, 0, 4)), truth, 0.1)[:3] == (1, 0, 1)


@pytest.mark.parametrize(
    ("predicted", "truth", "expected"),
    [
        (box(), box(), (0, 0, 0)),
        (box(), box((0, 1, 0, 1)), (0, 0, 1)),
        (box((0, 1, 0, 1), (5, 6, 5, 6)), box(), (0, 2, 0)),
        (box((3, 4, 3, 4)), box((3, 4, 3, 4)), (1, 0, 0)),
    ],
)
def test_empty_masks_and_single_voxels(
    predicted: np.ndarray, truth: np.ndarray, expected: tuple[int, int, int]
) -> None:
    assert match(predicted, truth, 0.1)[:3] == expected


def test_distance_of_outlines_is_in_mm() -> None:
    truth = box((5, 10, 5, 10))
    assert hausdorff95(box((8, 13, 5, 10)), truth, (2.0, 1.0, 4.0)) == (6.0, False)
    assert hausdorff95(truth, truth, (2.0, 1.0, 4.0)) == (0.0, False)
    deep = box((5, 10, 5, 10), shape=(30, 26, 4))
    apart = np.zeros_like(deep)
    deep[..., 1:] = False
    apart[5:10, 5:10, 3] = True
    assert hausdorff95(apart, deep, (1.0, 1.0, 5.0)) == (15.0, False)


def test_distance_of_nothing_is_the_diagonal_or_undefined() -> None:
    truth = box((5, 10, 5, 10))
    distance, empty = hausdorff95(box(), truth, (2.0, 1.0, 4.0))
    assert empty
    assert distance == pytest.approx(math.hypot(60, 26))
    assert math.isnan(hausdorff95(truth, box(), (2.0, 1.0, 4.0))[0])


def test_diameter_of_disc_and_ball() -> None:
    assert diameter(100, (2.0, 2.0, 9.0), flat=True) == pytest.approx(2 * math.sqrt(400 / math.pi))
    assert diameter(round(4 / 3 * math.pi * 1000), (1.0, 1.0, 1.0), flat=False) == pytest.approx(20, rel=1e-3)


def test_structural_similarity_agrees_with_skimage() -> None:
    rng = np.random.default_rng(0)
    image, healthy = rng.random((1, 40, 36, 2)), rng.random((1, 40, 36, 2))
    found = ssim_map(image, healthy)
    for z in range(2):
        options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
        expected = structural_similarity(image[0, ..., z], healthy[0, ..., z], full=True, **options)[1]
        np.testing.assert_allclose(found[5:-5, 5:-5, z], expected[5:-5, 5:-5], atol=2e-4)


def test_restoration_is_judged_away_from_the_lesion() -> None:
    shape = (60, 60, 1)
    region, truth = np.ones(shape, bool), box((10, 14, 10, 14), shape=shape)
    image = np.full((1, *shape), 0.5)
    healthy = image.copy()
    healthy[0][truth] = 0.9
    same = restoration_quality(image, image, truth, region, (2.0, 2.0, 1.0))
    assert same == pytest.approx({"ssim": 1, "mae": 0, "lesion_ssim": 1, "lesion_change": 0})
    found = restoration_quality(image, healthy, truth, region, (2.0, 2.0, 1.0))
    assert found["mae"] == 0
    assert found["lesion_change"] == pytest.approx(0.4)
    healthy[0, 17, 12, 0] = 0.9  # within 5 mm of the lesion: 4 pixels of 1 mm, but 8 mm at 2 mm
    assert restoration_quality(image, healthy, truth, region, (1.0, 1.0, 1.0))["mae"] == 0
    assert restoration_quality(image, healthy, truth, region, (2.0, 2.0, 1.0))["mae"] > 0
    assert MARGIN_MM == 5
    nothing = restoration_quality(image, healthy, box(shape=shape), region, (1.0, 1.0, 1.0))
    assert math.isnan(nothing["lesion_change"])
