import math
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose
from PIL import Image

from common.data import Preprocessing, SliceTraining, load_cases
from common.data.brain_mask import MNI_AFFINE, MNI_SHAPE, estimate_brain_mask, mni_brain_mask
from common.data.transforms import AntiAliasd, FullScaled, PicturesToVolumesd, RobustIntensityd, SelectLeveld
from common.errors import InputError

AFFINE = np.array([[-2.0, 0, 0, 60], [0, 2.0, 0, -70], [0, 0, 4.0, -20], [0, 0, 0, 1]])


def head(shape=(60, 72, 24), skull=True):
    """An ellipsoid brain, dark bone around it, bright scalp around that, dark background."""
    grid = np.meshgrid(*(np.linspace(-1, 1, size) for size in shape[:2]), indexing="ij")
    radius = np.sqrt(grid[0] ** 2 / 0.9 + grid[1] ** 2)
    rng = np.random.default_rng(0)
    plane = np.where(radius < 0.6, 100 + 20 * np.sin(9 * grid[0]) * np.cos(9 * grid[1]), 0)
    if skull:
        plane = np.where((radius > 0.75) & (radius < 0.82), 120, plane)
    volume = np.repeat(plane[..., None], shape[2], axis=2) + (rng.random(shape) * 4 if skull else 0)
    return volume.astype(np.float32), np.repeat((radius < 0.6)[..., None], shape[2], axis=2)


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


@pytest.mark.parametrize("skull", [True, False])
def test_estimated_mask_is_the_brain(skull):
    image, brain = head(skull=skull)
    mask = estimate_brain_mask(image, (2.0, 2.0, 4.0))
    assert dice(mask, brain) > 0.93


def test_an_extracted_brain_in_two_halves_is_found_whole():
    image, brain = head(skull=False)
    image[26:34] *= 0.05  # a wide fissure, fluid-filled
    mask = estimate_brain_mask(image, (2.0, 2.0, 4.0))
    assert dice(mask, brain) > 0.93
    assert mask[16:44, 36].all()


def test_nothing_looks_like_a_brain_in_a_constant():
    assert not estimate_brain_mask(np.full((20, 20, 2), 3.0), (1.0, 1.0, 1.0)).any()


def test_template_mask_sits_where_the_brain_is():
    mask = mni_brain_mask(MNI_SHAPE, MNI_AFFINE)
    half = mni_brain_mask((99, 117, 95), MNI_AFFINE @ np.diag([2.0, 2, 2, 1]))
    assert 1.5e6 < mask.sum() < 2.5e6  # mm³
    assert half.sum() * 8 == pytest.approx(mask.sum(), rel=0.03)
    assert mask[98, 134, 95]
    assert not mask[:3].any()


def volume_case(tmp_path, code, depth=24):
    image, brain = head((60, 72, depth))
    nifti = nib.Nifti1Image(image, AFFINE)
    nifti.set_sform(AFFINE, code)
    nifti.set_qform(AFFINE, code)
    nib.save(nifti, tmp_path / "scan.nii.gz")
    nib.save(nib.Nifti1Image(brain.astype(np.uint8), AFFINE), tmp_path / "scan_brain_mask.nii.gz")
    return load_cases(tmp_path)[0]


def z_of(image):
    affine = np.asarray(image.affine)
    return affine[2, 3] + affine[2, 2] * np.arange(image.shape[-1])


@pytest.mark.parametrize(
    ("code", "space", "level"), [(4, "auto", 0), (1, "mni", 0), (1, "auto", 72 - 80), (4, "native", 72 - 80)]
)
def test_slices_at_the_level(tmp_path, code, space, level):
    """z runs from -20 to 72 mm: in MNI space 17 to 29 is meant as it stands, else counted from the top of the brain."""
    case = Preprocessing(slice_range_mm=(17, 29), space=space)(volume_case(tmp_path, code))
    z = z_of(case["image"])
    assert z.min() >= 17 + level
    assert z.max() <= 29 + level
    assert len(z) == 3


def test_the_level_is_counted_from_the_top_of_the_brain():
    slices = torch.arange(40.0).expand(1, 8, 8, 40)
    image = MetaTensor(slices, affine=torch.diag(torch.tensor([1.0, 1.0, 4.0, 1.0])))
    brain = MetaTensor((slices < 30).float())  # empty slices above it
    kept = SelectLeveld(["image"], (17, 29), "native")({"image": image, "brain_mask": brain})["image"]
    assert kept[0, 0, 0].tolist() == [14, 15, 16]  # 4 mm each, the highest one of the brain at 80 mm


