import pytest
import torch

from common.errors import InputError
from common.networks import DenoisingAutoencoder


def network(dims=2, channels=(8, 16, 24)):
    torch.manual_seed(0)
    return DenoisingAutoencoder(dims, 2, channels=channels).eval()


@pytest.mark.parametrize("size", [(16, 24), (8, 12, 16)], ids=["2d", "3d"])
def test_output_has_the_shape_of_the_image_and_no_level(size):
    x = torch.randn(2, 2, *size)
    output = network(len(size))(x)
    assert output.shape == x.shape
    assert torch.equal(network(len(size))(x, timesteps=torch.tensor([3, 999])), output)


def test_every_pixel_of_the_coarsest_patch_reaches_the_output():
    x = torch.randn(1, 2, 32, 32, requires_grad=True)
    network()(x)[0, 0, 16, 16].backward()
    assert x.grad is not None
    assert (x.grad[0, 0, 12:20, 12:20] != 0).all()


def test_scale_and_offset_of_a_weight_have_no_effect():
    """Weights are standardised before use."""
    x, changed = torch.randn(2, 2, 16, 16), network()
    with torch.no_grad():
        weight = changed.down[1][0].conv.weight
        weight.mul_(3).add_(0.7)
    torch.testing.assert_close(changed(x), network()(x), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("shape", "match"),
    [((1, 1, 16, 16), "batch, 2, height, width"), ((1, 2, 16, 18), "not divisible by 4")],
    ids=["1ch", "size"],
)
def test_what_it_cannot_take_is_refused(shape, match):
    with pytest.raises(InputError, match=match):
        network()(torch.zeros(shape))
