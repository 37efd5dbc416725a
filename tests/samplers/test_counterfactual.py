"""Inversion that returns the input, guidance that leaves it, and two chains that are one outside a mask."""

import pytest
import torch

from common.diffusion import CLEAN, NoiseSchedule, sampling_levels
from common.errors import InputError
from common.networks import Denoiser
from common.samplers import (
    GradientGuidance,
    ddim_invert,
    ddim_round_trip,
    ddim_sample,
    ddpm_sample,
    fused_sample,
)
from tests.exact import gaussian_denoiser, toy_image, toy_network

SCHEDULE = NoiseSchedule()
IMAGE = 2 * toy_image(16) - 1
VOLUME = torch.stack([IMAGE[0], -IMAGE[0]], dim=-1)[None].repeat(2, 1, 1, 1, 1)
DENOISER = Denoiser(toy_network, SCHEDULE, clip=None)


def error(image, **options):
    return float((ddim_round_trip(DENOISER, image, sampling_levels(300, 20), **options) - image).abs().max())


def test_round_trip_returns_the_input_within_a_bound_that_falls_with_the_steps():
    errors = [
        float((ddim_round_trip(DENOISER, IMAGE, sampling_levels(300, count)) - IMAGE).abs().max())
        for count in (10, 50, 301)
    ]
    assert errors[0] > errors[1] > errors[2]
    assert errors[0] < 0.12
    assert errors[2] < 0.006


@pytest.mark.parametrize("image", [IMAGE, VOLUME], ids=["2-D", "3-D"])
def test_fixed_points_make_the_inversion_exact(image):
    rough, better, exact = error(image), error(image, fixed_point_steps=1), error(image, fixed_point_steps=8)
    assert rough > 10 * better > 10 * exact
    assert exact < 1e-4


def test_fixed_points_have_the_condition_of_the_way_back():
    def network(x, timesteps, shift=0.0):
        return toy_network(x, timesteps) + shift

    denoiser, levels = Denoiser(network, SCHEDULE, clip=None), sampling_levels(300, 20)
    back = ddim_round_trip(denoiser, IMAGE, levels, fixed_point_steps=8, shift=0.3)
    torch.testing.assert_close(back, IMAGE, atol=1e-4, rtol=0)


def test_fixed_points_of_a_denoiser_that_is_right():
    denoiser = gaussian_denoiser(0.2, 0.5, SCHEDULE)
    back = ddim_round_trip(denoiser, IMAGE, sampling_levels(500, 10), fixed_point_steps=12)
    torch.testing.assert_close(back, IMAGE, atol=1e-4, rtol=0)


def test_scale_0_is_the_round_trip_bit_for_bit():
    levels = sampling_levels(200, 7)
    guidance = GradientGuidance(DENOISER, lambda x, t: x.flatten(1).sum(dim=1), scale=0)
    plain = ddim_round_trip(DENOISER, IMAGE, levels)
    assert torch.equal(ddim_round_trip(DENOISER, IMAGE, levels, guidance=guidance), plain)


def test_guidance_goes_up_the_gradient_on_the_way_down_only():
    levels, seen = sampling_levels(200, 7), []
    guidance = GradientGuidance(DENOISER, lambda x, t: x.flatten(1).sum(dim=1), scale=1)
    guided = ddim_round_trip(DENOISER, IMAGE, levels, guidance=guidance, callback=lambda step: seen.append(step.t))
    assert (guided > ddim_round_trip(DENOISER, IMAGE, levels)).all()
    assert seen == [*reversed(levels[1:]), *levels[:-1]]


def test_encoding_may_have_a_condition_of_its_own():
    def network(x, timesteps, shift=0.0):
        return toy_network(x, timesteps) + shift

    denoiser, levels = Denoiser(network, SCHEDULE, clip=None), sampling_levels(200, 7)
    code = ddim_invert(denoiser, IMAGE, list(reversed(levels)), shift=0.1)
    expected = ddim_sample(denoiser, code, levels, shift=0.3)
    actual = ddim_round_trip(denoiser, IMAGE, levels, inversion_conditioning={"shift": 0.1}, shift=0.3)
    assert torch.equal(actual, expected)
    same = ddim_round_trip(denoiser, IMAGE, levels, shift=0.1)
    assert torch.equal(same, ddim_sample(denoiser, code, levels, shift=0.1))


def generators(count=1):
    return [torch.Generator().manual_seed(index) for index in range(count)]


@pytest.mark.parametrize("image", [IMAGE.repeat(2, 3, 1, 1), VOLUME], ids=["2-D, 3 channels", "3-D"])
def test_outside_the_mask_both_chains_are_one(image):
    levels = sampling_levels(300, 8)
    mask = torch.zeros_like(image[:, :1])
    mask[:, :, 3:9, 4:12] = 1
    code = ddim_invert(DENOISER, image, list(reversed(levels)))
    fused = fused_sample(DENOISER, code, levels, mask=mask, generator=generators(2))
    inside = mask.bool().expand_as(image)
    assert torch.equal(fused.image[~inside], fused.reconstruction[~inside])
    assert (fused.image[inside] != fused.reconstruction[inside]).all()
    torch.testing.assert_close(fused.reconstruction, ddim_sample(DENOISER, code, levels))


def test_a_mask_of_everything_is_ddpm():
    levels = sampling_levels(300, 8)
    fused = fused_sample(DENOISER, IMAGE, levels, mask=torch.ones_like(IMAGE), generator=generators())
    expected = ddpm_sample(DENOISER, IMAGE, levels, variance="fixed_large", generator=generators())
    torch.testing.assert_close(fused.image, expected)


def test_each_channel_may_have_its_mask():
    levels, image = sampling_levels(300, 8), IMAGE.repeat(1, 2, 1, 1)
    mask = torch.zeros_like(image)
    mask[:, 1] = 1
    fused = fused_sample(DENOISER, image, levels, mask=mask, generator=generators())
    assert torch.equal(fused.image[:, 0], fused.reconstruction[:, 0])
    assert not torch.equal(fused.image[:, 1], fused.reconstruction[:, 1])


def test_fusion_may_end_before_the_image():
    levels, mask = sampling_levels(300, 8), torch.zeros_like(IMAGE)
    fused = fused_sample(DENOISER, IMAGE, levels, mask=mask, fuse_above=100, generator=generators())
    assert not torch.equal(fused.image, fused.reconstruction)
    everywhere = fused_sample(DENOISER, IMAGE, levels, mask=mask, fuse_above=CLEAN, generator=generators())
    assert torch.equal(everywhere.image, everywhere.reconstruction)


def test_what_cannot_be_used_is_refused():
    with pytest.raises(InputError, match="does not fit"):
        fused_sample(DENOISER, IMAGE, sampling_levels(300, 8), mask=torch.ones(1, 1, 8, 8))
    with pytest.raises(InputError, match="do not fall"):
        ddim_round_trip(DENOISER, IMAGE, [0, 100, 200])
