import pytest
import torch

from common.diffusion import NoiseSchedule
from common.errors import InputError
from common.inferers import PatchedInferer

SCHEDULE = NoiseSchedule("cosine")


def make(**options):
    return PatchedInferer(**{"schedule": SCHEDULE, "prediction_type": "sample", "progress": False, **options})


def echo(x, timesteps):
    """Takes the noised state for the image."""
    return x


def image(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 0.5 + 0.25


@pytest.mark.parametrize(("overlap", "boxes"), [("none", 4), ("cut", 9), ("average", 9)])
def test_one_evaluation_a_box(overlap, boxes):
    inferer = make(patch_size=[8, 12], overlap=overlap, batch_size=3)
    inferer(image(2, 1, 16, 24), echo)
    assert inferer.evaluations_per_slice == boxes
    assert inferer.evaluations == 2 * boxes
    inferer(image(1, 1, 24, 24), echo)
    assert inferer.evaluations_per_slice == (6 if overlap == "none" else 15)


def test_boxes_are_those_of_the_padded_image():
    class Network(torch.nn.Module):
        size_divisor = 8

        def forward(self, x, timesteps):
            return x

    inferer = make(patch_size=8)
    inferer(image(1, 1, 17, 24), Network())
    assert inferer.evaluations == inferer.evaluations_per_slice == 9
    inferer(image(1, 1, 16, 24), Network())
    assert inferer.evaluations_per_slice == 6


def test_every_part_was_noised_once():
    """The network returns its state, so the whole pseudo-healthy image is the noised one, and so noisy is the map."""
    x = image(8, 1, 16, 24)
    found = make(patch_size=[8, 12])(x, echo)
    assert (found["pseudo_healthy"] != x).float().mean() > 0.99
    quiet = make(patch_size=[8, 12], noise_level=0)(x, echo)
    assert quiet["anomaly_map"].max() < 0.05 < found["anomaly_map"].mean()


def test_a_network_that_fills_in_the_healthy_value_shows_the_lesion():
    x = torch.full((1, 1, 16, 24), 0.5)
    x[..., 4:8, 4:8] = 1.0
    found = make(patch_size=8)(x, lambda y, timesteps: torch.zeros_like(y))
    assert torch.equal(found["anomaly_map"] > 0.4, x > 0.9)
    assert torch.equal(found["pseudo_healthy"], torch.full_like(x, 0.5))


def test_volumes_of_a_3d_method_are_cut_in_boxes():
    inferer = make(patch_size=4, spatial_dims=3)
    found = inferer(image(2, 1, 8, 8, 8), echo)
    assert found["anomaly_map"].shape == (2, 1, 8, 8, 8)
    assert inferer.evaluations == 2 * 8


def test_bad_options_are_refused():
    for options in ({"noise_level": 1000}, {"overlap": "blend"}, {"patch_size": [8, 8, 8]}, {"patch_size": 0}):
        with pytest.raises(InputError):
            make(**options)
    with pytest.raises(InputError, match="patch_size"):
        make(patch_size=48)(image(1, 1, 16, 24), echo)
