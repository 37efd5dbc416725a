"""What happens to the state on the way, seen through the callback."""

from typing import Any

import torch

from common.diffusion import NoiseSchedule, sampling_levels
from common.networks import Denoiser
from common.samplers import Step, inpaint, partial_diffusion, resampling_levels, thor_sample
from tests.exact import constant_noise, toy_field, toy_image, toy_network

SCHEDULE = NoiseSchedule()
IMAGE = toy_image(16) * 2 - 1


def test_surroundings_are_known_at_every_level():
    field = toy_field(16)
    mask = torch.zeros_like(IMAGE)
    mask[..., :8] = 1
    seen: list[Step] = []
    inpaint(
        Denoiser(toy_network, SCHEDULE),
        torch.zeros_like(IMAGE),
        sampling_levels(50, 6),
        known=IMAGE,
        mask=mask,
        resample_steps=1,
        noise=constant_noise(field),
        callback=seen.append,
    )
    assert [step.t for step in seen] == [50, 40, 30, 20, 10, 0]
    for step in seen[1:]:
        expected = SCHEDULE.add_noise(IMAGE, field, step.t)
        torch.testing.assert_close(step.x[..., 8:], expected[..., 8:])
        assert not torch.allclose(step.x[..., :8], expected[..., :8], atol=1e-2)


def test_resampling_goes_down_and_up():
    assert resampling_levels([20, 10, 0, -1], 1) == [20, 10, 0, -1]
    assert resampling_levels([20, 10, 0, -1], 3) == [20, 10, 20, 10, 20, 10, 0, 10, 0, 10, 0, -1]


def test_thor_noises_again_with_the_noise_of_the_start():
    def noise_of(step):
        signal, sigma = SCHEDULE.signal_and_noise(step.t)
        return (step.x - signal * IMAGE) / sigma

    seen: list[Step] = []
    thor_sample(
        Denoiser(toy_network, SCHEDULE),
        IMAGE,
        [300, 200, 100, -1],
        temporal_map=lambda x0: torch.ones_like(x0),
        region_mask=torch.zeros_like,  # all of it looks healthy
        harmonise_levels=(200,),
        generator=torch.Generator().manual_seed(0),
        callback=seen.append,
    )
    torch.testing.assert_close(noise_of(seen[2]), noise_of(seen[0]), rtol=1e-3, atol=1e-4)
    assert (noise_of(seen[1]) - noise_of(seen[0])).abs().mean() > 0.1


def test_thor_without_harmonisation_is_partial_diffusion():
    denoiser, levels = Denoiser(toy_network, SCHEDULE), [300, 200, 100, -1]
    maps: dict[str, Any] = {"temporal_map": torch.ones_like, "region_mask": torch.zeros_like, "harmonise_levels": ()}
    for variance in ("fixed_small", "fixed_large"):
        one, other = (torch.Generator().manual_seed(0) for _ in range(2))
        plain = partial_diffusion(denoiser, IMAGE, levels, variance=variance, generator=one)
        assert torch.equal(thor_sample(denoiser, IMAGE, levels, variance=variance, generator=other, **maps).x, plain)
