import copy
from typing import Any

import pytest
import torch
from monai.data import MetaTensor, decollate_batch, list_data_collate

from common.anomaly import residual
from common.diffusion import NoiseSchedule, case_generators, case_seed, gaussian_noise
from common.diffusion.noise.gaussian import OppositeGenerator
from common.errors import InputError
from common.inferers import (
    ANDiInferer,
    AnomalyInferer,
    AutoDDPMInferer,
    DenoisingAutoencoderInferer,
    EnsembleInferer,
    PartialDiffusionInferer,
    PatchedInferer,
    RestorationInferer,
    SynomalyInferer,
    ThorInferer,
)
from common.networks import Denoiser, DenoisingUNet

SCHEDULE = NoiseSchedule()
FEW: dict[str, tuple[type[AnomalyInferer], dict[str, Any]]] = {
    "ddpm": (PartialDiffusionInferer, {"noise_level": 100, "num_inference_steps": 4}),
    "ddim": (PartialDiffusionInferer, {"noise_level": 100, "num_inference_steps": 4, "sampler": "ddim"}),
    "thor": (ThorInferer, {"num_inference_steps": 5}),
    "anoddpm": (
        PartialDiffusionInferer,
        {"noise_level": 100, "num_inference_steps": 4, "noise": "simplex3d", "anomaly_map": "squared"},
    ),
    "andi": (ANDiInferer, {"num_inference_steps": 5}),
    "synomaly": (SynomalyInferer, {"max_stages": 3, "tolerance": -1.0, "min_component": 4}),
    "autoddpm": (AutoDDPMInferer, {"num_inference_steps": 4, "inpaint_steps": 3, "resample_steps": 2}),
    "pddpm": (PatchedInferer, {"prediction_type": "epsilon", "patch_size": [9, 11]}),
    "pddpm, overlapping": (PatchedInferer, {"prediction_type": "epsilon", "patch_size": [9, 11], "overlap": "average"}),
}


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return DenoisingUNet(
        2, 1, 1, patch_size=2, channels=(8, 16), attention_levels=(False, True), num_res_blocks=1,
        num_head_channels=8, norm_num_groups=8,
    ).eval()  # fmt: skip


def make(name, **kwargs):
    kind, options = FEW[name]
    return kind(schedule=SCHEDULE, progress=False, **{**options, **kwargs})


def images(count=3, size=(17, 22)):
    image = torch.rand(count, 1, *size, generator=torch.Generator().manual_seed(0))
    image[..., :3, :] = 0
    return image


@pytest.mark.parametrize("name", FEW)
def test_maps_are_finite_not_negative_and_zero_outside(network, name):
    image = images()
    out = make(name)(image, network)
    assert out["anomaly_map"].shape == (3, 1, 17, 22)
    assert out["pseudo_healthy"].shape == image.shape
    assert torch.isfinite(out["anomaly_map"]).all()
    assert (out["anomaly_map"] >= 0).all()
    assert (out["anomaly_map"][..., :3, :] == 0).all()
    assert out["anomaly_map"].max() > 0
    assert torch.equal(out["pseudo_healthy"][..., :3, :], image[..., :3, :])
    assert 0 <= out["pseudo_healthy"].min() <= out["pseudo_healthy"].max() <= 1


@pytest.mark.parametrize("name", FEW)
def test_result_depends_neither_on_batch_nor_on_neighbours(network, name):
    image, seeds = images(), [5, 6, 7]
    together = make(name, batch_size=8)(image, network, seeds=seeds)["anomaly_map"]
    alone = make(name, batch_size=1)(image[[2]], network, seeds=[7])["anomaly_map"]
    torch.testing.assert_close(together[[2]], alone, rtol=1e-3, atol=1e-5)
    again = make(name, batch_size=8)(image, network, seeds=seeds)["anomaly_map"]
    assert torch.equal(together, again)
    other = make(name)(image, network, seeds=[8, 9, 10])["anomaly_map"]
    assert not torch.allclose(together, other)


@pytest.mark.parametrize("name", FEW)
def test_volume_equals_its_slices(network, name):
    volume = images(4).movedim(0, -1)[None]  # (1, 1, x, y, 4)
    volume[..., 1] = 0
    inferer = make(name)
    out = inferer(volume, network, seeds=[3])
    assert out["anomaly_map"].shape == volume.shape
    assert (out["anomaly_map"][..., 1] == 0).all()
    assert inferer.slices == 3
    assert inferer.evaluations == 3 * inferer.evaluations_per_slice
    one = make(name)(volume[..., 2], network, seeds=[3])  # its slice has the seed of (case, 0), not (case, 2)
    assert not torch.allclose(one["anomaly_map"], out["anomaly_map"][..., 2])
    restored = make(name)(volume[..., [2]], network, seeds=[3])["anomaly_map"]
    assert restored.shape == (1, 1, 17, 22, 1)


