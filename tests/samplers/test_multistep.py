"""The second-order solver against closed forms: its order, its way back, and where it must be DDIM."""

import math

import pytest
import torch

from common.diffusion import CLEAN, NoiseSchedule, sampling_levels
from common.errors import InputError
from common.networks import Denoiser
from common.samplers import (
    SAMPLERS,
    ClassifierFreeGuidance,
    ddim_invert,
    ddim_round_trip,
    ddim_sample,
    dpm_invert,
    dpm_sample,
    fused_sample,
    partial_diffusion,
)
from tests.exact import gaussian_denoiser, toy_image, toy_network

SCHEDULE = NoiseSchedule()
MEAN, SPREAD = 0.3, 0.5
EXACT = gaussian_denoiser(MEAN, SPREAD, SCHEDULE)
TOY = Denoiser(toy_network, SCHEDULE, clip=None)
IMAGE = 2 * toy_image(16) - 1


def along(x, t, t_next):
    """The probability flow of a Gaussian keeps how many standard deviations a voxel is from the mean."""
    a, b = SCHEDULE.alpha_bar(t), SCHEDULE.alpha_bar(t_next)
    scale = math.sqrt((b * SPREAD**2 + 1 - b) / (a * SPREAD**2 + 1 - a))
    return math.sqrt(b) * MEAN + scale * (x - math.sqrt(a) * MEAN)


def state(t, shape=(2, 1, 16, 16)):
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    alpha_bar = SCHEDULE.alpha_bar(t)
    return math.sqrt(alpha_bar) * MEAN + math.sqrt(alpha_bar * SPREAD**2 + 1 - alpha_bar) * noise


def errors(solve, start, end, shape=(2, 1, 16, 16)):
    x, found = state(start, shape), []
    for steps in (10, 20, 40, 80):
        levels = [start + (end - start) // steps * i for i in range(steps + 1)]
        found.append(float((solve(EXACT, x, levels) - along(x, start, end)).abs().max()))
    return found


def order(found):
    """How often the error halves when the steps double, between the second and the last number of steps."""
    return math.log2(found[1] / found[-1]) / 2


@pytest.mark.parametrize("shape", [(2, 1, 16, 16), (1, 2, 8, 8, 8)], ids=["2-D", "3-D"])
def test_order_is_2_downwards_where_that_of_ddim_is_1(shape):
    first, second = errors(ddim_sample, 900, 100, shape), errors(dpm_sample, 900, 100, shape)
    assert order(first) == pytest.approx(1, abs=0.1)
    assert order(second) > 1.9
    assert second[0] < 0.2 * first[0]
    assert second[2] < 0.01 * first[2]


def test_order_is_2_upwards_where_that_of_ddim_is_1():
    first, second = errors(ddim_invert, 100, 900), errors(dpm_invert, 100, 900)
    assert order(first) == pytest.approx(1, abs=0.1)
    assert order(second) == pytest.approx(1.9, abs=0.2)
    assert second[0] < 0.5 * first[0]


@pytest.mark.parametrize("steps", [5, 10, 20, 50])
def test_the_way_back_is_shorter_than_that_of_ddim(steps):
    image, levels = MEAN + SPREAD * IMAGE, sampling_levels(499, steps, "quadratic")
    lost = {m: float((ddim_round_trip(EXACT, image, levels, method=m) - image).abs().max()) for m in ("ddim", "dpm++")}
    assert lost["dpm++"] < 0.2 * lost["ddim"]
    assert lost["dpm++"] < {5: 0.1, 10: 0.1, 20: 0.02, 50: 0.002}[steps]


@pytest.mark.parametrize("spacing", ["linspace", "trailing", "quadratic"])
def test_no_spacing_makes_it_worse_than_ddim(spacing):
    """The last step of ``linspace`` is many times as long in λ as the one before it."""
    for steps in (4, 8, 16):
        levels = sampling_levels(499, steps, spacing)
        x = state(levels[0])
        right = along(x, levels[0], CLEAN)
        assert (dpm_sample(EXACT, x, levels) - right).abs().max() < (ddim_sample(EXACT, x, levels) - right).abs().max()


def test_one_step_is_ddim():
    for levels in ([300, CLEAN], [300, 100], [CLEAN, 200]):
        first, second = (ddim_sample, dpm_sample) if levels[0] > levels[1] else (ddim_invert, dpm_invert)
        assert torch.allclose(second(TOY, IMAGE, levels), first(TOY, IMAGE, levels), atol=1e-6)


def test_callers_see_every_step_and_the_state_of_a_solver_is_not_kept():
    levels, seen = sampling_levels(300, 6), []
    first = dpm_sample(TOY, IMAGE, levels, callback=lambda step: seen.append(step.t))
    assert seen == levels[:-1]
    assert torch.equal(first, dpm_sample(TOY, IMAGE, levels))


def test_partial_diffusion_takes_it_by_name():
    levels = sampling_levels(300, 6, "quadratic")
    noised = partial_diffusion(TOY, IMAGE, levels, method="dpm++", generator=torch.Generator().manual_seed(0))
    many = sampling_levels(300, 301)
    right = partial_diffusion(TOY, IMAGE, many, method="ddim", generator=torch.Generator().manual_seed(0))
    rough = partial_diffusion(TOY, IMAGE, levels, method="ddim", generator=torch.Generator().manual_seed(0))
    assert (noised - right).abs().max() < 0.5 * (rough - right).abs().max()
    assert sorted(SAMPLERS) == ["ddim", "ddpm", "dpm++"]


def test_guidance_of_scale_0_changes_not_a_bit():
    levels = sampling_levels(300, 6)
    guided = dpm_sample(TOY, IMAGE, levels, guidance=ClassifierFreeGuidance(TOY, 0))
    assert torch.equal(guided, dpm_sample(TOY, IMAGE, levels))


def test_the_deterministic_chain_of_a_fusion_may_be_of_second_order():
    levels = sampling_levels(300, 6)
    mask = torch.zeros_like(IMAGE)
    mask[..., :4] = 1
    fused = fused_sample(TOY, IMAGE, levels, mask=mask, method="dpm++", generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(fused.reconstruction, dpm_sample(TOY, IMAGE, levels))
    assert torch.equal(fused.image[..., 4:], fused.reconstruction[..., 4:])


def test_what_cannot_be_used_is_refused():
    with pytest.raises(InputError, match="do not fall"):
        dpm_sample(TOY, IMAGE, [0, 100])
    with pytest.raises(InputError, match="do not rise"):
        dpm_invert(TOY, IMAGE, [100, 0])
    with pytest.raises(InputError, match="no deterministic one"):
        ddim_round_trip(TOY, IMAGE, [100, 0, CLEAN], method="ddpm")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="fixed_point_steps 2"):
        ddim_round_trip(TOY, IMAGE, [100, 0, CLEAN], method="dpm++", fixed_point_steps=2)
