"""Methods that know labels or masks: guidance moves towards healthy, fusion keeps the rest, masks agree or do not."""

from typing import Any

import pytest
import torch
from torch import nn

from common.diffusion import NoiseSchedule, case_generators, case_seed
from common.errors import InputError
from common.inferers import (
    ClassifierFreeInferer,
    ClassifierGuidedInferer,
    FusionInferer,
    SegmentationEnsembleInferer,
)
from common.networks import Denoiser
from tests.exact import toy_network

SCHEDULE = NoiseSchedule()
IMAGE = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 0.6 + 0.2


def network(x: torch.Tensor, timesteps: torch.Tensor, class_labels: torch.Tensor | None = None) -> torch.Tensor:
    """The toy network; the healthy class adds a little noise, which makes images darker."""
    healthy = 0.0 if class_labels is None else 0.1 * (class_labels == 0).float().reshape(-1, *(1,) * (x.ndim - 1))
    return toy_network(x, timesteps) + healthy


class Darkness(nn.Module):
    """Healthy is what is dark in the left half."""

    def forward(self, x: torch.Tensor, timesteps: torch.Tensor | None = None) -> torch.Tensor:
        left = x[:, :, :8].flatten(1).mean(dim=1)
        return torch.stack([-4 * left, 4 * left], dim=1)


class Same(nn.Module):
    """An autoencoder whose code is the image."""

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        return x

    decode = encode


def guided(**options: Any) -> dict[str, torch.Tensor]:
    options = {"noise_level": 200, "num_inference_steps": 10, "guidance_scale": 20, **options}
    made = ClassifierGuidedInferer(schedule=SCHEDULE, classifier=Darkness(), progress=False, **options)
    found = made(IMAGE, network)
    assert isinstance(found, dict)
    return found


def test_guided_image_is_healthier_where_the_classifier_looks() -> None:
    found, plain = guided(), guided(guidance_scale=0)
    change = found["pseudo_healthy"] - plain["pseudo_healthy"]
    assert (change[:, :, :8] < 0).all()
    assert change[:, :, 8:].abs().max() < 0.1 * change[:, :, :8].abs().min()
    assert found["anomaly_map"][:, :, :8].mean() > 2 * found["anomaly_map"][:, :, 8:].mean()


def test_scale_0_returns_the_input_within_a_bound() -> None:
    """20 steps: within 0.02 of the range; with fixed points within 1e-3."""
    assert guided(guidance_scale=0, num_inference_steps=20)["anomaly_map"].max() < 0.02
    assert guided(guidance_scale=0, num_inference_steps=20, fixed_point_steps=4)["anomaly_map"].max() < 1e-3


@pytest.mark.parametrize("run", [lambda **options: guided(**options), lambda **options: free(clip=None, **options)])
def test_the_second_order_sampler_loses_less_on_the_way(run: Any) -> None:
    options = {"guidance_scale": 0, "spacing": "quadratic", "num_inference_steps": 8}
    assert run(sampler="dpm++", **options)["anomaly_map"].max() < 0.3 * run(**options)["anomaly_map"].max()
    with pytest.raises(InputError, match="fixed_point_steps 1"):
        run(sampler="dpm++", fixed_point_steps=1)


def test_another_class_on_the_way_up_moves_the_image_without_a_gradient() -> None:
    """The healthy class of the toy network is darker, so what was encoded as diseased comes back darker."""
    same, moved = guided(guidance_scale=0), guided(guidance_scale=0, inversion_class="diseased")
    assert (same["pseudo_healthy"] - moved["pseudo_healthy"]).min() > 0.005
    plain, conditional = free(clip=None), free(clip=None, inversion_class="healthy", guidance_scale=1)
    assert conditional["anomaly_map"].max() < 0.05 < plain["anomaly_map"].max()
    for run in (guided, free):
        with pytest.raises(InputError, match="class 'ill'"):
            run(inversion_class="ill")


def test_no_gradient_above_the_level_that_the_classifier_knows() -> None:
    plain, guiding = guided(guidance_scale=0)["pseudo_healthy"], guided()["pseudo_healthy"]
    torch.testing.assert_close(guided(guidance_level=0)["pseudo_healthy"], plain, atol=1e-3, rtol=0)
    assert torch.equal(guided(guidance_level=200)["pseudo_healthy"], guiding)
    half = guided(guidance_level=100)["pseudo_healthy"]
    assert plain[:, :, :8].mean() > half[:, :, :8].mean() > guiding[:, :, :8].mean()


