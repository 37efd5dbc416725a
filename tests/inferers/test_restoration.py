import pytest
import torch

from common.diffusion import NoiseSchedule, to_image_range, to_model_range
from common.errors import InputError
from common.inferers import RestorationInferer
from common.networks import Denoiser
from common.samplers import cold_sample

SCHEDULE = NoiseSchedule("linear", 100, beta_start=1e-3, beta_end=0.2)


def make(**options):
    return RestorationInferer(**{"schedule": SCHEDULE, "prediction_type": "sample", "progress": False, **options})


def fading(x, timesteps):
    """Restores the more, the more severe the level."""
    return x * (1 - timesteps.reshape(-1, *(1,) * (x.ndim - 1)) / 200)


def around(x, timesteps):
    """Estimates on both sides of the image."""
    return x + 0.004 * (timesteps.reshape(-1, *(1,) * (x.ndim - 1)) - 60)


def image(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 0.8 + 0.1


@pytest.mark.parametrize("shape", [(3, 1, 8, 12), (2, 2, 4, 6, 8)], ids=["2d", "3d"])
@pytest.mark.parametrize("restoration", ["mean", "maps"])
def test_mean_of_the_levels(shape, restoration):
    """Of the estimates or of their maps, which differ where estimates lie on both sides of the image."""
    x = image(*shape)
    inferer = make(spatial_dims=len(shape) - 2, batch_size=2, restoration=restoration)
    found = inferer(x, around)
    assert inferer.timesteps == [99, 74, 49, 24, -1]
    levels = torch.stack([to_image_range(around(to_model_range(x), torch.tensor(t))) for t in inferer.timesteps[:-1]])
    torch.testing.assert_close(found["pseudo_healthy"], levels.mean(dim=0))
    maps = (x - levels).abs().mean(dim=2, keepdim=True).mean(dim=0)
    mean = (x - levels.mean(dim=0)).abs().mean(dim=1, keepdim=True)
    torch.testing.assert_close(found["anomaly_map"], maps if restoration == "maps" else mean)
    assert (maps - mean).min() > 1e-3
    assert inferer.evaluations == shape[0] * inferer.evaluations_per_slice == shape[0] * 4


def test_steps_compare_with_what_cold_diffusion_arrives_at():
    x = image(3, 1, 8, 12)
    inferer = make(restoration="steps", num_inference_steps=5)
    found = inferer(x, fading)
    denoiser = Denoiser(fading, SCHEDULE, "sample")
    restored = to_image_range(cold_sample(denoiser, to_model_range(x), [99, 79, 59, 39, 19, -1]))
    torch.testing.assert_close(found["pseudo_healthy"], restored)
    torch.testing.assert_close(found["anomaly_map"], (x - restored).abs())
    assert inferer.evaluations == 3 * inferer.evaluations_per_slice == 15
    assert not torch.allclose(restored, make()(x, fading)["pseudo_healthy"], atol=1e-2)


@pytest.mark.parametrize("restoration", ["mean", "maps", "steps"])
def test_nothing_is_random_and_nothing_depends_on_neighbours(restoration):
    x = image(4, 1, 8, 12)
    together = make(restoration=restoration)(x, fading, seeds=[1, 2, 3, 4])["anomaly_map"]
    alone = make(restoration=restoration, batch_size=1)(x[[2]], fading, seeds=[9])["anomaly_map"]
    torch.testing.assert_close(alone, together[[2]])


@pytest.mark.parametrize("restoration", ["mean", "maps", "steps"])
def test_a_healthy_image_that_is_left_alone_has_an_empty_map(restoration):
    x = image(2, 1, 8, 12)
    found = make(restoration=restoration)(x, lambda y, timesteps: y)
    assert found["anomaly_map"].max() < 1e-6
    torch.testing.assert_close(found["pseudo_healthy"], x)


@pytest.mark.parametrize(
    "options", [{"restoration": "median"}, {"num_inference_steps": 101}, {"spacing": "even"}], ids=str
)
def test_bad_options_are_refused(options):
    with pytest.raises(InputError):
        make(**options)