def test_geometry_and_single_output(network):
    affine = torch.diag(torch.tensor([2.0, -2.0, 3.0, 1.0], dtype=torch.float64))
    image = MetaTensor(images(1)[..., None], affine=affine)
    out = make("ddpm")(image, network)
    assert all(isinstance(value, MetaTensor) and torch.equal(value.affine, image.affine) for value in out.values())
    single = make("ddpm", output="anomaly_map")(image, network)
    assert torch.equal(single.as_tensor(), out["anomaly_map"].as_tensor())


def test_every_case_of_a_batch_keeps_its_geometry(network):
    items = []
    for z in (10.0, 20.0):
        affine = torch.eye(4, dtype=torch.float64)
        affine[2, 3] = z
        meta = {"original_channel_dim": float("nan"), "filename_or_obj": f"{z}.nii"}
        items.append({"image": MetaTensor(images(1)[0][..., None], affine=affine, meta=meta)})
    batch = list_data_collate(items)
    results = decollate_batch(make("ddpm")(batch["image"], network))
    assert [float(item["anomaly_map"].affine[2, 3]) for item in results] == [10.0, 20.0]
    assert [item["pseudo_healthy"].meta["filename_or_obj"] for item in results] == ["10.0.nii", "20.0.nii"]
    results[0]["anomaly_map"].meta["filename_or_obj"] = "changed"
    assert results[0]["pseudo_healthy"].meta["filename_or_obj"] == "10.0.nii"


def test_brain_mask_limits_the_map(network):
    mask = torch.zeros(3, 1, 17, 22)
    mask[..., 8:12, 8:12] = 1
    out = make("ddpm")(images(), network, brain_mask=mask)["anomaly_map"]
    assert (out[mask == 0] == 0).all()
    assert (out[mask == 1] > 0).any()


def test_level_zero_returns_nearly_the_input(network):
    image = images()
    out = make("ddpm", noise_level=0, num_inference_steps=1)(image, network)
    assert (out["pseudo_healthy"] - image).abs().max() < 0.05  # the noise of one level


def test_autoddpm_keeps_everything_outside_its_mask(network):
    image = images()
    out = make("autoddpm", mask_threshold=1e9)(image, network)
    torch.testing.assert_close(out["pseudo_healthy"], image)
    assert out["anomaly_map"].max() < 1e-6
    changed = make("autoddpm", mask_percentile=50)(image, network)["pseudo_healthy"]
    assert not torch.allclose(changed, image, atol=1e-3)


def test_autoddpm_draws_the_neighbours_of_its_mask_anew_too(network, monkeypatch):
    image, region = images(1, (16, 24)), torch.ones(1, 1, 16, 24)
    score, expected = torch.zeros_like(region), torch.zeros_like(region, dtype=torch.bool)
    score[..., 8, 8] = 1
    expected[..., 7:10, 7:10] = True
    inferer = make("autoddpm", mask_threshold=0.5)
    monkeypatch.setattr(inferer, "coarse_map", lambda *_: score)
    healthy = inferer(image, network, brain_mask=region)["pseudo_healthy"]
    assert torch.equal((healthy - image).abs() > 1e-5, expected)


def test_thor_harmonisation_pulls_back_to_the_input(network):
    image = images()
    free = make("thor", harmonise_levels=[])(image, network)["pseudo_healthy"]
    held = make("thor")(image, network)["pseudo_healthy"]
    assert (held - image).abs().mean() < (free - image).abs().mean()


def test_seeds_are_stable_across_machines():
    assert case_seed(0, "icbm152") == case_seed(0, "icbm152")
    assert case_seed(0, "a") != case_seed(1, "a") != case_seed(0, "b")
    assert case_seed(0, "icbm152") == 7476888576865981447


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda x: x * 100, "values from"),
        (lambda x: x * float("nan"), "not finite"),
        (lambda x: x[:0], "shape"),
        (lambda x: x[0], "shape"),
    ],
)
def test_bad_input_is_refused(network, change, match):
    with pytest.raises(InputError, match=match):
        make("ddpm")(change(images()), network)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_results_that_are_not_finite_are_refused(value):
    """A mask would mark nothing there, as in a healthy scan."""
    image = MetaTensor(images(1), meta={"filename_or_obj": "scan.nii.gz"})

    def broken(x, timesteps):
        return torch.full_like(x, value)

    with pytest.raises(InputError, match=r"scan\.nii\.gz: has a result that is not finite"):
        make("ddpm", clip=None)(image, broken)


