from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import wasserstein_distance

from common.evaluation.indices import N_INTENSITIES, ahi_pixel, caci_ssim, intensity_counts, rqi_ssim


def test_quality_is_the_similarity_and_never_negative() -> None:
    np.testing.assert_allclose(rqi_ssim(np.array([0.83, -0.2, 1.0])), [0.83, 0.0, 1.0])


@pytest.mark.parametrize(
    ("away", "inside", "expected"),
    [
        (0.8, 0.4, 2 * 0.8 * 0.6 / 1.4),
        (1.0, 1.0, 0.0),  # nothing was changed
        (0.0, 0.0, 0.0),  # nothing was kept
        (-0.3, 1.0, 0.0),
        (1.0, -0.5, 1.0),
        (0.9, float("nan"), float("nan")),
    ],
)
def test_conservation_and_change(away: float, inside: float, expected: float) -> None:
    assert caci_ssim(np.array(away), np.array(inside)) == pytest.approx(expected, nan_ok=True)


def test_shift_to_healthy_by_hand() -> None:
    diseased, restored, healthy = (intensity_counts(np.full(10, value)) for value in (0.8, 0.5, 0.2))
    # 0.8, 0.5 and 0.2 lie in bins 204, 128 and 51.
    assert float(ahi_pixel(diseased, restored, healthy)) == pytest.approx(1 - (128 - 51) / (204 - 51))
    assert float(ahi_pixel(diseased, healthy, healthy)) == 1
    assert float(ahi_pixel(diseased, diseased, healthy)) == 0
    worse = intensity_counts(np.full(10, 0.9))
    assert float(ahi_pixel(diseased, worse, healthy)) == 0
    assert np.isnan(ahi_pixel(healthy, restored, healthy))
    assert np.isnan(ahi_pixel(diseased, restored, np.zeros(N_INTENSITIES)))


def test_shift_to_healthy_is_of_wasserstein_distances() -> None:
    generator = np.random.default_rng(0)
    counts = [intensity_counts(generator.beta(2, b, size=400)) for b in (2, 3, 5)]
    centres = (np.arange(N_INTENSITIES) + 0.5) / N_INTENSITIES
    before, after = (wasserstein_distance(centres, centres, each, counts[2]) for each in counts[:2])
    assert float(ahi_pixel(*counts)) == pytest.approx(1 - after / before)
    stacked = [np.stack([each, each]) for each in counts]
    np.testing.assert_allclose(ahi_pixel(*stacked), 1 - after / before)


def test_counts_keep_what_is_outside() -> None:
    counts = intensity_counts(np.array([-0.1, 0.0, 1.0, 1.2]))
    assert (counts[0], counts[-1], counts.sum()) == (2, 2, 4)
