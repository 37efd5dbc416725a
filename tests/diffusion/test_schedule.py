from itertools import pairwise

import numpy as np
import pytest
import torch

from common.diffusion import CLEAN, NoiseSchedule, sampling_levels
from common.diffusion.spacing import SPACINGS, nearest_levels
from common.errors import InputError

# ᾱ of the authors' code, in double precision.
LINEAR = {
    0: 0.9999,
    50: 0.96995149,
    100: 0.89514159,
    199: 0.65903851,
    200: 0.65634701,
    249: 0.52408537,
    250: 0.52142303,
    349: 0.28519951,
    350: 0.28318258,
    499: 0.07858724,
    500: 0.07779666,
    749: 0.00335055,
    999: 4.036e-5,
}
COSINE = {0: 0.99995872, 100: 0.97157568, 200: 0.89776291, 250: 0.84588799, 300: 0.78563241, 999: 2.4288e-9}
COSINE_SINGLE = {0: 0.99995869, 249: 0.84701216, 499: 0.49384359, 749: 0.14427210, 999: 2.4288e-9}


@pytest.mark.parametrize(("name", "golden"), [("linear", LINEAR), ("cosine", COSINE)])
def test_alpha_bar_is_the_authors(name, golden):
    schedule = NoiseSchedule(name)
    for t, expected in golden.items():
        assert schedule.alpha_bar(t) == pytest.approx(expected, rel=1e-4 if expected < 1e-3 else 0, abs=6e-9)


def test_cosine_in_single_precision_is_the_other_convention():
    buffer = NoiseSchedule("cosine").alphas_cumprod
    for t, expected in COSINE_SINGLE.items():
        assert float(buffer[t]) == pytest.approx(expected, rel=1e-4 if expected < 1e-3 else 0, abs=6e-9)


def test_scaled_linear_is_linear_in_the_root():
    schedule = NoiseSchedule("scaled_linear", beta_start=0.00085, beta_end=0.012)
    alpha_bar = np.array([schedule.alpha_bar(t) for t in range(CLEAN, 1000)])
    roots = np.sqrt(1 - alpha_bar[1:] / alpha_bar[:-1])
    assert roots[[0, -1]] == pytest.approx(np.sqrt([0.00085, 0.012]), rel=1e-9)
    assert np.diff(roots) == pytest.approx(np.diff(roots)[0], rel=1e-6)


def test_rescaled_schedule_keeps_the_amount_of_noise():
    assert NoiseSchedule("linear_rescaled", 250).alpha_bar(249) == pytest.approx(LINEAR[999], rel=0.2)


def test_clean_level_is_the_image():
    schedule = NoiseSchedule()
    x, noise = torch.rand(2, 1, 4, 4), torch.randn(2, 1, 4, 4)
    assert schedule.alpha_bar(CLEAN) == 1
    assert torch.equal(schedule.add_noise(x, noise, CLEAN), x)
    assert torch.equal(schedule.add_noise(x, noise, torch.tensor([CLEAN, CLEAN])), x)


def test_levels_per_case_equal_levels_one_by_one():
    schedule = NoiseSchedule()
    x, noise = torch.rand(3, 1, 4, 4, 4), torch.randn(3, 1, 4, 4, 4)
    levels = [0, 350, 999]
    together = schedule.add_noise(x, noise, torch.tensor(levels))
    for i, t in enumerate(levels):
        torch.testing.assert_close(together[i], schedule.add_noise(x, noise, t)[i], rtol=1e-6, atol=1e-6)


def test_half_precision_calls_leave_the_schedule_alone():
    schedule = NoiseSchedule()
    before = schedule.alphas_cumprod.clone()
    schedule.add_noise(torch.rand(2, 1, 4, 4).half(), torch.randn(2, 1, 4, 4).half(), torch.tensor([3, 500]))
    assert schedule.alphas_cumprod.dtype == torch.float32
    assert torch.equal(schedule.alphas_cumprod, before)


@pytest.mark.parametrize("t", [-2, 1000, 5000])
def test_levels_outside_are_refused(t):
    with pytest.raises(InputError, match=f"level {t}"):
        NoiseSchedule().alpha_bar(t)
    with pytest.raises((IndexError, RuntimeError)):
        NoiseSchedule().add_noise(torch.rand(1, 1, 4, 4), torch.rand(1, 1, 4, 4), torch.tensor([t]))


@pytest.mark.parametrize("options", [{"name": "lineer"}, {"steps": 1}])
def test_bad_schedules_are_refused(options):
    with pytest.raises(InputError):
        NoiseSchedule(**options)


@pytest.mark.parametrize("spacing", sorted(SPACINGS))
@pytest.mark.parametrize(("start", "count"), [(999, 1000), (999, 50), (999, 7), (350, 351), (350, 20), (5, 4), (0, 1)])
def test_levels_fall_from_the_start_to_the_image(spacing, start, count):
    levels = sampling_levels(start, count, spacing)
    assert len(levels) == count + 1
    assert levels[-1] == CLEAN
    assert all(a > b for a, b in pairwise(levels))
    assert levels[0] <= start
    if count == start + 1:
        assert levels == list(range(start, CLEAN - 1, -1))


def test_spacings_are_those_of_their_names():
    assert sampling_levels(999, 10, "leading") == [*range(900, -1, -100), CLEAN]
    assert sampling_levels(999, 10, "trailing") == [*range(999, 0, -100), CLEAN]
    assert sampling_levels(999, 10, "linspace") == [*range(999, -1, -111), CLEAN]
    assert sampling_levels(900, 4, "quadratic") == [900, 400, 100, 0, CLEAN]


@pytest.mark.parametrize(
    ("start", "count", "spacing"), [(9, 11, "linspace"), (9, 0, "linspace"), (-1, 1, "linspace"), (9, 3, "even")]
)
def test_impossible_levels_are_refused(start, count, spacing):
    with pytest.raises(InputError):
        sampling_levels(start, count, spacing)


def test_named_levels_move_to_the_nearest_visited_one():
    timesteps = sampling_levels(350, 8, "linspace")
    assert timesteps == [350, 300, 250, 200, 150, 100, 50, 0, CLEAN]
    assert nearest_levels([300, 140, 49, 700], timesteps) == {300, 150, 50}