def test_other_tasks_guide_too() -> None:
    class Brightness(nn.Module):
        def forward(self, x: torch.Tensor, timesteps: torch.Tensor | None = None) -> torch.Tensor:
            return x.flatten(1).mean(dim=1, keepdim=True) + 2

    class Lesion(nn.Module):
        def forward(self, x: torch.Tensor, timesteps: torch.Tensor | None = None) -> torch.Tensor:
            return torch.cat([-x, x], dim=1)

    options: dict[str, Any] = {"noise_level": 200, "num_inference_steps": 10, "progress": False}
    plain = guided(guidance_scale=0)["pseudo_healthy"].mean()
    judges: list[tuple[Any, nn.Module]] = [("value", Brightness()), ("segmentation", Lesion())]
    for task, judge in judges:
        made = ClassifierGuidedInferer(
            schedule=SCHEDULE,
            classifier=judge,
            task=task,
            guidance_scale=100,
            **options,  # type: ignore[arg-type]
        )
        found = made(IMAGE, network)
        assert isinstance(found, dict)
        assert found["pseudo_healthy"].mean() < plain - 0.01
    with pytest.raises(InputError, match="task 'mood'"):
        ClassifierGuidedInferer(schedule=SCHEDULE, classifier=Darkness(), task="mood")  # type: ignore[arg-type]


def test_the_judge_is_frozen() -> None:
    judge = nn.Sequential(nn.Flatten(), nn.Linear(256, 2))
    ClassifierGuidedInferer(schedule=SCHEDULE, classifier=judge)
    assert not any(parameter.requires_grad for parameter in judge.parameters())


def free(**options: Any) -> dict[str, torch.Tensor]:
    options = {"noise_level": 199, "num_inference_steps": 10, **options}
    made = ClassifierFreeInferer(schedule=SCHEDULE, progress=False, **options)
    found = made(IMAGE, network)
    assert isinstance(found, dict)
    return found


def test_classifier_free_guidance_goes_to_the_class_and_past_it() -> None:
    plain, one, three = (free(guidance_scale=scale, clip=None)["pseudo_healthy"].mean() for scale in (0, 1, 3))
    assert three < one < plain
    assert free(guidance_scale=0, clip=None, fixed_point_steps=4)["anomaly_map"].max() < 1e-3


def test_a_network_with_a_null_class_is_asked_for_both_classes_at_once() -> None:
    calls: list[int] = []

    class Classes(nn.Module):
        null_class = 2

        def forward(self, x: torch.Tensor, timesteps: torch.Tensor, class_labels: torch.Tensor | None = None) -> Any:
            calls.append(len(x))
            return network(x, timesteps, class_labels)

    options: dict[str, Any] = {"noise_level": 199, "num_inference_steps": 10, "schedule": SCHEDULE, "progress": False}
    found = ClassifierFreeInferer(**options)(IMAGE, Classes())
    assert isinstance(found, dict)
    assert calls == [2] * 10 + [4] * 10
    torch.testing.assert_close(found["anomaly_map"], free()["anomaly_map"], atol=1e-5, rtol=1e-5)


def test_classifier_free_levels_are_the_respaced_ones() -> None:
    made = ClassifierFreeInferer(schedule=SCHEDULE)
    assert made.timesteps == [*range(740, -1, -10), -1]
    assert made.evaluations_per_slice == 150


def fused(**options: Any) -> FusionInferer:
    options = {
        "noise_level": 200,
        "num_inference_steps": 6,
        "saliency_penalty": 0,
        "saliency_step_size": 0.1,
        **options,
    }
    made: Any = FusionInferer
    return made(schedule=SCHEDULE, classifier=Darkness(), autoencoder=Same(), progress=False, **options)


def test_fusion_changes_only_what_is_salient() -> None:
    made = fused(saliency_quantile=0.5, saliency_width=1)
    found = made(IMAGE, network)
    assert isinstance(found, dict)
    assert made.saliency(IMAGE)[:, :, :8].min() > 0.5
    assert not made.saliency(IMAGE)[:, :, 8:].any()
    assert (found["anomaly_map"][:, :, :8] > 0).float().mean() > 0.9
    assert not found["anomaly_map"][:, :, 8:].any()


def test_fusion_draws_the_darkest_of_the_brain_anew() -> None:
    image, brain = IMAGE.clone(), torch.ones_like(IMAGE)
    image[:, :, 2:6, 2:6] = 0
    found = fused(saliency_quantile=0.1, saliency_width=5)(image, network, brain_mask=brain)
    assert isinstance(found, dict)
    assert (found["anomaly_map"][:, :, 2:6, 2:6] > 0).any(dim=1).float().mean() > 0.4


@pytest.mark.parametrize("made", [ClassifierFreeInferer, ClassifierGuidedInferer])
def test_a_scale_that_is_no_number_is_refused(made: Any) -> None:
    options = {"classifier": Darkness()} if made is ClassifierGuidedInferer else {}
    with pytest.raises(InputError, match="guidance_scale 'abc': is no number"):
        made(schedule=SCHEDULE, guidance_scale="abc", **options)


def test_fusion_refuses_an_even_width() -> None:
    with pytest.raises(InputError, match="saliency_width 4: is no odd number"):
        fused(saliency_width=4)


def test_fusion_may_follow_a_chain_of_second_order() -> None:
    lost = []
    for sampler in ("ddim", "dpm++"):
        found = fused(sampler=sampler, spacing="quadratic", saliency_quantile=0.5, saliency_width=1)(IMAGE, network)
        assert isinstance(found, dict)
        lost.append((found["pseudo_healthy"] - IMAGE)[:, :, 8:].abs().max())
    assert lost[1] < 0.5 * lost[0]


