"""Patched DDPM and DISYRE: the numbers of the authors' code with a toy network, and their tables of levels."""

import pytest
import torch

from common.diffusion import NoiseSchedule, level_of_severity, sampling_levels, severity, to_model_range
from common.networks import Denoiser
from common.samplers import Step, box_mask, patch_boxes, patched_estimate
from tests.exact import constant_noise, toy_image, toy_network
from tests.parity.test_golden import check

COSINE = NoiseSchedule("cosine")
SEVERITIES = NoiseSchedule("linear", 100, beta_start=1e-3, beta_end=0.2)


def test_patched_ddpm():
    image = toy_image(96)
    field = torch.cos(torch.arange(96.0 * 96).double()).float().reshape(1, 1, 96, 96)
    patches = patch_boxes((96, 96), 48)
    steps: list[Step] = []
    boxes = [[part.indices(96)[:2] for part in reversed(patch.box)] for patch in patches]
    assert boxes == [[(0, 48), (0, 48)], [(48, 96), (0, 48)], [(0, 48), (48, 96)], [(48, 96), (48, 96)]]

    x = to_model_range(image)
    denoiser = Denoiser(toy_network, COSINE, "sample", None)
    x0 = patched_estimate(denoiser, x, 499, patches, noise=constant_noise(field), callback=steps.append)
    check((x0 + 1) / 2, (6550.094094, [0.846765, 0.820834, 0.726233], 0.549776), 1e-5)

    # The published loss has the image itself outside the box, and is a mean over the whole image.
    losses = [
        float((box_mask(x, [patch.box]) * (step.x0 - x)).abs().mean())
        for step, patch in zip(steps, patches, strict=True)
    ]
    assert losses == pytest.approx([0.139254, 0.142680, 0.143340, 0.138611], abs=1e-5)


def test_disyre_levels_of_inference():
    assert sampling_levels(99, 4, "trailing")[:-1] == [99, 74, 49, 24]
    assert sampling_levels(99, 5, "trailing")[:-1] == [99, 79, 59, 39, 19]


def test_disyre_severities_of_restoration():
    expected = {99: 0.9995, 50: 0.272, 25: 0.051, 0: 0.0045}
    for level, value in expected.items():
        assert severity(SEVERITIES, level) == pytest.approx(value, abs=5e-4 if level else 5e-5)


def test_disyre_levels_of_training_are_the_published_indices_reversed():
    published = {0.9: 13, 0.5: 36, 0.1: 65}
    levels = level_of_severity(SEVERITIES, torch.tensor(list(published)))
    assert [SEVERITIES.steps - 1 - int(level) for level in levels] == list(published.values())
