"""What ANDi and Synomaly do beyond what every method does."""

import math

import pytest
import torch

from common.diffusion import NoiseSchedule, StaticClip, case_generators, gaussian_noise, to_model_range
from common.errors import InputError
from common.inferers import ANDiInferer, SynomalyInferer, suspicious_regions
from common.networks import Denoiser
from common.samplers import Step, multistage, partial_diffusion, reverse_deviation
from tests.exact import constant_noise, gaussian_denoiser

SCHEDULE = NoiseSchedule()
SHAPES = pytest.mark.parametrize("shape", [(3, 1, 12, 10), (2, 2, 6, 8, 4)], ids=["2d", "3d"])


def batch(shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


@SHAPES
@pytest.mark.parametrize("max_batch", [1, 7, 1000])
def test_deviation_does_not_depend_on_how_levels_are_batched(shape, max_batch):
    x, levels = batch(shape), [180, 90, 120]
    calls: list[Step] = []
    denoiser = gaussian_denoiser(0.3, 0.5, SCHEDULE)
    denoiser.max_batch = max_batch
    seeds = list(range(shape[0]))
    found = reverse_deviation(denoiser, x, levels, generator=case_generators(seeds), callback=calls.append)
    assert [(step.i, step.t) for step in calls] == [(0, 180), (1, 90), (2, 120)]
    assert denoiser.evaluations == 3 * shape[0]
    alone = reverse_deviation(denoiser, x[[1]], levels, generator=case_generators([1]))
    torch.testing.assert_close(found.map[[1]], alone.map)
    # The same in the open: each level by its two reverse means.
    logs, estimates = [], []
    generators = case_generators(seeds)
    for t in levels:
        noise = gaussian_noise(x, generators)
        a, b = SCHEDULE.alpha_bar(t), SCHEDULE.alpha_bar(t - 1)
        state = math.sqrt(a) * x + math.sqrt(1 - a) * noise
        prediction = denoiser(state, t)
        beta = 1 - a / b
        means = [(state - beta / math.sqrt(1 - a) * e) / math.sqrt(1 - beta) for e in (prediction.eps, noise)]
        logs.append((means[0].double() - means[1].double()).square().log())
        estimates.append(prediction.x0)
    expected = torch.stack(logs).mean(dim=0).exp()
    assert ((found.map.double() / expected).log().abs() < 0.02).float().mean() > 0.99  # rounding, where it is tiny
    torch.testing.assert_close(found.x0, torch.stack(estimates).mean(dim=0))


def test_deviation_of_a_perfect_guess_is_small_but_not_zero():
    """A network that knows the image: ε̂ = ε but for rounding."""
    x = batch((1, 1, 8, 8))
    denoiser = Denoiser(lambda state, timesteps: x.expand_as(state), SCHEDULE, "sample", clip=None)
    found = reverse_deviation(denoiser, x, [75, 199], generator=case_generators([0]))
    assert (found.map > 0).all()
    assert found.map.max() < 1e-14
    torch.testing.assert_close(found.x0, x)


def andi(**options):
    return ANDiInferer(schedule=SCHEDULE, progress=False, **options)


def synomaly(**options):
    return SynomalyInferer(schedule=SCHEDULE, progress=False, **options)


def test_andi_levels():
    assert andi().timesteps == list(range(199, 74, -1))
    assert andi(num_inference_steps=3).timesteps == [199, 137, 75]
    assert andi(num_inference_steps=25).evaluations_per_slice == 25


def test_andi_joins_channels_by_maximum_or_mean():
    image = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    maps = {}
    for channels in ("max", "mean"):
        maps[channels] = andi(channels=channels, num_inference_steps=4)(image, lambda x, timesteps: x * 0.1, seeds=[1])
    largest, mean = (maps[name]["anomaly_map"] for name in ("max", "mean"))
    assert (largest >= mean).all()
    assert (largest <= 3 * mean + 1e-12).all()
    assert not torch.allclose(largest, mean, rtol=0.01, atol=0)


@pytest.mark.parametrize(
    "options",
    [
        {"lower_level": 200},
        {"upper_level": 1001},
        {"num_inference_steps": 126},
        {"num_inference_steps": 0},
        {"channels": "sum"},
    ],
)
def test_andi_that_cannot_be_is_refused(options):
    with pytest.raises(InputError):
        andi(**options)


def test_no_level_is_refused():
    with pytest.raises(InputError, match="at least one level"):
        reverse_deviation(gaussian_denoiser(0.3, 0.5, SCHEDULE), batch((1, 1, 4, 4)), [])


class Healer:
    """A network that darkens what is bright; keeps how many cases it saw in each call."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def __call__(self, x, timesteps):
        self.sizes.append(x.shape[0])
        return torch.where(x > 0.2, x - 0.4, x)


@SHAPES
def test_a_case_that_has_ended_is_left_alone(shape):
    """All but one find nothing, twice, and end; the one goes on, with the result that it has alone."""
    x = batch(shape)
    x[1:] = -0.5

    def difference(a, b):
        return suspicious_regions((a - b).abs().mean(dim=1, keepdim=True), 0.15, 1)

    def stages(x, generators):
        healer = Healer()
        denoiser = Denoiser(healer, SCHEDULE, "sample", StaticClip())
        y = multistage(
            denoiser, x, 5, difference=difference, max_stages=4, smallest_region=1, generator=generators,
            noise=lambda x, generator=None: gaussian_noise(x, generator),
        )  # fmt: skip
        return y, healer.sizes, denoiser.evaluations

    together, sizes, evaluations = stages(x, case_generators(range(shape[0])))
    alone, alone_sizes, _ = stages(x[:1], case_generators([0]))
    torch.testing.assert_close(together[:1], alone)
    assert sizes[0] == shape[0]
    assert len(sizes) == len(alone_sizes) > 2
    assert evaluations == sum(sizes) < shape[0] * len(sizes)
    torch.testing.assert_close(together[1:], x[1:], rtol=0, atol=0.15)


@pytest.mark.parametrize(("tolerance", "stages"), [(0.0, 1), (-1.0, 3)])
def test_stages_stop_by_tolerance(tolerance, stages):
    x = batch((1, 1, 8, 8))
    seen: list[Step] = []
    multistage(
        Denoiser(Healer(), SCHEDULE, "sample"), x, 5, difference=lambda a, b: torch.ones_like(a), tolerance=tolerance,
        max_stages=3, noise=constant_noise(torch.zeros(1, 1, 8, 8)), callback=seen.append,
    )  # fmt: skip
    assert [step.i for step in seen] == list(range(stages))


@pytest.mark.parametrize(("smallest_region", "stages"), [(500, 1), (1, 2)])
def test_a_change_is_compared_to_no_less_than_the_smallest_region(smallest_region, stages):
    """Of 64 voxels 10 are suspicious in every stage."""
    found = (torch.arange(64) < 10).float().reshape(1, 1, 8, 8)
    denoiser = Denoiser(Healer(), SCHEDULE, "sample")
    multistage(
        denoiser, batch((1, 1, 8, 8)), 5, difference=lambda a, b: found, tolerance=0.2, smallest_region=smallest_region
    )
    assert denoiser.evaluations == stages


def test_small_components_and_corners_are_not_suspicious():
    difference = torch.zeros(2, 1, 10, 10)
    difference[0, 0, :3, :3] = 0.5
    difference[0, 0, 3, 3] = 0.9  # touches only by its corner
    difference[1, 0, 5, :8] = 0.5
    difference[1, 0, 7, :8] = 0.1
    kept = suspicious_regions(difference, 0.2, 8)
    assert int((kept > 0).sum()) == 9 + 8
    assert (kept[kept > 0] == 0.5).all()


@pytest.mark.parametrize(
    "options", [{"max_stages": 0}, {"blur": 4}, {"blur": 0}, {"noise_level": 1000}, {"noise_level": -1}]
)
def test_synomaly_that_cannot_be_is_refused(options):
    with pytest.raises(InputError):
        synomaly(**options)


def test_synomaly_ends_early_and_its_map_is_not_thresholded():
    """A network that darkens everything by a little less than what is suspicious."""
    image = torch.full((2, 1, 16, 16), 0.8)
    image[1, :, 4:12, 4:12] = 0.4
    calls: list[int] = []

    def network(x, timesteps):
        calls.append(x.shape[0])
        return to_model_range(image[: x.shape[0]]) - 0.1

    inferer = synomaly(prediction_type="sample")
    out = inferer(image, network, seeds=[1, 2])
    assert calls == [2, 2]  # all pixels, none, none
    assert inferer.evaluations == 4
    torch.testing.assert_close(out["pseudo_healthy"], image - 0.05)
    torch.testing.assert_close(out["anomaly_map"], torch.full((2, 1, 16, 16), 0.05))


def test_the_way_back_may_have_noise_of_its_own():
    x, drawn = batch((1, 1, 8, 8)), []

    def recording(name):
        def noise(x, generator=None):
            drawn.append(name)
            return torch.zeros_like(x)

        return noise

    denoiser = gaussian_denoiser(0.3, 0.5, SCHEDULE)
    partial_diffusion(denoiser, x, [50, 20, -1], noise=recording("up"), reverse_noise=recording("down"))
    assert drawn == ["up", "down"]
    drawn.clear()
    partial_diffusion(denoiser, x, [50, 20, -1], noise=recording("up"))
    assert drawn == ["up", "up"]


def test_synomaly_takes_the_maps_of_others():
    image = torch.rand(2, 1, 12, 10, generator=torch.Generator().manual_seed(1))
    results = {name: synomaly(anomaly_map=name)(image, Healer(), seeds=[1, 2]) for name in ("blurred", "residual")}
    healthy = results["residual"]["pseudo_healthy"]
    torch.testing.assert_close(results["blurred"]["pseudo_healthy"], healthy)
    torch.testing.assert_close(results["residual"]["anomaly_map"], (image - healthy).abs())
    assert not torch.allclose(results["blurred"]["anomaly_map"], results["residual"]["anomaly_map"], atol=1e-3)
    with pytest.raises(InputError, match="anomaly map 'guess'"):
        synomaly(anomaly_map="guess")