def test_what_all_runs_of_a_fusion_share_is_computed_once() -> None:
    sizes: list[int] = []

    class Counted(FusionInferer):
        def saliency(self, image: torch.Tensor) -> torch.Tensor:
            sizes.append(len(image))
            return super().saliency(image)

    options: dict[str, Any] = {"schedule": SCHEDULE, "classifier": Darkness(), "autoencoder": Same(), "progress": False}
    options |= {"noise_level": 200, "num_inference_steps": 6, "saliency_penalty": 0, "saliency_step_size": 0.1}
    options |= {"saliency_quantile": 0.5}
    made = Counted(num_restorations=3, **options)
    mean = made(IMAGE, network, seeds=[3, 4])
    assert isinstance(mean, dict)
    assert sizes == [2]
    assert made.evaluations == 2 * (6 + 3 * 2 * 6)
    denoiser = Denoiser(network, SCHEDULE, clip=None)
    runs = []
    for run in range(3):  # the straightforward form: every run by itself
        slices = [case_seed(seed, 0) for seed in (3, 4)]
        seeds = [seed if run == 0 else case_seed(seed, run) for seed in slices]
        runs.append(made.restore(IMAGE, denoiser, case_generators(seeds), lambda _: None).pseudo_healthy)
    inside = IMAGE > 0
    expected = torch.where(inside, torch.stack(runs).mean(dim=0), IMAGE)
    torch.testing.assert_close(mean["pseudo_healthy"], expected, atol=1e-5, rtol=1e-4)
    assert (runs[0] - runs[1]).abs().max() > 0.01


def test_fusion_does_not_depend_on_the_batch() -> None:
    made = fused()
    together = made(IMAGE, network, seeds=[3, 4])
    alone = made(IMAGE[1:], network, seeds=[4])
    assert isinstance(together, dict)
    assert isinstance(alone, dict)
    torch.testing.assert_close(together["anomaly_map"][1:], alone["anomaly_map"], atol=1e-5, rtol=0)


def segmenter(x: torch.Tensor, timesteps: torch.Tensor, image: torch.Tensor | None = None) -> torch.Tensor:
    """Says for sure that bright is anomalous, and nothing in the top rows, where the mask stays what the noise is."""
    assert image is not None
    mask = (image > 0.2).float()
    mask[..., :4] = (x[..., :4] > 0).float()
    return mask


def ensemble(**options: Any) -> SegmentationEnsembleInferer:
    options = {"num_inference_steps": 3, "prediction_type": "sample", "num_samples": 5, **options}
    return SegmentationEnsembleInferer(schedule=SCHEDULE, progress=False, **options)


def test_segmentations_agree_where_the_image_says_it_all() -> None:
    found = ensemble()(IMAGE, segmenter)
    assert isinstance(found, dict)
    assert torch.equal(found["anomaly_map"][..., 4:], (2 * IMAGE - 1 > 0.2).float()[..., 4:])
    assert not found["uncertainty"][..., 4:].any()
    assert found["uncertainty"][..., :4].mean() > 0.1
    assert found["uncertainty"].max() <= 0.25 + 1e-6
    assert torch.equal(found["pseudo_healthy"], IMAGE)


def test_variance_is_that_of_all_masks_of_both_sides() -> None:
    def one_sided(x: torch.Tensor, timesteps: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        """1 for slices that are bright on the left."""
        left = (image[..., :8, :].mean(dim=(1, 2, 3)) > image[..., 8:, :].mean(dim=(1, 2, 3))).float()
        return left.reshape(-1, 1, 1, 1).expand_as(x)

    ramp = torch.linspace(0.9, 0.1, 16)[:, None].expand(2, 1, 16, 16)
    found = ensemble(mirror=True)(ramp, one_sided)
    assert isinstance(found, dict)
    torch.testing.assert_close(found["anomaly_map"], torch.full_like(ramp, 0.5))
    torch.testing.assert_close(found["uncertainty"], torch.full_like(ramp, 0.25))


def test_antithetic_runs_draw_their_masks_from_opposite_noise() -> None:
    starts: list[torch.Tensor] = []

    def still(x: torch.Tensor, timesteps: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        starts.append(x)
        return torch.zeros_like(x)

    ensemble(num_samples=3, num_inference_steps=1, num_restorations=2, antithetic=True)(IMAGE[:1], still)
    first, second = starts[0].chunk(2)
    assert torch.equal(first, -second)
    assert first.unique(dim=0).shape[0] == 3


def test_segmentations_of_volumes_have_uncertainty_too() -> None:
    volume = torch.stack([IMAGE, torch.zeros_like(IMAGE), IMAGE], dim=-1)
    found = ensemble()(volume, segmenter)
    assert isinstance(found, dict)
    assert found["uncertainty"].shape == (2, 1, 16, 16, 3)
    assert not found["uncertainty"][..., 1].any()
    assert found["uncertainty"][..., 0].any()


def test_samples_are_counted_and_none_is_refused() -> None:
    made = ensemble(num_samples=4)
    made(IMAGE, segmenter)
    assert made.evaluations == 2 * 4 * 3
    with pytest.raises(InputError, match="num_samples 0"):
        ensemble(num_samples=0)
