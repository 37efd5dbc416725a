"""Guidance: none at scale 0, the condition itself at scale 1, and one after the other."""

import pytest
import torch

from common.diffusion import NoiseSchedule, sampling_levels
from common.networks import Denoiser
from common.samplers import (
    ClassifierFreeGuidance,
    GradientGuidance,
    class_log_probability,
    compose,
    ddim_sample,
    segment_log_probability,
    value_log_likelihood,
)
from tests.exact import toy_image, toy_network

SCHEDULE = NoiseSchedule()
LEVELS = sampling_levels(300, 6)
START = toy_image(8) * 2 - 1


def conditional(x, timesteps, label=0):
    """The toy network with 0.1 a class added."""
    return toy_network(x, timesteps) + 0.1 * label


DENOISER = Denoiser(conditional, SCHEDULE)
NO_CLIP = Denoiser(conditional, SCHEDULE, clip=None)


def classifier(x, timesteps):
    return torch.stack([x.flatten(1).mean(dim=1), -x.flatten(1).mean(dim=1)], dim=1)


def brightness(x_t, t):
    return x_t.flatten(1).sum(dim=1)


@pytest.mark.parametrize("denoiser", [DENOISER, NO_CLIP], ids=["clip", "no clip"])
def test_scale_0_changes_not_a_bit(denoiser):
    plain = ddim_sample(denoiser, START, LEVELS)
    for guidance in (
        GradientGuidance(denoiser, brightness, scale=0),
        ClassifierFreeGuidance(denoiser, scale=0, label=1),
        compose(),
        compose(GradientGuidance(denoiser, brightness, scale=0), ClassifierFreeGuidance(denoiser, scale=0, label=1)),
    ):
        assert torch.equal(ddim_sample(denoiser, START, LEVELS, guidance=guidance), plain)


@pytest.mark.parametrize("denoiser", [DENOISER, NO_CLIP], ids=["clip", "no clip"])
def test_classifier_free_scale_1_is_the_condition(denoiser):
    guided = ddim_sample(denoiser, START, LEVELS, guidance=ClassifierFreeGuidance(denoiser, scale=1, label=1))
    torch.testing.assert_close(guided, ddim_sample(denoiser, START, LEVELS, label=1), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(guided, ddim_sample(denoiser, START, LEVELS), atol=1e-3)


def test_gradient_shifts_the_noise_by_its_formula():
    """ε' = ε̂ - s √(1-ᾱ_t) ∇ log p, here with a gradient of 1 in every voxel, and x̂_0 follows."""
    t = 300
    prediction = NO_CLIP(START, t)
    guided = GradientGuidance(NO_CLIP, brightness, scale=0.5)(START, t, prediction)
    signal, sigma = SCHEDULE.signal_and_noise(t)
    torch.testing.assert_close(guided.eps, prediction.eps - 0.5 * sigma)
    torch.testing.assert_close(signal * guided.x0 + sigma * guided.eps, START)
    assert not guided.x0.requires_grad


def test_guidance_works_inside_no_grad_and_raises_the_class():
    with torch.no_grad():
        guidance = GradientGuidance(NO_CLIP, class_log_probability(classifier, 0), scale=50)
        guided = ddim_sample(NO_CLIP, START, LEVELS, guidance=guidance)
        plain = ddim_sample(NO_CLIP, START, LEVELS)
    assert guided.mean() > plain.mean()


def test_likelihoods_are_those_of_their_distributions():
    x = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))

    def regressor(x, timesteps):
        assert timesteps.tolist() == [7, 7]
        return x[:, :1, 0, 0]

    normal = torch.distributions.Normal(x[:, 0, 0, 0], 2.0)
    found = value_log_likelihood(regressor, 0.5, spread=2.0)(x, 7)
    expected = normal.log_prob(torch.tensor(0.5)) - normal.log_prob(x[:, 0, 0, 0])  # up to a constant
    torch.testing.assert_close(found, expected)
    places = segment_log_probability(lambda x, timesteps: x, 1)(x, 7)
    torch.testing.assert_close(places, x.log_softmax(dim=1)[:, 1].mean(dim=(1, 2)))


def test_guidances_compose_in_order():
    gradient = GradientGuidance(NO_CLIP, brightness, scale=0.5)
    free = ClassifierFreeGuidance(NO_CLIP, scale=1, label=1)
    prediction = NO_CLIP(START, 200)
    both = compose(gradient, free)(START, 200, prediction)
    torch.testing.assert_close(both.eps, free(START, 200, gradient(START, 200, prediction)).eps)
    assert not torch.allclose(both.eps, gradient(START, 200, free(START, 200, prediction)).eps)


@pytest.mark.parametrize("denoiser", [DENOISER, NO_CLIP], ids=["clip", "no clip"])
def test_with_and_without_the_condition_in_one_batch(denoiser):
    """As two calls would have it, in half as many: ``nothing`` is the null class, said outright."""
    calls = []

    def counted(x, timesteps, label=None):
        calls.append(len(x))
        return conditional(x, timesteps, 0 if label is None else label.reshape(-1, 1, 1, 1))

    once, start = Denoiser(counted, SCHEDULE, clip=denoiser.clip), START.repeat(2, 1, 1, 1)
    guidance = ClassifierFreeGuidance(once, scale=3, label=torch.tensor([1, 2]))
    apart = ddim_sample(once, start, LEVELS, guidance=guidance)
    assert calls == [2] * 2 * (len(LEVELS) - 1)
    calls.clear()
    together = ddim_sample(once, start, LEVELS, guidance=guidance, label=torch.zeros(2, dtype=torch.long))
    assert calls == [4] * (len(LEVELS) - 1)
    torch.testing.assert_close(together, apart, rtol=1e-5, atol=1e-5)
    plain = ddim_sample(once, start, LEVELS, guidance=ClassifierFreeGuidance(once, scale=0, label=torch.ones(2)))
    assert torch.equal(plain, ddim_sample(once, start, LEVELS))


def test_predictions_are_mixed_before_they_are_kept_in_range():
    """At w = 3 the mixture of what the network says, clipped once (Ho & Salimans 2022; Saharia et al. 2022)."""
    t, loud = 300, Denoiser(lambda x, timesteps, label: x * (4 - 2 * label.reshape(-1, 1, 1, 1)), SCHEDULE, "sample")
    nothing, healthy = torch.zeros(1), torch.ones(1)
    found = ClassifierFreeGuidance(loud, scale=3, label=healthy).predict(START, t, label=nothing)
    eps = [Denoiser(loud.network, SCHEDULE, "sample", None)(START, t, label=label).eps for label in (nothing, healthy)]
    signal, sigma = SCHEDULE.signal_and_noise(t)
    x0 = ((START - sigma * (eps[0] + 3 * (eps[1] - eps[0]))) / signal).clamp(-1, 1)
    torch.testing.assert_close(found.x0, x0)
    torch.testing.assert_close(signal * found.x0 + sigma * found.eps, START)
    assert not torch.allclose(found.x0, loud(START, t, label=healthy).x0, atol=0.1)
