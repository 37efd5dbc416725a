"""The loss of a learned variance: what it teaches, and what it leaves alone; and steps that use what was learnt."""

import math
from typing import Any

import pytest
import torch

from common.diffusion import NoiseSchedule, Prediction, between, ddpm_step
from common.errors import InputError
from common.networks import Denoiser
from common.samplers import ClassifierFreeGuidance, GradientGuidance, ddpm_sample
from common.training import ClassBatch, HybridLoss, variance_target

SCHEDULE = NoiseSchedule()
NOISE = torch.randn(3, 2, 8, 8, generator=torch.Generator().manual_seed(0))
T = torch.tensor([0, 200, 999])


def loss(place: float, error: float = 0.0, t: torch.Tensor = T, weight: float = 1.0) -> torch.Tensor:
    output = torch.cat([NOISE + error, torch.full_like(NOISE, place)], dim=1)
    return HybridLoss(SCHEDULE, weight)(output, variance_target(NOISE, t))


def test_is_zero_where_noise_and_variance_are_right() -> None:
    assert float(loss(-1, t=torch.tensor([200, 500, 999]))) == pytest.approx(0, abs=1e-5)
    assert float(loss(1, t=torch.tensor([200, 500, 999]))) > 0


def test_without_weight_it_is_the_squared_error() -> None:
    assert float(loss(0.3, error=0.5, weight=0)) == pytest.approx(0.25)


def test_divergence_is_that_of_two_gaussians() -> None:
    t = 20
    bar, below = SCHEDULE.alpha_bar(t), SCHEDULE.alpha_bar(t - 1)
    beta = 1 - bar / below
    small = beta * (1 - below) / (1 - bar)
    gain = beta / math.sqrt((1 - beta) * (1 - bar))
    true = torch.distributions.Normal(0.0, math.sqrt(small))
    model = torch.distributions.Normal(gain * 0.5, math.sqrt(math.exp((math.log(small) + math.log(beta)) / 2)))
    expected = 0.25 + float(torch.distributions.kl_divergence(true, model))
    assert float(loss(0, error=0.5, t=torch.tensor([t] * 3))) == pytest.approx(expected, rel=1e-4)


def test_bound_teaches_the_variance_and_not_the_mean() -> None:
    output = torch.cat([NOISE + 0.5, torch.zeros_like(NOISE)], dim=1).requires_grad_()
    HybridLoss(SCHEDULE)(output, variance_target(NOISE, T)).backward()
    assert output.grad is not None
    plain = 2 * 0.5 / NOISE.numel()
    torch.testing.assert_close(output.grad[:, :2], torch.full_like(NOISE, plain))
    assert (output.grad[:, 2:] != 0).all()


def test_place_goes_from_the_small_to_the_large_variance() -> None:
    place = torch.tensor([-1.0, 0.0, 1.0])
    torch.testing.assert_close(between(place, 0.01, 0.04), torch.tensor([0.01, 0.02, 0.04]))


@pytest.mark.parametrize(("place", "variance"), [(-1.0, "fixed_small"), (1.0, "fixed_large")])
def test_samplers_use_what_was_learnt(place: float, variance: str) -> None:
    def network(x: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        return torch.cat([0.5 * x, torch.full_like(x, place)], dim=1)

    def plain(x: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        return 0.5 * x

    levels = [300, 200, 100, -1]
    generators = [[torch.Generator().manual_seed(index) for index in range(3)] for _ in range(2)]
    fixed_variance: Any = variance
    learnt = ddpm_sample(Denoiser(network, SCHEDULE), NOISE, levels, variance="learned", generator=generators[0])
    fixed = ddpm_sample(Denoiser(plain, SCHEDULE), NOISE, levels, variance=fixed_variance, generator=generators[1])
    torch.testing.assert_close(learnt, fixed)


def test_guidance_and_parts_of_a_batch_keep_what_was_learnt() -> None:
    def network(x: torch.Tensor, timesteps: torch.Tensor, label: int = 0) -> torch.Tensor:
        return torch.cat([0.5 * x + label, 0.1 * x + label], dim=1)

    denoiser = Denoiser(network, SCHEDULE)
    prediction = denoiser(NOISE, 300)
    assert prediction.variance is not None
    gradient = GradientGuidance(denoiser, lambda x, t: x.flatten(1).sum(dim=1), scale=0.5)
    free = ClassifierFreeGuidance(denoiser, scale=2, label=1)
    for guided in (gradient(NOISE, 300, prediction), free(NOISE, 300, prediction), free.predict(NOISE, 300)):
        assert guided.variance is not None
        assert torch.equal(guided.variance, prediction.variance)
        assert not torch.equal(guided.eps, prediction.eps)
    for part, whole in zip(prediction.of_cases(slice(1, 3)), prediction, strict=True):
        assert part is not None
        assert whole is not None
        assert torch.equal(part, whole[1:3])


def test_a_network_that_says_no_variance_is_refused() -> None:
    with pytest.raises(InputError, match="not what this network says"):
        ddpm_step(NOISE, Prediction(NOISE, NOISE), SCHEDULE, 5, 3, noise=lambda: NOISE, variance="learned")


def test_a_batch_brings_the_level_with_the_noise() -> None:
    data = {"image": torch.rand(3, 1, 8, 8), "label": torch.tensor([0, 1, 0]), "case": list("abc")}
    _, target, _, keywords = ClassBatch(SCHEDULE, learned_variance=True)(data, "cpu")
    assert target.shape == (3, 2, 8, 8)
    assert torch.equal(target[:, 1, 0, 0], keywords["timesteps"].float())