def test_a_thin_native_volume_is_kept_whole_with_a_warning(tmp_path):
    with pytest.warns(UserWarning, match=r"scan\.nii\.gz.*all slices are used"):
        case = Preprocessing(slice_range_mm=(17, 29))(volume_case(tmp_path, 1, depth=5))
    assert case["image"].shape[-1] == 5


def test_an_mni_volume_without_the_level_is_refused(tmp_path):
    with pytest.raises(RuntimeError) as caught:  # MONAI's, around ours
        Preprocessing(slice_range_mm=(17, 29))(volume_case(tmp_path, 4, depth=5))
    assert isinstance(caught.value.__cause__, InputError)
    assert "scan.nii.gz" in str(caught.value.__cause__)
    assert "none in [17.0, 29.0]" in str(caught.value.__cause__)


def test_a_brain_mask_that_does_not_reach_the_level_is_refused(tmp_path):
    case = volume_case(tmp_path, 4)
    mask = np.asarray(nib.load(case["brain_mask"]).dataobj).copy()
    mask[..., 5:] = 0
    nib.save(nib.Nifti1Image(mask, AFFINE), case["brain_mask"])
    with pytest.raises(RuntimeError) as caught:
        Preprocessing(slice_range_mm=(17, 29))(case)
    assert isinstance(caught.value.__cause__, InputError)
    assert "scan.nii.gz: has no brain in its slices at [17.0, 29.0] mm" in str(caught.value.__cause__)


@pytest.mark.parametrize("window", [(99, 1), (5, 5), (-1, 99), (1, 101)])
def test_percentiles_that_are_no_range_are_refused(window):
    with pytest.raises(InputError, match="are no range from 0 to 100"):
        Preprocessing(percentiles=window)


@pytest.mark.parametrize("options", [{"range_mm": (29, 17)}, {"range_mm": (1, 2), "space": "talairach"}])
def test_bad_levels_are_refused(options):
    with pytest.raises(InputError):
        SelectLeveld(["image"], **options)


def test_intensity_is_robust_inside_the_brain_and_zero_outside(tmp_path):
    case = Preprocessing()(volume_case(tmp_path, 1))
    image, brain = case["image"].numpy()[0], case["brain_mask"].numpy()[0] > 0
    assert image.shape[:2] == (80, 96)
    assert np.percentile(image[brain], [1, 99]) == pytest.approx([0, 0.8], abs=0.02)
    assert image.min() == 0
    assert image.max() <= 1
    assert not image[~brain].any()


def test_head_room_is_kept_for_bright_lesions():
    values = torch.linspace(0, 1, 10000).reshape(1, 100, 100, 1)
    values[0, 0, 0, 0] = 50
    case: Any = {"image": MetaTensor(values), "brain_mask": MetaTensor(torch.ones(1, 100, 100, 1))}
    image = RobustIntensityd("image")(case)["image"]
    assert image[0, 0, 0, 0] == 1
    assert image.flatten()[5000].item() == pytest.approx(0.4, abs=0.02)


def test_a_constant_brain_is_refused():
    ones = MetaTensor(torch.ones(1, 8, 8, 1))
    case: Any = {"image": ones, "brain_mask": ones.clone(), "case": "a"}
    with pytest.raises(InputError, match="constant inside the brain"):
        RobustIntensityd("image")(case)


@pytest.mark.parametrize(("largest", "scale"), [(1.0, 1.0), (255.0, 255.0)])
def test_comparable_intensities_are_taken_as_they_are(largest, scale):
    image = MetaTensor(torch.linspace(0, largest, 64).reshape(1, 8, 8, 1))
    brain = MetaTensor((torch.arange(64) % 2).float().reshape(1, 8, 8, 1))
    scaled = FullScaled("image")({"image": image, "brain_mask": brain})["image"]
    torch.testing.assert_close(scaled.as_tensor(), image.as_tensor() / scale * brain.as_tensor())


def test_intensities_of_no_known_scale_are_refused():
    ones = MetaTensor(torch.ones(1, 8, 8, 1))
    with pytest.raises(InputError, match="values from 1 to 300"):
        FullScaled("image")({"image": torch.cat([ones, 300 * ones]), "brain_mask": ones, "case": "a"})


def test_large_brains_are_padded_not_cropped(tmp_path):
    image, brain = head((200, 230, 2))
    affine = np.diag([1.0, 1, 1, 1])
    nib.save(nib.Nifti1Image(image, affine), tmp_path / "big.nii.gz")
    nib.save(nib.Nifti1Image(brain.astype(np.uint8), affine), tmp_path / "big_brain_mask.nii.gz")
    case = Preprocessing(pixdim=None)(load_cases(tmp_path)[0])
    assert all(size % 8 == 0 for size in case["image"].shape[1:3])
    assert int(case["brain_mask"].sum()) == int(brain.sum())


