"""The numbers that the authors' code of cDDPM and of its Mahalanobis map gives with a toy network."""

import pytest
import torch
from torch import Tensor

from common.anomaly import mahalanobis, residual
from common.diffusion import NoiseSchedule
from common.inferers import ConditionedInferer
from tests.exact import constant_noise, toy_field, toy_image, toy_network
from tests.parity.test_golden import check

SCHEDULE = NoiseSchedule("cosine")
X0, FIELD = toy_image(), toy_field()
NOISE = {"field": constant_noise(FIELD), "zero": constant_noise(torch.zeros_like(FIELD))}


class ToyNetwork:
    """tanh(0.5 x + 0.001 t), whatever the condition."""

    def encode(self, image: Tensor) -> Tensor:
        return torch.zeros(image.shape[0], 4)

    def __call__(self, x: Tensor, timesteps: Tensor, condition: Tensor) -> Tensor:
        assert condition.shape == (x.shape[0], 4)
        return toy_network(x, timesteps)


def run(levels, noise, image=X0):
    inferer = ConditionedInferer(schedule=SCHEDULE, noise_levels=levels, noise=NOISE[noise], clip=None, progress=False)
    return inferer(image, ToyNetwork())


def test_schedule():
    known = {249: 0.84701216, 499: 0.49384359, 749: 0.14427210}
    assert {t: SCHEDULE.alpha_bar(t) for t in known} == pytest.approx(known, abs=1e-7)


@pytest.mark.parametrize(
    ("level", "total", "first", "last", "extremes"),
    [
        (249, 624.377010, [0.708712, 0.686858, 0.627436], 0.721407, (0.308070, 0.859155)),
        (499, 727.537712, [0.846765, 0.790497, 0.659716], 0.835106, (0.398247, 0.917667)),
    ],
)
def test_single_level(level, total, first, last, extremes):
    check(run([level], "field")["pseudo_healthy"], (total, first, last, *extremes), 1e-5)


def test_map_of_a_single_level():
    golden = (286.694425, [0.346765, 0.191162, 0.034993], 0.231872, 0.000030, 0.732350)
    out = run([499], "field")
    check(out["anomaly_map"], golden, 1e-5)
    check(residual(X0, out["pseudo_healthy"]), golden, 1e-5)


@pytest.mark.parametrize(
    ("noise", "losses"),
    [("field", [0.411998, 0.559950, 0.703163]), ("zero", [0.402952, 0.554937, 0.712236])],
)
def test_losses_of_the_three_levels(noise, losses):
    """L1 on [-1, 1] is twice the mean map."""
    means = [2 * run([level], noise)["anomaly_map"].mean().item() for level in (249, 499, 749)]
    assert means == pytest.approx(losses, abs=1e-5)


def test_ensemble_is_the_mean_of_the_levels():
    together = run([249, 499, 749], "field")["pseudo_healthy"]
    alone = [run([level], "field")["pseudo_healthy"] for level in (249, 499, 749)]
    torch.testing.assert_close(together, torch.stack(alone).mean(dim=0))


def mahalanobis_case():
    x = toy_image(16).double()
    j = torch.arange(16.0, dtype=torch.float64)
    return x, torch.stack([x * (0.9 + 0.02 * k) + 0.01 * torch.sin((k + 1) * j) for k in range(10)])


def test_mahalanobis():
    image, reconstructions = mahalanobis_case()
    distance = mahalanobis(image, reconstructions, terms="product")
    check(distance, (2.976111, [0.005209, 0.0, 0.0], 0.024614), 1e-6)
    assert int((distance == 0).sum()) == 114  # where the published code takes the root of a negative number


def test_whitened_terms_sum_to_the_same_distance():
    image, reconstructions = mahalanobis_case()
    samples = reconstructions.flatten(1)
    offset = image.flatten() - samples.mean(dim=0)
    covariance = torch.cov(samples.T) + 0.01 * torch.eye(256, dtype=torch.float64)
    whole = float(offset @ torch.linalg.solve(covariance, offset))
    assert mahalanobis(image, reconstructions).square().sum().item() == pytest.approx(whole, rel=1e-9)
