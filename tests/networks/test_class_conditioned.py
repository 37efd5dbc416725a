"""Networks that are told the class, that see an image besides, and that say the class."""

from typing import Any

import pytest
import torch

from common.diffusion import NoiseSchedule
from common.errors import InputError
from common.networks import (
    ClassConditionedUNet,
    ClassTokenUNet,
    ConditionedUNet,
    Denoiser,
    DenoisingUNet,
    ImageAutoencoder,
    ImageConcatenatedUNet,
    ImageEncoder,
    NoisyClassifier,
    load_weights,
    save_weights,
)

SMALL: dict[str, Any] = {
    "channels": (16, 32),
    "attention_levels": (False, True),
    "num_res_blocks": 1,
    "num_head_channels": 16,
}
TIMES = torch.tensor([3, 700])


def awake(network):
    """The network with the layers that begin at zero filled, so that its output is not zero."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(std=0.05)
    return network.eval()


def states(dims, channels=1):
    return torch.randn(2, channels, *[16] * dims, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("network_class", [ClassConditionedUNet, ClassTokenUNet])
def test_the_class_is_heard_and_has_a_default(network_class, dims):
    network, x = awake(network_class(dims, 1, 1, **SMALL)), states(dims)
    said = [network(x, TIMES, class_labels=torch.full((2,), label)) for label in (0, 1)]
    assert said[0].shape == x.shape
    assert not torch.allclose(said[0], said[1], atol=1e-4)
    default = 0 if network_class is ClassConditionedUNet else network.null_class
    assert torch.equal(network(x, TIMES), network(x, TIMES, class_labels=torch.full((2,), default)))
    assert [each.shape[1] for each in network.features(x, TIMES)] == [16, 32]


@pytest.mark.usefixtures("with_amx")
@pytest.mark.parametrize(
    "network_class", [ClassConditionedUNet, ClassTokenUNet, ConditionedUNet, ImageConcatenatedUNet]
)
def test_all_of_them_run_in_bfloat16(network_class):
    channels = 2 if network_class is ImageConcatenatedUNet else 1
    encoder = {"encoder": ImageEncoder(2, 1, channels=(16, 16))} if network_class is ConditionedUNet else {}
    said: dict[str, Any] = {
        ClassConditionedUNet: {"class_labels": torch.tensor([0, 1])},
        ClassTokenUNet: {"class_labels": torch.tensor([0, 1])},
        ConditionedUNet: {"condition": torch.randn(2, 16)},
        ImageConcatenatedUNet: {"image": states(2)},
    }[network_class]
    network = awake(network_class(2, channels, 1, **SMALL, **encoder))
    full, half = (Denoiser(network, NoiseSchedule(), amp=amp)(states(2), 300, **said).eps for amp in (False, True))
    assert (half - full).norm() < 0.05 * full.norm()


@pytest.mark.parametrize("network_class", [ClassConditionedUNet, ClassTokenUNet])
def test_a_case_has_its_own_class(network_class):
    network, x = awake(network_class(2, 1, 1, **SMALL)), states(2)
    together = network(x, TIMES, class_labels=torch.tensor([0, 1]))
    alone = network(x[1:], TIMES[1:], class_labels=torch.tensor([1]))
    torch.testing.assert_close(together[1:], alone, rtol=1e-4, atol=1e-5)


def test_the_null_class_adds_nothing_to_the_level_and_learns_nothing():
    network, x = awake(ClassConditionedUNet(2, 1, 1, **SMALL)), states(2)
    plain = DenoisingUNet(2, 1, 1, **SMALL).eval()
    plain.load_state_dict({key: value for key, value in network.state_dict().items() if "class" not in key})
    nothing = torch.full((2,), network.null_class)
    assert torch.equal(network(x, TIMES, class_labels=nothing), plain(x, TIMES))
    network(x, TIMES, class_labels=nothing).sum().backward()
    assert not network.class_embedding.weight.grad.any()


def test_the_null_token_is_the_zero_vector_and_stays_it():
    network = ClassTokenUNet(2, 1, 1, **SMALL)
    assert not network.class_vector.weight[network.null_class].any()
    awaken = awake(ClassTokenUNet(2, 1, 1, **SMALL)).train()
    awaken(states(2), TIMES).sum().backward()
    assert not awaken.class_vector.weight.grad[awaken.null_class].any()


def test_the_token_is_one_more_place_to_look_at():
    """Attention over places and token equals softmax over both, written out."""
    network = awake(ClassTokenUNet(2, 1, 1, **SMALL))
    block = network.middle_block.attention
    x = torch.randn(1, 32, 3, 5)
    token = torch.randn(1, 1, 16)
    attn, heads = block.attn, block.attn.num_heads
    places = block.norm(x).flatten(2).transpose(1, 2)
    token_key, token_value = block.token_kv(token).chunk(2, dim=2)
    query, key, value = (
        each.unflatten(2, (heads, -1)).movedim(2, 1)
        for each in (
            attn.to_q(places),
            torch.cat([attn.to_k(places), token_key], 1),
            torch.cat([attn.to_v(places), token_value], 1),
        )
    )
    weights = (query @ key.mT / 16**0.5).softmax(dim=-1)
    assert weights.shape[-1] == 16
    expected = attn.out_proj((weights @ value).movedim(1, 2).flatten(2)).mT.reshape(x.shape) + x
    torch.testing.assert_close(block(x, token), expected)


@pytest.mark.parametrize("network_class", [ClassConditionedUNet, ClassTokenUNet])
def test_begins_with_weights_of_a_network_without_classes(network_class, tmp_path):
    plain = awake(DenoisingUNet(2, 1, 1, **SMALL))
    save_weights(plain, tmp_path / "model.pt", torch.float32)
    network = load_weights(network_class(2, 1, 1, **SMALL), tmp_path / "model.pt", partly=True)
    own = network.state_dict()
    assert all(torch.equal(own[name], value) for name, value in plain.state_dict().items())


def test_further_input_channels_begin_as_they_were(tmp_path):
    plain = awake(DenoisingUNet(2, 1, 1, patch_size=2, **SMALL))
    save_weights(plain, tmp_path / "model.pt", torch.float32)
    network = ImageConcatenatedUNet(2, 2, 1, patch_size=2, **SMALL)
    before = network.conv_in.conv.weight.detach().clone()
    after = load_weights(network, tmp_path / "model.pt", partly=True).conv_in.conv.weight
    assert torch.equal(after[:, :4], plain.conv_in.conv.weight)
    assert torch.equal(after[:, 4:], before[:, 4:])


def test_weights_of_an_unrelated_network_are_refused(tmp_path):
    save_weights(ImageAutoencoder(**AUTOENCODER), tmp_path / "model.pt")
    with pytest.raises(InputError, match=r"shares \d+ of"):
        load_weights(DenoisingUNet(2, 1, 1, **SMALL), tmp_path / "model.pt", partly=True)
    other = DenoisingUNet(2, 1, 1, **{**SMALL, "channels": (16, 64)})  # its first level is alike
    save_weights(other, tmp_path / "model.pt")
    with pytest.raises(InputError, match=r"shares \d+ of"):
        load_weights(DenoisingUNet(2, 1, 1, **SMALL), tmp_path / "model.pt", partly=True)


def test_an_image_stands_before_what_is_drawn():
    network, x = awake(ImageConcatenatedUNet(2, 3, 1, **SMALL)), states(2, 3)
    output = network(x[:, 2:], TIMES, image=x[:, :2])
    assert output.shape == (2, 1, 16, 16)
    assert torch.equal(output, network(x, TIMES))


@pytest.mark.parametrize("dims", [2, 3])
def test_classifier_hears_the_level_and_sees_every_place(dims):
    network, x = awake(NoisyClassifier(dims, 2, 3, **SMALL)), states(dims, 2).requires_grad_()
    logits = network(x, TIMES)
    assert logits.shape == (2, 3)
    assert not torch.allclose(logits, network(x, TIMES.flip(0)), atol=1e-4)
    assert torch.equal(network(x), network(x, torch.zeros(2, dtype=torch.long)))
    (gradient,) = torch.autograd.grad(logits[:, 0].sum(), x)
    assert (gradient != 0).float().mean() > 0.99


AUTOENCODER: dict[str, Any] = {
    "spatial_dims": 2,
    "in_channels": 1,
    "out_channels": 1,
    "channels": (16, 16, 16),
    "strides": (1, 2, 2),
    "norm": ("group", {"num_groups": 8}),
}


def test_autoencoder_has_halves_that_keep_places():
    network, x = ImageAutoencoder(**AUTOENCODER).eval(), states(2)
    assert network.size_divisor == 4
    code = network.encode(x)
    assert code.shape == (2, 16, 4, 4)
    torch.testing.assert_close(network(x, TIMES), network.decode(code))
