from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from torch import Tensor

from common.diffusion import NoiseSchedule
from common.errors import InputError
from common.evaluation.robustness.attack import Attack, describe, equal_noise, path_of
from common.evaluation.robustness.perturbations import PERTURBATIONS, Perturb, Perturbation
from common.inferers import AnomalyInferer, Restored

SHAPE = (1, 32, 28, 2)
BY_NAME = {each.name: each for each in PERTURBATIONS}


def case() -> dict[Hashable, Any]:
    generator = torch.Generator().manual_seed(0)
    region, mask = torch.zeros(SHAPE), torch.zeros(SHAPE)
    region[:, 4:-4, 4:-4] = 1
    mask[:, 10:14, 10:14] = 1
    image = (0.3 + 0.4 * torch.rand(SHAPE, generator=generator)) * region
    arrays = {"image": image, "brain_mask": region, "mask": mask, "region": region}
    return {"case": "a", **{key: MetaTensor(value) for key, value in arrays.items()}}


@pytest.mark.parametrize("perturbation", PERTURBATIONS, ids=lambda each: each.name)
def test_a_perturbed_case_is_still_a_case(perturbation: Perturbation) -> None:
    for strength in perturbation.strengths:
        given = case()
        changed = Perturb(perturbation, strength)(given)
        image = changed["image"]
        assert isinstance(image, MetaTensor)
        assert image.shape == SHAPE
        assert 0 <= float(image.min()) <= float(image.max()) <= 1
        assert not image[changed["brain_mask"] == 0].any()
        assert not torch.equal(image, given["image"])
        torch.testing.assert_close(given["image"], case()["image"])  # the case itself stays
        torch.testing.assert_close(Perturb(perturbation, strength)(case())["image"], image)  # and it repeats
        if perturbation.name != "rotation":
            torch.testing.assert_close(changed["region"], given["region"])


@pytest.mark.parametrize("name", ["noise", "blur", "gamma", "bias field"])
def test_stronger_is_farther(name: str) -> None:
    strengths = [each for each in BY_NAME[name].strengths if each > 1 or name != "gamma"]
    far = [float((Perturb(BY_NAME[name], each)(case())["image"] - case()["image"]).norm()) for each in strengths]
    assert far == sorted(far)


def test_noise_depends_on_the_case_and_the_seed() -> None:
    images = [
        Perturb(BY_NAME["noise"], 0.05, seed)({**case(), "case": name})["image"]
        for name, seed in (("a", 0), ("b", 0), ("a", 1))
    ]
    assert not torch.equal(images[0], images[1])
    assert not torch.equal(images[0], images[2])
    inside = case()["brain_mask"] > 0
    assert float((images[0] - case()["image"])[inside].std()) == pytest.approx(0.05, rel=0.1)


def test_rotation_takes_the_masks_along() -> None:
    changed = Perturb(BY_NAME["rotation"], 20)(case())
    for key in ("mask", "region", "brain_mask"):
        assert set(np.unique(changed[key])) <= {0, 1}
        assert not torch.equal(changed[key], case()[key])
    torch.testing.assert_close(changed["region"], changed["brain_mask"])


def test_a_small_mask_cuts_the_image_and_not_the_score() -> None:
    changed = Perturb(BY_NAME["mask too small"], 2)(case())
    assert changed["brain_mask"].sum() < changed["region"].sum() == case()["region"].sum()


class Toy(AnomalyInferer):
    """The map is the distance from grey, or a coarse step of it, through which no gradient passes."""

    def __init__(self, smooth: bool = True, levels: int = 1) -> None:
        super().__init__(schedule=NoiseSchedule())
        self.smooth, self.timesteps = smooth, list(range(levels))

    def restore(self, image: Tensor, denoiser: Any, generator: Any, callback: Any) -> Restored:
        distance = (image - 0.5).abs()
        return Restored(distance if self.smooth else (distance * 200).round() / 200, image)


def loss(image: Tensor) -> float:
    given = case()
    distance = (torch.as_tensor(image) - 0.5).abs()
    lesion, region = given["mask"] > 0, given["region"] > 0
    return float(distance[lesion].mean() - distance[region & ~lesion].mean())


@pytest.mark.parametrize(("smooth", "factor"), [(True, 0.9), (False, 0.2)])
def test_an_attack_is_small_and_worse_than_noise(smooth: bool, factor: float) -> None:
    given, epsilon = case(), 0.02
    attack = Attack(Toy(smooth), torch.nn.Identity())
    changed = attack(given["image"], given["brain_mask"], given["mask"], "a", epsilon)
    image, region = given["image"].as_tensor(), given["region"].as_tensor() > 0
    assert float((changed - image).abs().max()) <= epsilon + 1e-6
    torch.testing.assert_close(changed[~region], image[~region])
    noise = equal_noise(given["image"], changed, given["brain_mask"], 0)
    assert float((noise - image).norm()) == pytest.approx(float((changed - image).norm()), rel=1e-3)
    torch.testing.assert_close(noise[~region], image[~region])
    # At most ε lower in lesions and ε higher elsewhere.
    assert loss(changed) < loss(image) - factor * 2 * epsilon * 0.9
    assert abs(loss(noise) - loss(image)) < 0.5 * abs(loss(changed) - loss(image))
    assert attack.has_gradient == smooth
    assert ("gradient descent" in describe(attack, "")) == smooth


def test_long_methods_are_attacked_through_one_step() -> None:
    long, short = Toy(levels=50), Toy()
    assert path_of(long, short)[0] is short
    assert path_of(short, long)[0] is short
    assert path_of(long, None)[0] is long
    with pytest.raises(InputError, match="needs an AnomalyInferer"):
        path_of(object(), None)