def test_masks_and_seeds_that_do_not_fit_are_refused(network):
    with pytest.raises(InputError, match="brain mask"):
        make("ddpm")(images(), network, brain_mask=torch.ones(3, 1, 4, 4))
    with pytest.raises(InputError, match="seeds"):
        make("ddpm")(images(), network, seeds=[1])


@pytest.mark.parametrize(
    "options",
    [
        {"noise_level": 10, "num_inference_steps": 12},
        {"noise_level": 1000, "num_inference_steps": 5},
        {"spacing": "even"},
        {"anomaly_map": "residuum"},
        {"noise": "pink"},
        {"reverse_noise": "pink"},
        {"sampler": "euler"},
        {"output": "mask"},
    ],
)
def test_bad_options_are_refused_when_made(options):
    with pytest.raises(InputError):
        make("ddpm", **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"harmonise_levels": 30}, "harmonise_levels 30: are no list"),
        ({"map_levels": [-5, 0]}, "map_levels -5: cannot be used"),
        ({"noise_level": 40, "harmonise_levels": [300, 50], "map_levels": [350]}, "there would be no map"),
        ({"region_size": 12}, "region_size 12: is no odd number"),
        ({"smoothing": -1}, "smoothing -1: cannot be used"),
    ],
)
def test_levels_and_sizes_of_thor_are_checked_when_it_is_made(options, words):
    with pytest.raises(InputError, match=words):
        make("thor", **options)


def test_a_map_that_cannot_be_made_is_told_before_the_sampling():
    def no_features(x, timesteps):
        raise AssertionError("it runs")

    with pytest.raises(InputError, match="anomaly map 'feature': needs a network with features"):
        make("ddpm", anomaly_map="feature")(images(), no_features)


def test_the_darkest_of_the_brain_is_inside(network):
    """A cavity that preprocessing has made exactly 0: methods that leave out what is 0 still see it."""
    image, brain = torch.zeros(1, 1, 24, 24), torch.zeros(1, 1, 24, 24)
    brain[..., 2:-2, 2:-2] = 1
    image += 0.5 * brain
    image[..., 8:14, 8:14] = 0
    seen = []

    class Seeing(EnsembleInferer):
        def restore(self, image, *rest):
            seen.append(image)
            return super().restore(image, *rest)

    made = Seeing(schedule=SCHEDULE, progress=False, noise_levels=[200], num_samples=4, normalise="residual")
    found = made(image, network, brain_mask=brain, seeds=[1])
    assert isinstance(found, dict)
    assert (found["pseudo_healthy"][..., 8:14, 8:14] > 0.01).float().mean() > 0.5
    assert found["anomaly_map"][..., 8:14, 8:14].mean() > 0.01
    assert torch.equal(seen[0] > 0, brain > 0)
    torch.testing.assert_close(2 * seen[0] - 1, 2 * image - 1, rtol=0, atol=0)  # the network sees no difference


@pytest.mark.parametrize("kind", [ThorInferer, AutoDDPMInferer])
def test_an_unknown_perceptual_distance_is_refused_at_once(kind):
    with pytest.raises(InputError, match="perceptual 'ssim'"):
        kind(schedule=SCHEDULE, perceptual="ssim")


@pytest.mark.parametrize("kind", [DenoisingAutoencoderInferer, PatchedInferer, RestorationInferer])
def test_networks_that_output_the_image_are_the_default(kind):
    assert kind(schedule=SCHEDULE).prediction_type == "sample"
    assert kind(schedule=SCHEDULE, prediction_type="epsilon").prediction_type == "epsilon"


def test_every_option_of_thor_has_an_effect(network):
    plain = make("thor", output="anomaly_map")(images(), network)
    changes: list[dict[str, Any]] = [{"smoothing": 0.0}, {"region_size": 3}, {"map_levels": []}]
    for options in [*changes, {"harmonise_levels": [50]}]:
        assert not torch.allclose(make("thor", output="anomaly_map", **options)(images(), network), plain), options


def test_thor_takes_the_polarity_of_anomalies(network):
    image = torch.full((1, 1, 16, 16), 0.5)
    image[..., 4:8, 4:8] = 1.0
    maps = {
        name: make("thor", harmonise_levels=[], difference=name, output="anomaly_map")(image, network)
        for name in ("residual", "residual_bright", "residual_dark")
    }
    assert not torch.equal(maps["residual_bright"], maps["residual_dark"])
    assert (maps["residual_bright"] <= maps["residual"] + 1e-6).all()
    with pytest.raises(InputError, match="brightest"):
        ThorInferer(schedule=SCHEDULE, difference="brightest")