@pytest.mark.parametrize(
    ("values", "marked"),
    [([0, 1], [0, 1]), ([0, 0.4, 0.6], [0, 0, 1]), ([0, 90, 200, 255], [0, 0, 1, 1]), ([0, 1, 2, 4], [0, 1, 1, 1])],
    ids=["binary", "resampled", "picture", "classes"],
)
def test_masks_of_any_kind_are_understood(tmp_path, values, marked):
    image, brain = head((200, 230, 2))
    mask = np.zeros(image.shape, np.float32)
    for place, value in enumerate(values):
        mask[80 + 10 * place : 90 + 10 * place, 110:120] = value
    for name, array in (("a", image), ("a_brain_mask", brain.astype(np.uint8)), ("a_mask", mask)):
        nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / f"{name}.nii.gz")
    found = Preprocessing(pixdim=None)(load_cases(tmp_path)[0])["mask"]
    assert sorted(found.unique().tolist()) == [0, 1]
    assert int(found.sum()) == 100 * 2 * sum(marked)


def test_thinning_out_does_not_alias():
    stripes = torch.zeros(1, 64, 64, 1)
    stripes[:, ::2] = 1  # finer than what 2 mm can hold
    image = MetaTensor(stripes, affine=torch.eye(4))
    smooth = AntiAliasd("image", (2.0, 2.0, -1.0))({"image": image})["image"]
    inner = smooth[:, 8:-8, 8:-8]
    assert inner.mean().item() == pytest.approx(0.5, abs=0.01)
    assert inner.std() < 0.5 * stripes.std()
    point = torch.zeros(1, 64, 64, 1)
    point[0, 32, 32] = 1
    blurred = AntiAliasd("image", (2.0, 1.0, -1.0))({"image": MetaTensor(point, affine=torch.eye(4))})["image"]
    profile = blurred.as_tensor()[0, :, :, 0].sum(dim=1)  # full width at half maximum: √(2² - 1²)
    width = 2.355 * float((profile * (torch.arange(64) - 32) ** 2).sum().sqrt())
    assert width == pytest.approx(math.sqrt(3), rel=0.02)
    kept = AntiAliasd("image", (1.0, 0.5, -1.0))({"image": image})["image"]
    assert torch.equal(kept.as_tensor(), stripes)


def test_pictures_of_the_template_grid_are_placed_in_mni_space():
    picture = MetaTensor(torch.zeros(1, *MNI_SHAPE[:2]))
    volume = PicturesToVolumesd("image", slice_mm=23)({"image": picture})["image"]
    assert volume.shape == (1, *MNI_SHAPE[:2], 1)
    corners = np.asarray(volume.affine) @ np.array([[0, 0, 0, 1], [196, 232, 0, 1]]).T
    assert corners[:3].T.tolist() == [[-98, 98, 23], [98, -134, 23]]
    other = PicturesToVolumesd("image")({"image": MetaTensor(torch.zeros(1, 64, 64))})["image"]
    assert np.asarray(other.affine).tolist() == np.diag([1, -1, 1, 1]).tolist()


def test_pictures_and_volumes_meet_in_one_orientation(tmp_path):
    """A slice written as a picture (rows from front to back) and in a volume must look the same to the network."""
    image, _ = head((60, 72, 1), skull=False)
    image[35:45, 50:60] = 30  # to the right, in front
    affine = np.diag([1.0, 1, 1, 1])
    nib.save(nib.Nifti1Image(image, affine), tmp_path / "volume.nii.gz")
    picture = np.clip(np.rot90(image[..., 0]), 0, 255).astype(np.uint8)
    (tmp_path / "pictures").mkdir()
    Image.fromarray(picture).save(tmp_path / "pictures" / "picture.png")
    prepare = Preprocessing(pixdim=None, brain_mask="none")
    volume = prepare(load_cases(tmp_path / "volume.nii.gz")[0])["image"]
    flat = prepare(load_cases(tmp_path / "pictures")[0])["image"]
    assert volume.shape == flat.shape
    assert (volume - flat).abs().max() < 0.02
    assert (volume - flat.flip(2)).abs().max() > 0.3


def test_the_network_sees_right_back_and_up(tmp_path):
    """The order that the shipped weights were trained in, whatever the order of the file."""
    directions = np.diag(np.asarray(Preprocessing()(volume_case(tmp_path, 1))["image"].affine)[:3, :3])
    assert np.sign(directions).tolist() == [1, -1, 1]


