"""Batches with a truth: twins stand behind their cases, noised alike, and classes are dropped at the rate asked for."""

from typing import Any

import pytest
import torch

from common.diffusion import NoiseSchedule, to_model_range
from common.networks import NoisyClassifier
from common.training import ClassBatch, ClassifierBatch, ReconstructionBatch, SegmentationBatch

SCHEDULE = NoiseSchedule()


def batch(twin=True, cases=3):
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(cases, 1, 8, 8, generator=generator)
    mask = torch.zeros_like(image)
    mask[..., 2:4, 3:6] = 1
    data: dict[str, Any] = {"image": image + 0.2 * mask, "mask": mask, "label": torch.ones(cases, dtype=torch.long)}
    data["case"] = [f"case {index}" for index in range(cases)]
    return {**data, "twin": image} if twin else data


def prepare(made, data):
    state, target, _, keywords = made(data, "cpu")
    return state, target, keywords


@pytest.mark.parametrize("validation", [False, True])
def test_twins_differ_by_the_lesion_alone(validation):
    made = ClassBatch(SCHEDULE, levels=(0, 500))
    data = batch()
    state, target, keywords = prepare(made.for_validation() if validation else made, data)
    assert keywords["class_labels"].tolist() == [1, 1, 1, 0, 0, 0]
    t = keywords["timesteps"]
    assert torch.equal(t[:3], t[3:])
    assert torch.equal(target[:3], target[3:])
    signal, _ = SCHEDULE.signal_and_noise(t[:3], 4)
    torch.testing.assert_close(state[:3] - state[3:], signal * 2 * (data["image"] - data["twin"]))


def test_without_twins_the_labels_are_the_cases():
    data = {**batch(twin=False), "label": torch.tensor([0, 1, 0])}
    _, _, keywords = prepare(ClassBatch(SCHEDULE), data)
    assert keywords["class_labels"].tolist() == [0, 1, 0]


def test_classes_are_dropped_at_the_rate_asked_for():
    made = ClassBatch(SCHEDULE, class_dropout=0.35, null_class=5)
    data = {key: value[:1] for key, value in batch(twin=False).items()}
    torch.manual_seed(0)
    labels = torch.cat([prepare(made, data)[2]["class_labels"] for _ in range(1000)])
    assert set(labels.tolist()) == {1, 5}
    assert (labels == 5).float().mean() == pytest.approx(0.35, abs=0.05)


def test_classifiers_get_the_class_one_hot():
    data = batch()
    state, target, _ = prepare(ClassifierBatch(SCHEDULE), data)
    assert target.tolist() == [[0, 1]] * 3 + [[1, 0]] * 3
    clean, _, keywords = prepare(ClassifierBatch(SCHEDULE, noised=False, levels=(0, 0)), data)
    assert torch.equal(clean, to_model_range(torch.cat([data["image"], data["twin"]])))
    assert not torch.equal(state, clean)
    assert not keywords["timesteps"].any()


def test_pictures_show_where_a_classifier_looks():
    small: dict[str, Any] = {
        "channels": (16, 32),
        "attention_levels": (False, False),
        "num_res_blocks": 1,
        "num_head_channels": 16,
    }
    network = NoisyClassifier(2, 1, **small).eval()
    with torch.no_grad():
        state, looks = ClassifierBatch(SCHEDULE).show(network, batch(), 100)
    assert state.shape == looks.shape == (6, 1, 8, 8)
    assert looks.amin() >= -1
    assert looks.flatten(1).amax(dim=1).tolist() == pytest.approx([1] * 6)
    assert not looks.requires_grad


def test_segmentation_noises_the_mask_and_nothing_else():
    data = batch()
    made = SegmentationBatch(SCHEDULE, prediction_type="sample")
    state, target, keywords = prepare(made, data)
    assert torch.equal(keywords["image"], to_model_range(torch.cat([data["image"], data["twin"]])))
    assert torch.equal(target, torch.cat([data["mask"], torch.zeros_like(data["mask"])]))
    assert (keywords["region"] == 1).all()
    signal, _ = SCHEDULE.signal_and_noise(keywords["timesteps"][:3], 4)
    torch.testing.assert_close(state[:3] - state[3:], signal * data["mask"])


def test_a_weight_counts_around_the_lesion_and_in_the_same_place_of_the_twin():
    data = batch(cases=1)
    data["mask"] = torch.zeros(1, 1, 8, 8)
    data["mask"][..., 0, 0] = 1
    made = SegmentationBatch(SCHEDULE, prediction_type="sample", lesion_weight=9)
    _, target, keywords = prepare(made, data)
    expected = torch.ones(8, 8)
    expected[:5, :5] = 3
    assert torch.equal(keywords["region"][:, 0], expected.expand(2, 8, 8))
    assert float(target.max()) == 3


def test_autoencoders_get_the_image_twice():
    state, target, _ = prepare(ReconstructionBatch(SCHEDULE), batch())
    assert torch.equal(state, target)
    assert state.shape == (6, 1, 8, 8)
