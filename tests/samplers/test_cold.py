import pytest
import torch

from common.diffusion import CLEAN, NoiseSchedule, level_of_severity, sampling_levels, severity
from common.errors import InputError
from common.networks import Denoiser
from common.samplers import Step, cold_sample, estimate_states

SCHEDULE = NoiseSchedule("linear", 100, beta_start=1e-3, beta_end=0.2)
SHAPES = [(2, 1, 8, 8), (1, 2, 4, 4, 4)]


def pair(shape):
    source = torch.Generator().manual_seed(0)
    return torch.rand(shape, generator=source) * 2 - 1, torch.rand(shape, generator=source) * 2 - 1


def test_severity_rises_with_the_level_and_is_0_for_the_image():
    severities = [severity(SCHEDULE, t) for t in range(CLEAN, 100)]
    assert severities[0] == 0
    assert severities == sorted(severities)
    assert severities[-1] == pytest.approx(0.9995, abs=1e-4)


def test_a_severity_finds_its_own_level():
    levels = torch.arange(100)
    assert torch.equal(level_of_severity(SCHEDULE, torch.tensor([severity(SCHEDULE, int(t)) for t in levels])), levels)
    assert level_of_severity(SCHEDULE, torch.tensor([0.0, 1.0])).tolist() == [0, 99]


@pytest.mark.parametrize("shape", SHAPES, ids=["2d", "3d"])
def test_states_on_the_way_are_the_mixtures_of_their_levels(shape):
    """With the right x̂_0 every state is (1 - α_t) x_0 + α_t x_T, and the last one is the image."""
    x0, degraded = pair(shape)

    def mixture(t):
        share = severity(SCHEDULE, t)
        return (1 - share) * x0 + share * degraded

    denoiser = Denoiser(lambda x, timesteps: x0, SCHEDULE, "sample", None)
    levels = sampling_levels(80, 5, "trailing")
    steps: list[Step] = []
    found = cold_sample(denoiser, mixture(80), levels, callback=steps.append)
    for step in steps:
        torch.testing.assert_close(step.x, mixture(step.t), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found, x0, rtol=1e-4, atol=1e-5)
    assert len(steps) == 5


@pytest.mark.parametrize("shape", SHAPES, ids=["2d", "3d"])
def test_estimates_of_all_levels_at_once_equal_one_after_the_other(shape):
    x, _ = pair(shape)
    levels = [99, 49, 7]

    def network(x, timesteps):
        return torch.tanh(0.5 * x + 0.01 * timesteps.reshape(-1, *(1,) * (x.ndim - 1)))

    denoiser = Denoiser(network, SCHEDULE, "sample", None)
    one = torch.stack([denoiser(x, t).x0 for t in levels])
    states = x.expand(len(levels), *shape)
    for max_batch in (None, 2):
        bounded = Denoiser(network, SCHEDULE, "sample", None, max_batch=max_batch)
        torch.testing.assert_close(estimate_states(bounded, states, levels).x0, one)


def test_levels_that_do_not_fall_are_refused():
    denoiser = Denoiser(lambda x, timesteps: x, SCHEDULE, "sample")
    with pytest.raises(InputError, match="do not fall"):
        cold_sample(denoiser, torch.zeros(1, 1, 4, 4), [10, 20, CLEAN])
    with pytest.raises(InputError, match="level 100"):
        estimate_states(denoiser, torch.zeros(1, 1, 1, 4, 4), [100])
