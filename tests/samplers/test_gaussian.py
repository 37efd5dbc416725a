"""Samplers against the exact denoiser of a Gaussian, where everything is known in closed form."""

import math
from itertools import pairwise

import pytest
import torch
from monai.networks.schedulers import DDIMScheduler, DDPMScheduler

from common.diffusion import CLEAN, NoiseSchedule, ddim_step, ddpm_step, forward_step, sampling_levels
from common.errors import InputError
from common.samplers import GradientGuidance, ddim_invert, ddim_sample, ddpm_sample, inpaint, partial_diffusion
from tests.exact import gaussian_denoiser

MEAN, SPREAD = 0.3, 0.5
SCHEDULE = NoiseSchedule()
DENOISER = gaussian_denoiser(MEAN, SPREAD, SCHEDULE)
SHAPES = [(16, 1, 64, 64), (4, 2, 16, 32, 32)]
# How far the spread of N steps may be from the data's: what the step size costs, not a fault.
DISCRETISATION = {10: 0.40, 50: 0.13, 1000: 0.01}


def start(shape, t):
    alpha_bar = SCHEDULE.alpha_bar(t)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return math.sqrt(alpha_bar) * MEAN + math.sqrt(alpha_bar * SPREAD**2 + 1 - alpha_bar) * noise


def expected_spread(timesteps, method):
    """Carry the variance of the state through the steps, each of them linear, in closed form."""
    alpha_bar = SCHEDULE.alpha_bar(timesteps[0])
    variance = alpha_bar * SPREAD**2 + 1 - alpha_bar
    for t, t_next in pairwise(timesteps):
        a, b = SCHEDULE.alpha_bar(t), SCHEDULE.alpha_bar(t_next)
        gain = math.sqrt(a) * SPREAD**2 / (a * SPREAD**2 + 1 - a)  # dx̂_0/dx
        noise_gain = (1 - math.sqrt(a) * gain) / math.sqrt(1 - a)  # dε̂/dx
        posterior = (1 - b) / (1 - a) * (1 - a / b) if method == "ddpm" else 0.0
        scale = math.sqrt(b) * gain + math.sqrt(1 - b - posterior) * noise_gain
        variance = scale**2 * variance + posterior
    return math.sqrt(variance)


@pytest.mark.parametrize("shape", SHAPES, ids=["2d", "3d"])
@pytest.mark.parametrize("steps", [10, 50, 1000])
@pytest.mark.parametrize("method", ["ddpm", "ddim"])
def test_sampler_reaches_mean_and_spread(method, steps, shape):
    timesteps = sampling_levels(999, steps)
    x = start(shape, timesteps[0])
    if method == "ddpm":
        y = ddpm_sample(DENOISER, x, timesteps, generator=torch.Generator().manual_seed(1))
    else:
        y = ddim_sample(DENOISER, x, timesteps)
    assert y.mean().item() == pytest.approx(MEAN, abs=0.01)
    assert y.std().item() == pytest.approx(expected_spread(timesteps, method), rel=0.015)
    assert y.std().item() == pytest.approx(SPREAD, rel=DISCRETISATION[steps])


