from typing import Any

import pytest
import torch

from common.errors import InputError
from common.networks import ConditionedUNet, DenoisingUNet, ImageEncoder, MaskedAutoencoder, load_weights, save_weights
from common.networks.weights import HASH_FILE

SMALL: dict[str, Any] = {
    "channels": (8, 16),
    "attention_levels": (False, True),
    "num_res_blocks": 1,
    "num_head_channels": 8,
    "norm_num_groups": 8,
}


def encoder(dims=2, channels=1):
    return ImageEncoder(dims, channels, channels=(8, 8, 16), norm_num_groups=4)


def conditioned(dims=2, channels=1, **kwargs):
    """A network without the zeros at the start of training, so that outputs differ."""
    torch.manual_seed(0)
    network = ConditionedUNet(dims, channels, channels, encoder=encoder(dims, channels), **{**SMALL, **kwargs})
    for parameter in network.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return network.eval()


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("channels", [1, 2])
def test_codes_depend_on_the_image_and_on_nothing_else(dims, channels):
    torch.manual_seed(0)
    network = encoder(dims, channels).train()
    image = torch.randn(3, channels, *(17, 24, 9)[:dims])
    codes = network(image)
    assert codes.shape == (3, network.dim) == (3, 16)
    assert network.features(image).shape[2:] == tuple(-(-size // network.stride) for size in image.shape[2:])
    torch.testing.assert_close(network(image[[1]]), codes[[1]])
    assert not torch.allclose(codes[0], codes[1], atol=1e-3)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("patch_size", [1, 2])
def test_output_depends_on_the_condition(dims, patch_size):
    network = conditioned(dims, patch_size=patch_size)
    x, image, t = torch.randn(2, 1, *(8,) * dims), torch.randn(2, 1, *(8,) * dims), torch.tensor([3, 700])
    output = network(x, t, condition=image)
    assert output.shape == x.shape
    assert not torch.allclose(output, network(x, t, condition=image.flip(0)), atol=1e-3)
    assert not torch.allclose(output, network(x, t.flip(0), condition=image), atol=1e-3)
    code = network.encode(image)
    assert torch.equal(output, network(x, t, condition=code))
    assert torch.equal(network(x, t), network(x, t, condition=torch.zeros_like(code)))
    assert torch.equal(network(x), network(x, torch.zeros(2, dtype=torch.long)))


def test_every_residual_block_hears_level_and_condition():
    """Each block's own scale and shift get a gradient from the level's half and from the code's half."""
    network = conditioned(resblock_updown=True)
    x = torch.randn(2, 1, 8, 8)
    network(x, torch.tensor([3, 700]), condition=x).square().sum().backward()
    projections = {name: each for name, each in network.named_modules() if name.endswith("time_emb_proj")}
    blocks = [name for name, each in network.named_modules() if hasattr(each, "conv2") and "encoder" not in name]
    assert len(projections) == len(blocks) == 10  # 2 down, 1 resampling down, 2 middle, 4 up, 1 resampling up
    for name, layer in projections.items():
        assert layer.in_features == 2 * 4 * SMALL["channels"][0]
        half = layer.in_features // 2
        outputs = layer.out_features // 2
        for part in (layer.weight.grad[:outputs], layer.weight.grad[outputs:]):
            assert part[:, :half].abs().sum() > 0, name
            assert part[:, half:].abs().sum() > 0, name


def test_zero_scale_and_shift_give_the_network_without_embedding():
    network = conditioned()
    plain = DenoisingUNet(2, 1, 1, **SMALL).eval()
    with torch.no_grad():
        for layer in network.modules():
            if hasattr(layer, "time_emb_proj"):
                layer.time_emb_proj.weight.zero_()
                layer.time_emb_proj.bias.zero_()
    shared = {key: value for key, value in network.state_dict().items() if key in plain.state_dict()}
    shared = {key: value for key, value in shared.items() if "time_emb" not in key}
    plain.load_state_dict(shared, strict=False)
    with torch.no_grad():
        for layer in plain.modules():
            if hasattr(layer, "time_emb_proj"):
                layer.time_emb_proj.weight.zero_()
                layer.time_emb_proj.bias.zero_()
    x, t = torch.randn(2, 1, 16, 16), torch.tensor([3, 700])
    torch.testing.assert_close(network(x, t, condition=x), plain(x, t), rtol=1e-5, atol=1e-5)


def test_features_are_those_of_the_forward_pass():
    network = conditioned(patch_size=2)
    x, t = torch.randn(2, 1, 16, 16), torch.tensor([3, 700])
    seen = []
    for block in network.down_blocks:
        block.register_forward_hook(lambda module, args, kwargs, output: seen.append(output[1]), with_kwargs=True)
    network(x, t)
    first, last = seen
    features = network.features(x, t)
    assert torch.equal(features[0], first[0])
    assert torch.equal(features[1], last[0])


def test_wrong_conditions_are_refused():
    network, x = conditioned(), torch.zeros(1, 1, 8, 8)
    with pytest.raises(InputError, match="condition of shape"):
        network(x, condition=torch.zeros(1, 2, 8, 8))
    with pytest.raises(InputError, match="condition of shape"):
        network(x, condition=torch.zeros(1, 1, 8))
    with pytest.raises(InputError, match="not divisible"):
        network(torch.zeros(1, 1, 9, 8))


def test_weights_survive_the_file(tmp_path):
    network = conditioned()
    save_weights(network, tmp_path / "model.pt")
    assert (tmp_path / HASH_FILE).is_file()
    loaded = load_weights(
        ConditionedUNet(2, 1, 1, encoder=encoder(), **SMALL),
        tmp_path / "model.pt",
    )
    x = torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(loaded(x, condition=x), network(x, condition=x), rtol=0.02, atol=0.02)


def test_shipped_size_fits():
    network = ConditionedUNet(
        2, 1, 1, encoder=ImageEncoder(2, 1), patch_size=2, attention_levels=(False, False, True), num_res_blocks=1,
        num_head_channels=128,
    )  # fmt: skip
    assert sum(each.numel() for each in network.parameters()) * 2 < 12 * 2**20  # bytes in half precision


@pytest.mark.parametrize("size", [(16, 24), (12, 9), (8, 16, 11)])
def test_autoencoder_keeps_the_size_and_learns_an_image(size):
    torch.manual_seed(0)
    network = MaskedAutoencoder(encoder(len(size)), hidden_channels=16)
    image = torch.rand(2, 1, *size) * 2 - 1
    assert network(image, torch.tensor([1, 2])).shape == image.shape
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    losses = []
    for _ in range(30):
        loss = (network(image) - image).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    assert all(each.grad is not None for each in network.parameters())  # nothing idle, as several processes want
