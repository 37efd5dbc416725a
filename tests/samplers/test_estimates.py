import pytest
import torch

from common.diffusion import NoiseSchedule, case_generators
from common.errors import InputError
from common.networks import Denoiser
from common.samplers import Step, estimates, single_step
from tests.exact import gaussian_denoiser, toy_network

SCHEDULE = NoiseSchedule("cosine")
LEVELS = [249, 499, 749, 499, 0]


def image(shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("shape", [(2, 1, 8, 8), (3, 2, 4, 4, 4)], ids=["2d", "3d"])
@pytest.mark.parametrize("max_batch", [1, 4, 7, 100])
def test_same_as_one_level_after_the_other(shape, max_batch):
    x, denoiser = image(shape), Denoiser(toy_network, SCHEDULE)
    generators = case_generators(range(shape[0]))
    alone = [single_step(denoiser, x, level, generator=generators) for level in LEVELS]
    seen: list[Step] = []
    counted = Denoiser(toy_network, SCHEDULE, max_batch=max_batch)
    together = estimates(
        counted,
        x,
        LEVELS,
        generator=case_generators(range(shape[0])),
        callback=seen.append,
    )
    torch.testing.assert_close(together.x0, torch.stack([each.x0 for each in alone]))
    assert [(step.i, step.t) for step in seen] == list(enumerate(LEVELS))
    torch.testing.assert_close(torch.stack([step.eps for step in seen]), torch.stack([each.eps for each in alone]))
    assert counted.evaluations == len(LEVELS) * shape[0]


def test_what_noise_did_goes_in_the_mean_of_antithetic_estimates():
    """The denoiser is affine, so the mean of a pair is the estimate without any noise."""
    x, denoiser = image((2, 1, 8, 8)), gaussian_denoiser(0.3, 0.5, SCHEDULE)
    levels = [249, 249, 499, 499, 499]
    x0 = estimates(denoiser, x, levels, generator=case_generators([1, 2]), antithetic=True).x0
    for first in (0, 2):
        level = levels[first]
        silent = denoiser(SCHEDULE.alpha_bar(level) ** 0.5 * x, level).x0
        torch.testing.assert_close((x0[first] + x0[first + 1]) / 2, silent, atol=1e-5, rtol=0)
    assert not torch.allclose((x0[2] + x0[4]) / 2, (x0[2] + x0[3]) / 2, atol=1e-2)  # the odd one is drawn anew


def test_repeated_levels_have_noise_of_their_own():
    x = image((2, 1, 8, 8))
    first, second = estimates(Denoiser(toy_network, SCHEDULE), x, [499, 499], generator=case_generators([0, 1])).x0
    assert not torch.allclose(first, second, atol=0.1)


@pytest.mark.parametrize("max_batch", [2, 100])
def test_conditioning_goes_with_its_case(max_batch):
    x, code = torch.zeros(2, 1, 4, 4), torch.tensor([[1.0], [2.0]])
    batches = []

    def network(state, timesteps, code):
        batches.append(len(state))
        return code.reshape(-1, 1, 1, 1).expand_as(state) * 0.1 + 0 * state

    denoiser = Denoiser(network, SCHEDULE, "sample", max_batch=max_batch)
    result = estimates(denoiser, x, [100, 200, 300], code=code).x0
    assert batches == ([2, 2, 2] if max_batch == 2 else [6])
    assert torch.equal(result, torch.tensor([0.1, 0.2]).reshape(1, 2, 1, 1, 1).expand(3, 2, 1, 4, 4))


def test_estimates_of_a_gaussian_are_its_posterior_means():
    denoiser = gaussian_denoiser(0.3, 0.5, SCHEDULE)
    x = 0.3 + 0.5 * torch.randn(1, 1, 128, 128, generator=torch.Generator().manual_seed(0))
    for level, estimate in zip(LEVELS, estimates(denoiser, x, LEVELS, generator=case_generators([7])).x0, strict=True):
        a = SCHEDULE.alpha_bar(level)
        assert estimate.mean().item() == pytest.approx(0.3, abs=0.02)
        assert estimate.std().item() == pytest.approx(0.5 * (a * 0.25 / (a * 0.25 + 1 - a)) ** 0.5, rel=0.03)


def test_levels_outside_the_schedule_are_refused():
    with pytest.raises(InputError, match="level 1000"):
        estimates(Denoiser(toy_network, SCHEDULE), torch.zeros(1, 1, 4, 4), [499, 1000])