def test_ddim_with_eta_1_is_ancestral():
    timesteps = sampling_levels(999, 50)
    x = start(SHAPES[0], 999)
    ancestral = ddpm_sample(DENOISER, x, timesteps, generator=torch.Generator().manual_seed(1))
    stochastic = ddim_sample(DENOISER, x, timesteps, eta=1.0, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(stochastic, ancestral, rtol=1e-4, atol=1e-4)


def test_monai_ddim_misses_its_own_levels_at_10_steps():
    """Why samplers here step over pairs: MONAI visits 999, 888, … but steps by 100, so the state is at other levels."""
    scheduler = DDIMScheduler(
        1000, schedule="linear_beta", beta_start=1e-4, beta_end=0.02, prediction_type="sample", clip_sample=False
    )
    scheduler.set_timesteps(10)
    timesteps = [int(t) for t in scheduler.timesteps]
    assert timesteps == sampling_levels(999, 10)[:-1]
    x = monai = start(SHAPES[0], 999)
    for t in timesteps:
        monai, _ = scheduler.step(DENOISER.network(monai, torch.tensor([t])), t, monai)
    ours = ddim_sample(DENOISER, x, [*timesteps, CLEAN])
    right = expected_spread([*timesteps, CLEAN], "ddim")
    assert ours.std().item() == pytest.approx(right, rel=0.01)
    assert abs(monai.std().item() - right) > 0.1 * right
    assert abs(monai.mean().item() - MEAN) > 4 * abs(ours.mean().item() - MEAN)


def test_monai_ddpm_does_not_respace():
    scheduler = DDPMScheduler(
        1000, schedule="linear_beta", beta_start=1e-4, beta_end=0.02, prediction_type="sample", clip_sample=False
    )
    scheduler.set_timesteps(10)
    x = start(SHAPES[0], 999)
    for t in scheduler.timesteps:
        x, _ = scheduler.step(DENOISER.network(x, t.reshape(1)), int(t), x)
    assert x.std().item() > 1.8 * SPREAD  # hardly denoised


@pytest.mark.parametrize("shape", [(2, 1, 16, 16), (2, 1, 8, 8, 8)], ids=["2d", "3d"])
@pytest.mark.parametrize(("steps", "bound"), [(10, 0.65), (50, 0.18), (500, 0.025)])
def test_inversion_returns_to_the_input(steps, bound, shape):
    image = MEAN + SPREAD * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    down = sampling_levels(499, steps)
    encoded = ddim_invert(DENOISER, image, down[::-1])
    decoded = ddim_sample(DENOISER, encoded, down)
    assert encoded.std() > 0.8
    assert (decoded - image).abs().max() < bound


def test_inversion_error_falls_with_the_number_of_steps():
    image = MEAN + SPREAD * torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    errors = []
    for steps in (10, 50, 250):
        down = sampling_levels(499, steps)
        errors.append((ddim_sample(DENOISER, ddim_invert(DENOISER, image, down[::-1]), down) - image).abs().max())
    assert errors[0] > 2 * errors[1] > 4 * errors[2]


def test_gradient_guidance_draws_from_the_posterior():
    """With p(y | x_t) of a Gaussian measurement the guided sampler must move the mean to the product's."""
    measured, noise = 1.0, 0.5

    def log_likelihood(x_t, t):
        a = SCHEDULE.alpha_bar(t)
        gain = math.sqrt(a) * SPREAD**2 / (a * SPREAD**2 + 1 - a)
        x0 = MEAN + gain * (x_t - math.sqrt(a) * MEAN)
        uncertainty = noise**2 + SPREAD**2 * (1 - a) / (a * SPREAD**2 + 1 - a)
        return -((x0 - measured) ** 2 / (2 * uncertainty)).flatten(1).sum(dim=1)

    timesteps = sampling_levels(999, 250)
    guidance = GradientGuidance(DENOISER, log_likelihood, scale=1.0)
    x = ddim_sample(DENOISER, start(SHAPES[0], 999), timesteps, guidance=guidance)
    posterior = (MEAN / SPREAD**2 + measured / noise**2) / (1 / SPREAD**2 + 1 / noise**2)
    assert x.mean().item() == pytest.approx(posterior, abs=0.02)


def test_healthy_input_keeps_its_distribution():
    image = MEAN + SPREAD * torch.randn(SHAPES[0], generator=torch.Generator().manual_seed(3))
    y = partial_diffusion(DENOISER, image, sampling_levels(300, 301), generator=torch.Generator().manual_seed(4))
    assert y.mean().item() == pytest.approx(MEAN, abs=0.01)
    assert y.std().item() == pytest.approx(SPREAD, rel=0.03)


def test_inpainting_draws_inside_and_keeps_outside():
    known = torch.full((8, 1, 32, 32), 2.0)  # far from the prior
    mask = torch.zeros(8, 1, 32, 32)
    mask[..., :16] = 1
    timesteps = sampling_levels(999, 100)
    x = torch.randn(known.shape, generator=torch.Generator().manual_seed(0))
    y = inpaint(
        DENOISER, x, timesteps, known=known, mask=mask, resample_steps=2, generator=torch.Generator().manual_seed(1)
    )
    assert torch.equal(y[..., 16:], known[..., 16:])
    assert y[..., :16].mean().item() == pytest.approx(MEAN, abs=0.02)
    assert y[..., :16].std().item() == pytest.approx(SPREAD, rel=0.1)


def test_steps_that_cannot_be_are_refused():
    prediction, noise = DENOISER(torch.zeros(1, 1, 4, 4), 20), lambda: torch.zeros(1, 1, 4, 4)
    for t_next, source in ((30, noise), (10, None)):  # noise has no place on the way up
        with pytest.raises(InputError, match="cannot have eta"):
            ddim_step(prediction, SCHEDULE, 20, t_next, eta=0.5, noise=source)
    with pytest.raises(InputError, match="does not go down"):
        ddpm_step(noise(), prediction, SCHEDULE, 20, 20, noise=noise)
    with pytest.raises(InputError, match="does not go up"):
        forward_step(noise(), noise(), SCHEDULE, 20, 10)


@pytest.mark.parametrize("timesteps", [[5], [3, 3, -1], [1, 2]])
def test_levels_that_do_not_fall_are_refused(timesteps):
    with pytest.raises(InputError, match="do not fall"):
        ddim_sample(DENOISER, torch.zeros(1, 1, 4, 4), timesteps)