def test_training_slices_vary_and_validation_slices_do_not(tmp_path):
    image, _ = head((60, 72, 1), skull=False)
    Image.fromarray(np.rot90(image[..., 0]).astype(np.uint8)).save(tmp_path / "a.png")
    case = load_cases(tmp_path)[0]
    preprocessing = Preprocessing(pixdim=None, fixed_size=True)
    train, validate = SliceTraining(preprocessing), SliceTraining(preprocessing, augment=False)
    train.set_random_state(0)
    first, second = train(case)["image"], train(case)["image"]
    assert first.shape == (1, 80, 96)
    assert not torch.equal(first, second)
    assert 0 <= first.min() <= first.max() <= 1
    assert torch.equal(torch.as_tensor(validate(case)["image"]), torch.as_tensor(validate(case)["image"]))


def test_a_volume_trains_slice_by_slice(tmp_path):
    case = volume_case(tmp_path, 4)
    preprocessing = Preprocessing(fixed_size=True, slice_range_mm=(10, 40))
    volume = preprocessing(case)["image"].as_tensor()
    volume = volume * torch.linspace(0.2, 1, volume.shape[-1])  # slices that can be told apart
    steps = SliceTraining(preprocessing, flip_prob=0, rotate_degrees=0, scale=0, translate=0, gamma=(0.99, 1.01))
    steps.set_random_state(0)
    after = Compose(steps.transforms[len(preprocessing.transforms) :])
    drawn = [after({"image": MetaTensor(volume), "case": "a"})["image"] for _ in range(20)]
    assert all(image.shape == (1, 80, 96) for image in drawn)
    assert len({round(float(image.max()), 2) for image in drawn}) > 3
    middle = SliceTraining(preprocessing, augment=False)(case)["image"]
    assert middle.shape == (1, 80, 96)
    assert torch.equal(middle, SliceTraining(preprocessing, augment=False)(case)["image"])


def test_truth_moves_with_the_image_and_labels_the_slice():
    image = torch.linspace(0.3, 0.6, 24)[None, :, None, None].repeat(1, 1, 32, 5)
    mask = torch.zeros_like(image)
    mask[:, 4:10, 6:20, 2] = 1  # in the middle slice alone
    image = image + 0.4 * mask
    case = {"image": MetaTensor(image), "mask": MetaTensor(mask), "label": 1, "case": "a"}
    masked, labelled = (
        SliceTraining(Compose([]), truth="mask", gamma=(0.999, 1.001)),
        SliceTraining(Compose([]), truth="label"),
    )
    masked.set_random_state(0)
    labelled.set_random_state(0)
    drawn = [masked(dict(case)) for _ in range(30)]
    seen = [each for each in drawn if each["mask"].any()]
    assert 2 <= len(seen) < 30
    for each in seen:
        assert set(each["mask"].unique().tolist()) == {0, 1}
        inside, outside = (each["image"][each["mask"] == flag] for flag in (1, 0))
        assert inside.median() > outside.max() - 0.05
    labels = [labelled(dict(case)) for _ in range(30)]
    assert {each["label"] for each in labels} == {0, 1}
    assert all("mask" not in each for each in labels)
    alone = {key: value for key, value in case.items() if key != "mask"}
    assert labelled(alone)["label"] == 1
    assert SliceTraining(Compose([]), truth="label", augment=False)(dict(case))["label"] == 1


def test_none_as_a_word_is_none_and_other_words_are_refused(tmp_path):
    case = volume_case(tmp_path, 1)
    image = Preprocessing(slice_range_mm="none", percentiles="none")(case)["image"]
    assert image.shape[-1] == 24
    assert image.max() > 0.9 * 120 / 255
    for option in ("slice_range_mm", "percentiles"):
        wrong: list[dict[str, Any]] = [{option: "all"}, {option: [1]}]
        for each in wrong:
            with pytest.raises(InputError, match=f"{option} .* is not a pair of numbers .*--{option}"):
                Preprocessing(**each)


def test_a_twin_is_changed_as_its_case_is():
    image = torch.rand(1, 24, 32, 1, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros_like(image)
    mask[:, 10:16, 12:20] = 1
    lesion = (image + 0.3 * mask).clamp(0, 1)
    case = {"image": MetaTensor(lesion), "twin": MetaTensor(image), "mask": MetaTensor(mask), "label": 1, "case": "a"}
    steps = SliceTraining(Compose([]), truth="mask", bias_field_prob=1.0, blur_prob=1.0)
    steps.set_random_state(0)
    drawn = [steps(dict(case)) for _ in range(5)]
    for each in drawn:
        far = torch.nn.functional.max_pool2d(each["mask"], 9, 1, 4) == 0  # of the blur's reach
        torch.testing.assert_close(each["image"][far], each["twin"][far], atol=0.01, rtol=0)
        assert (each["image"] - each["twin"])[each["mask"] > 0].mean() > 0.1
    assert not torch.equal(drawn[0]["twin"], drawn[1]["twin"])
    assert "twin" not in SliceTraining(Compose([]))(dict(case))