@torch.no_grad()
def test_a_mirrored_slice_gives_the_mirrored_map(network):
    network = copy.deepcopy(network)
    for parameter in network.parameters():  # the last layer begins at zero
        torch.nn.init.normal_(parameter, std=0.2, generator=torch.Generator().manual_seed(parameter.numel()))
    image, region = images(size=(16, 24)), torch.ones(3, 1, 16, 24)
    both: Any = DenoisingAutoencoderInferer(schedule=SCHEDULE, prediction_type="sample", progress=False, mirror=True)
    result = both(image, network, brain_mask=region)
    assert both.evaluations == 2 * 3
    flipped = both(image.flip(2), network, brain_mask=region)
    alone: Any = DenoisingAutoencoderInferer(schedule=SCHEDULE, prediction_type="sample", progress=False)
    straight, other = (alone(each, network, brain_mask=region) for each in (image, image.flip(2)))
    assert not torch.allclose(straight["pseudo_healthy"], other["pseudo_healthy"].flip(2), atol=1e-3)
    expected = (straight["pseudo_healthy"] + other["pseudo_healthy"].flip(2)) / 2
    torch.testing.assert_close(result["pseudo_healthy"], expected, atol=1e-5, rtol=0)
    for key in ("anomaly_map", "pseudo_healthy"):
        torch.testing.assert_close(flipped[key].flip(2), result[key], atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("name", FEW)
def test_mirrored_antithetic_runs_do_not_depend_on_the_batch(network, name):
    image, region = images(), torch.ones(3, 1, 17, 22)
    options = {"num_restorations": 2, "antithetic": True, "mirror": True}
    together = make(name, batch_size=64, **options)(image, network, brain_mask=region, seeds=[1, 2, 3])
    alone = make(name, batch_size=1, **options)(image[1:2], network, brain_mask=region[1:2], seeds=[2])
    for key in ("anomaly_map", "pseudo_healthy"):
        torch.testing.assert_close(alone[key], together[key][1:2], atol=1e-4, rtol=0)
    plain = make(name, **options | {"antithetic": False})(image, network, brain_mask=region, seeds=[1, 2, 3])
    assert not torch.allclose(plain["anomaly_map"], together["anomaly_map"], atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(("runs", "opposite"), [(1, 0), (2, 2), (3, 2), (4, 4)])
def test_a_pair_of_runs_sees_the_slice_from_the_same_side(network, runs, opposite):
    """Noise that is opposite in the mirrored slice would cancel nothing."""
    signs: list[bool] = []
    drawn: list[torch.Tensor] = []

    def noise(x, generator):
        signs.extend(isinstance(each, OppositeGenerator) for each in generator)
        drawn.append(gaussian_noise(x, generator))
        return drawn[-1]

    inferer = make("ddpm", num_inference_steps=1, num_restorations=runs, antithetic=True, mirror=True, noise=noise)
    inferer(images(1, (16, 24)), network)
    assert signs == 2 * ([False, True] * runs)[:runs]
    assert drawn[0].abs().unique(dim=0).shape[0] == 2 * runs - opposite


def test_a_batch_counts_every_run_and_the_mirrored_slice(network, monkeypatch):
    inferer = make("ddpm", batch_size=8, num_restorations=2, mirror=True)
    sizes: list[int] = []
    restore = inferer.restore

    def counted(image, *rest):
        sizes.append(len(image))
        return restore(image, *rest)

    monkeypatch.setattr(inferer, "restore", counted)
    inferer(images(5, (16, 24)), network)
    assert sizes == [8, 8, 4]


@torch.no_grad()
def test_several_restorations_are_the_mean_of_runs_with_noise_of_their_own(network):
    image, seeds, single = images(size=(16, 24)), [3, 4, 5], make("ddpm")
    slice_seeds = [case_seed(seed, 0) for seed in seeds]
    runs = []
    for run in range(3):
        own = slice_seeds if run == 0 else [case_seed(seed, run) for seed in slice_seeds]
        denoiser = Denoiser(network, SCHEDULE, clip=single.clip)
        runs.append(single.restore(image, denoiser, case_generators(own), lambda _: None))
    several = make("ddpm", num_restorations=3, batch_size=4)
    result = several(image, network, brain_mask=torch.ones_like(image), seeds=seeds)
    assert several.evaluations == 3 * 3 * single.evaluations_per_slice
    assert (runs[1].pseudo_healthy - runs[0].pseudo_healthy).abs().max() > 1e-3
    expected = torch.stack([run.pseudo_healthy for run in runs]).mean(dim=0)
    torch.testing.assert_close(result["pseudo_healthy"], expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(result["anomaly_map"], residual(image, expected), atol=1e-5, rtol=0)
    with pytest.raises(InputError, match="num_restorations 0"):
        make("ddpm", num_restorations=0)
