from typing import Any

import pytest
import torch

from common.anomaly import gaussian_smooth, mahalanobis, ssim
from common.diffusion import NoiseSchedule
from common.errors import InputError
from common.inferers import ConditionedInferer, MahalanobisInferer
from common.networks import ConditionedUNet, DenoisingUNet, ImageEncoder

SCHEDULE = NoiseSchedule("cosine")
KINDS: dict[str, Any] = {
    "cddpm": (ConditionedInferer, {}),
    "mahalanobis": (MahalanobisInferer, {"num_reconstructions": 4}),
}
SMALL: dict[str, Any] = {
    "channels": (8, 16),
    "attention_levels": (False, True),
    "num_res_blocks": 1,
    "num_head_channels": 8,
    "norm_num_groups": 8,
}


def make_network(dims=2, channels=1, seed=0):
    torch.manual_seed(seed)
    encoder = ImageEncoder(dims, channels, channels=(8, 16), norm_num_groups=8)
    network = ConditionedUNet(dims, channels, channels, encoder=encoder, patch_size=2, **SMALL).eval()
    for parameter in network.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return network


@pytest.fixture(scope="module")
def network():
    return make_network()


def make(name, **kwargs):
    kind, options = KINDS[name]
    return kind(schedule=SCHEDULE, progress=False, **{**options, "noise": "gaussian", **kwargs})


def images(count=3, channels=1, size=(17, 22)):
    image = torch.rand(count, channels, *size, generator=torch.Generator().manual_seed(0))
    image[:, :, :3] = 0
    return image


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(("dims", "channels"), [(2, 1), (2, 3), (3, 1)])
def test_maps_are_finite_not_negative_and_zero_outside(name, dims, channels):
    image = images(2, channels, (17, 22, 13)[:dims])
    inferer = make(name, spatial_dims=dims)
    out = inferer(image, make_network(dims, channels))
    assert out["anomaly_map"].shape == (2, 1, *image.shape[2:])
    assert out["pseudo_healthy"].shape == image.shape
    assert torch.isfinite(out["anomaly_map"]).all()
    assert (out["anomaly_map"] >= 0).all()
    assert (out["anomaly_map"][:, :, :3] == 0).all()
    assert out["anomaly_map"].max() > 0
    assert 0 <= out["pseudo_healthy"].min() <= out["pseudo_healthy"].max() <= 1
    assert inferer.evaluations == 2 * inferer.evaluations_per_slice


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("noise", ["gaussian", "simplex"])
def test_result_depends_neither_on_batches_nor_on_neighbours(network, name, noise):
    image, seeds = images(), [5, 6, 7]
    together = make(name, noise=noise)(image, network, seeds=seeds)["anomaly_map"]
    alone = make(name, noise=noise, batch_size=1)(image[[2]], network, seeds=[7])["anomaly_map"]
    torch.testing.assert_close(together[[2]], alone, rtol=1e-3, atol=1e-5)
    other = make(name, noise=noise)(image, network, seeds=[8, 9, 10])["anomaly_map"]
    assert not torch.allclose(together, other)


def test_antithetic_runs_do_not_repeat_the_pairs_of_a_run(network):
    options = {"antithetic": True, "num_reconstructions": 4, "batch_size": 1}
    single, several = (
        make("mahalanobis", num_restorations=count, **options)(images(1), network)["anomaly_map"] for count in (1, 2)
    )
    assert (single - several).abs().max() > 1e-3


@pytest.mark.parametrize("name", KINDS)
def test_volume_is_its_slices(network, name):
    volume = images(4).movedim(0, -1)[None]  # (1, 1, x, y, 4)
    volume[..., 1] = 0
    inferer = make(name)
    out = inferer(volume, network, seeds=[3])
    assert out["anomaly_map"].shape == volume.shape
    assert (out["anomaly_map"][..., 1] == 0).all()
    assert inferer.evaluations == 3 * inferer.evaluations_per_slice


def test_image_is_encoded_once_and_steers_the_estimate(network):
    calls = []
    hook = network.encoder.register_forward_hook(lambda *_: calls.append(1))
    first = make("cddpm")(images(), network)["pseudo_healthy"]
    hook.remove()
    assert len(calls) == 1
    blind = make_network()
    torch.nn.init.zeros_(blind.class_embedding.layers[0].weight)  # hears no code
    assert not torch.allclose(make("cddpm")(images(), blind)["pseudo_healthy"], first, atol=1e-4)


def test_map_is_distance_times_dissimilarity(network, monkeypatch):
    image = images(1, size=(24, 32))
    image[..., :7, :] = 0
    image[..., 12:15, 8:11] = 0  # as dark as the background
    reconstructions = (image + 0.2 * torch.randn(4, *image.shape)).clamp(0, 1)
    inferer = make("mahalanobis", smoothing=0.7, ridge=0.1)
    monkeypatch.setattr(inferer, "reconstruct", lambda *args: reconstructions)
    region = torch.ones_like(image)
    region[..., :7, :] = 0
    out = inferer(image, network, brain_mask=region)
    healthy = reconstructions.mean(dim=0)
    torch.testing.assert_close(out["pseudo_healthy"][..., 7:, :], healthy[..., 7:, :])
    expected = gaussian_smooth(mahalanobis(image, reconstructions, region, ridge=0.1), 0.7) * ssim(image, healthy)
    torch.testing.assert_close(out["anomaly_map"], expected * region)
    assert (out["anomaly_map"][..., 12:15, 8:11] > 0).all()


def test_network_without_codes_is_refused():
    with pytest.raises(InputError, match="encode"):
        make("cddpm")(images(), DenoisingUNet(2, 1, 1, **SMALL))


@pytest.mark.parametrize(
    ("name", "options", "match"),
    [
        ("cddpm", {"noise_levels": []}, "no list of levels"),
        ("cddpm", {"noise_levels": 499}, "noise_levels 499: are no list of levels"),
        ("cddpm", {"noise_levels": [499, 1000]}, "level 1000"),
        ("cddpm", {"noise_levels": [499, -1]}, "level -1: cannot be used"),
        ("cddpm", {"noise": "pink"}, "noise 'pink'"),
        ("mahalanobis", {"num_reconstructions": 1}, "at least 2"),
        ("mahalanobis", {"ridge": 0.0}, "ridge"),
        ("mahalanobis", {"noise_level": -2}, "level -2"),
        ("mahalanobis", {"anomaly_map": "residuum"}, "anomaly map"),
    ],
)
def test_bad_options_are_refused_when_made(name, options, match):
    with pytest.raises(InputError, match=match):
        make(name, **options)
