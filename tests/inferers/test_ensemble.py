"""Many estimates at once: the mean of what single steps give, any level, any map."""

from typing import Any

import pytest
import torch

from common.anomaly import HealthyStatistics, mahalanobis
from common.diffusion import NoiseSchedule, gaussian_noise, to_image_range, to_model_range
from common.diffusion.noise.gaussian import OppositeGenerator
from common.errors import InputError
from common.inferers import EnsembleInferer
from common.networks import Denoiser
from common.samplers import single_step
from tests.exact import toy_network

SCHEDULE = NoiseSchedule()
IMAGE = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 0.6 + 0.2


def run(**options: Any) -> dict[str, torch.Tensor]:
    found = EnsembleInferer(schedule=SCHEDULE, progress=False, **options)(IMAGE, toy_network, seeds=[1, 2])
    assert isinstance(found, dict)
    return found


def test_one_state_is_a_single_step() -> None:
    seen: list[torch.Tensor] = []

    def noise(x: torch.Tensor, generator: Any = None) -> torch.Tensor:
        seen.append(x)
        return torch.ones_like(x)

    found = run(noise_levels=[300], num_samples=1, normalise="residual", noise=noise)
    step = single_step(Denoiser(toy_network, SCHEDULE), to_model_range(IMAGE), 300, noise=noise)
    torch.testing.assert_close(found["pseudo_healthy"], to_image_range(step.x0))
    torch.testing.assert_close(found["anomaly_map"], (IMAGE - found["pseudo_healthy"]).abs())
    assert not found["uncertainty"].any()


def test_more_samples_vary_less_from_run_to_run() -> None:
    def variation(count: int) -> float:
        made = EnsembleInferer(schedule=SCHEDULE, progress=False, noise_levels=[200], num_samples=count)
        results = [made(IMAGE, toy_network, seeds=[seed, seed + 50]) for seed in range(8)]
        return float(torch.stack([each["pseudo_healthy"] for each in results]).std(dim=0).mean())  # type: ignore[index]

    assert variation(16) < 0.4 * variation(1)


def test_counts_its_evaluations() -> None:
    made = EnsembleInferer(schedule=SCHEDULE, progress=False, noise_levels=[100, 300], num_samples=3)
    made(IMAGE, toy_network)
    assert made.evaluations == 2 * 6
    assert made.evaluations_per_slice == 6


def test_antithetic_runs_do_not_repeat_the_pairs_of_a_run() -> None:
    single, several = (run(antithetic=True, num_samples=2, num_restorations=count)["anomaly_map"] for count in (1, 2))
    assert (single - several).abs().max() > 1e-3


def test_runs_are_opposite_where_a_run_has_no_pairs() -> None:
    sources: list[bool] = []

    def noise(x: torch.Tensor, generator: Any = None) -> torch.Tensor:
        sources.extend(isinstance(each, OppositeGenerator) for each in generator)
        return gaussian_noise(x, generator)

    run(antithetic=True, num_restorations=2, noise_levels=[100, 300], num_samples=1, noise=noise)
    assert sources == [False, True] * 4


def test_variance_counts_what_runs_differ_among_each_other() -> None:
    options: dict[str, Any] = {"noise_levels": [300], "num_samples": 1}
    assert not run(**options)["uncertainty"].any()
    assert run(**options, num_restorations=4)["uncertainty"].mean() > 1e-3


def test_uncertainty_is_zero_outside_the_brain() -> None:
    brain = torch.zeros_like(IMAGE[:, :1])
    brain[..., :8] = 1
    made = EnsembleInferer(schedule=SCHEDULE, progress=False, noise_levels=[200])
    found: Any = made(IMAGE, toy_network, brain_mask=brain)
    assert not found["uncertainty"][brain == 0].any()
    assert found["uncertainty"][brain == 1].any()


def test_an_empty_image_has_all_results() -> None:
    made = EnsembleInferer(schedule=SCHEDULE, progress=False)
    assert set(made(torch.zeros_like(IMAGE), toy_network)) == set(run())


def test_the_covariance_is_an_option() -> None:
    found = run(normalise="mahalanobis", noise_levels=[200], num_samples=5)
    seeds_differ = run(normalise="mahalanobis", noise_levels=[200], num_samples=6)
    assert found["anomaly_map"].min() >= 0
    assert not torch.equal(found["anomaly_map"], seeds_differ["anomaly_map"])
    blank = mahalanobis(IMAGE, IMAGE.expand(5, *IMAGE.shape), torch.ones_like(IMAGE), ridge=0.01)
    assert not blank.any()


@pytest.mark.parametrize(
    ("options", "changes"),
    [
        ({}, [{"polarity": "bright"}, {"tv_weight": 1.0}, {"offset": 0.5}, {"noise_levels": [200]}]),
        ({"normalise": "residual"}, [{"anomaly_map": "squared"}]),
        ({"normalise": "mahalanobis"}, [{"ridge": 1.0}]),
    ],
    ids=["spread", "residual", "mahalanobis"],
)
def test_options_reach_the_map(options: dict[str, Any], changes: list[dict[str, Any]]) -> None:
    plain = run(**options)["anomaly_map"]
    for change in changes:
        assert not torch.allclose(run(**options, **change)["anomaly_map"], plain), change


def test_statistics_are_read_from_their_file(tmp_path: Any) -> None:
    plain = run()["anomaly_map"]
    file = tmp_path / "statistics.json"
    HealthyStatistics([0.0] * 16, [10.0] * 16, "HEALTHY", 1, {}, "0").save(file)
    assert (run(statistics=str(file))["anomaly_map"] < 0.1 * plain + 1e-6).all()
    torch.testing.assert_close(run(statistics="none")["anomaly_map"], plain)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"noise_levels": []}, "no list of levels"),
        ({"num_samples": 0}, "num_samples 0: cannot be used"),
        ({"normalise": "wish"}, "normalise 'wish'"),
        ({"noise_levels": [1000]}, "level 1000"),
        ({"noise_levels": [-1]}, "level -1: cannot be used"),
        ({"offset": 0}, "offset 0"),
        ({"polarity": "grey"}, "polarity 'grey'"),
        ({"normalise": "mahalanobis", "noise_levels": [1], "num_samples": 1}, "1 reconstruction"),
        ({"statistics": "nowhere.json"}, "no such file of statistics"),
    ],
)
def test_what_cannot_be_used_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        EnsembleInferer(schedule=SCHEDULE, **options)
