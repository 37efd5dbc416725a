"""Saliency: it lies where the classifier looks, case by case, and its mask has the size asked for."""

import pytest
import torch

from common.anomaly import counterfactual_saliency, saliency_mask
from common.errors import InputError

PLACE = (slice(None), slice(None), slice(4, 7), slice(8, 12))


def classify(image):
    """Diseased where the place is bright."""
    inside = image[PLACE].flatten(1).sum(dim=1)
    return torch.stack([-inside, inside], dim=1)


def identity(image):
    return image


def images(seed=0, cases=3, channels=2):
    return torch.rand(cases, channels, 16, 16, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def saliency(image, **options):
    return counterfactual_saliency(image, identity, identity, classify, **options)


def test_lies_where_the_classifier_looks():
    found = saliency(images())
    assert found.shape == (3, 2, 16, 16)
    outside = found.clone()
    outside[PLACE] = 0
    assert (found[PLACE] > 0.5).all()
    assert not outside.any()
    assert found.flatten(1).amax(dim=1).tolist() == pytest.approx([1, 1, 1])


def test_every_class_that_is_moved_to_counts():
    def brighten(code):
        return code.clamp(min=0)

    dark = torch.zeros(1, 1, 16, 16)
    assert not counterfactual_saliency(dark, identity, brighten, classify, targets=(0,)).any()
    for targets in ((0, 1), (1, 0)):
        assert (counterfactual_saliency(dark, identity, brighten, classify, targets=targets)[PLACE] == 1).all()


def test_volumes_too():
    volume = images(channels=1)[..., None].repeat(1, 1, 1, 1, 4)
    assert saliency(volume).shape == volume.shape


def test_cases_do_not_see_each_other():
    together = saliency(images())
    torch.testing.assert_close(together[1:2], saliency(images()[1:2]))


def test_a_classifier_that_looks_nowhere_finds_nothing():
    blind = lambda image: 0 * image.flatten(1)[:, :2]  # noqa: E731
    assert not counterfactual_saliency(images(), identity, identity, blind).any()


def test_a_penalty_holds_the_code_back():
    """Far from its start, the pull of the penalty outweighs the classifier's, which is weak here."""

    def weak(image):
        return 1e-3 * classify(image)

    def moved(penalty):
        seen = []

        def decode(code):
            seen.append(code.detach().clone())
            return code

        counterfactual_saliency(images(), identity, decode, weak, penalty=penalty, step_size=0.1, targets=(0,))
        return float((seen[-1] - seen[0]).abs().max())

    assert moved(penalty=1e4) < 0.5 * moved(penalty=0.0)


def test_weights_are_not_touched_and_no_graph_is_left():
    layer = torch.nn.Conv2d(2, 2, 1).requires_grad_(False)
    with torch.no_grad():
        found = counterfactual_saliency(images(), layer, identity, classify)
    assert not found.requires_grad
    assert layer.weight.grad is None


@pytest.mark.parametrize("options", [{"targets": ()}, {"steps": 0}])
def test_nothing_to_do_is_refused(options):
    with pytest.raises(InputError, match="move nothing"):
        saliency(images(), **options)


def test_mask_is_the_highest_tenth_of_the_region():
    values = torch.linspace(0, 1, 400).reshape(1, 1, 20, 20)
    assert int(saliency_mask(values, quantile=0.9, width=1).sum()) == 40
    region = torch.zeros(1, 1, 20, 20)
    region[..., :10, :] = 1
    mask = saliency_mask(values, quantile=0.9, width=1, region=region)
    assert int(mask.sum()) == 20
    assert not mask[..., 10:, :].any()


def test_mask_is_widened_by_half_the_width_and_kept_in_the_region():
    values = torch.zeros(1, 1, 20, 20)
    values[..., 10, 3] = 1
    region = torch.ones(1, 1, 20, 20)
    region[..., :2] = 0
    mask = saliency_mask(values, quantile=0.99, width=5, region=region)
    expected = torch.zeros_like(mask)
    expected[..., 8:13, 2:6] = True
    assert torch.equal(mask, expected)


def test_mask_of_nothing_is_empty():
    assert not saliency_mask(torch.zeros(2, 1, 8, 8)).any()
    assert not saliency_mask(torch.rand(1, 1, 8, 8), region=torch.zeros(1, 1, 8, 8)).any()
    with pytest.raises(InputError, match="outside"):
        saliency_mask(torch.zeros(1, 1, 8, 8), quantile=1)
