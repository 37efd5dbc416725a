"""Classifier guidance as published: numbers of the authors' code with a toy network.

Their indices are expressed as lists of levels: the encoder evaluates 1, …, L - 1 and leaves the image at L, which the
decoder, evaluating L - 2, …, 0, takes for L - 2.
"""

from typing import Any

import pytest
import torch

from common.diffusion import CLEAN, NoiseSchedule, StaticClip
from common.networks import Denoiser
from common.samplers import GradientGuidance, ddim_round_trip
from tests.exact import toy_network

LEVEL = 100
PUBLISHED: dict[str, Any] = {
    "timesteps": [*range(LEVEL - 2, -1, -1), CLEAN],
    "inversion_timesteps": list(range(1, LEVEL + 1)),
}


def image():
    i, j, k = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), torch.arange(4.0), indexing="ij")
    return (0.5 + 0.5 * torch.sin(0.3 * i + 0.2 * j + k)).movedim(-1, 0)[None]


def check(actual, total, first, last):
    values = actual.double().flatten()
    assert values.sum().item() == pytest.approx(total, abs=values.numel() * 2.5e-5)
    assert values[:3].tolist() == pytest.approx(first, abs=1e-4)
    assert values[-1].item() == pytest.approx(last, abs=1e-4)


def test_common_input():
    check(image(), 475.136731, [0.5, 0.599335, 0.694709], 0.060152)


@pytest.mark.parametrize("clip", [StaticClip(), None], ids=["clip", "no clip"])
def test_without_guidance(clip):
    x = ddim_round_trip(Denoiser(toy_network, NoiseSchedule(), clip=clip), image(), **PUBLISHED)
    check(x, 472.465108, [0.497113, 0.595842, 0.690646], 0.060034)


def test_with_a_constant_gradient():
    denoiser = Denoiser(toy_network, NoiseSchedule())
    guidance = GradientGuidance(denoiser, lambda x, t: -0.01 * x.flatten(1).sum(dim=1), scale=100)
    x = ddim_round_trip(denoiser, image(), guidance=guidance, **PUBLISHED)
    check(x, 421.119906, [0.447050, 0.545626, 0.640266], 0.010370)


def test_the_intended_indices_come_back():
    levels = [*range(LEVEL, -1, -1), CLEAN]
    x = ddim_round_trip(Denoiser(toy_network, NoiseSchedule(), clip=None), image(), levels, fixed_point_steps=2)
    torch.testing.assert_close(x, image(), atol=1e-5, rtol=0)
