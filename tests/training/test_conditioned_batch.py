import pytest
import torch
from monai.transforms import Compose

from common.data import SliceTraining
from common.diffusion import NoiseSchedule, to_model_range
from common.errors import InputError
from common.training import ConditionedBatch, DenoisingInferer, MaskedBatch

SCHEDULE = NoiseSchedule("cosine")


def data(count=3, size=(20, 24)):
    image = torch.rand(count, 1, *size, generator=torch.Generator().manual_seed(0))
    return {"image": image, "case": [f"case{index}" for index in range(count)]}


def test_condition_is_the_clean_image():
    batch = ConditionedBatch(SCHEDULE, "sample")
    state, target, _, keywords = batch(data())
    x0 = to_model_range(data()["image"])
    assert torch.equal(keywords["condition"], x0)
    assert torch.equal(target, x0)
    signal, sigma = SCHEDULE.signal_and_noise(keywords["timesteps"], 4)
    noise = (state - signal * x0) / sigma
    assert noise.std().item() == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("size", [(20, 24), (17, 30), (8, 20, 12)])
@pytest.mark.parametrize("ratio", [0.3, 0.65, 1.0])
def test_masked_share_and_what_is_seen(size, ratio):
    batch = MaskedBatch(SCHEDULE, patch_size=4, mask_ratio=ratio).for_validation()
    state, target, _, keywords = batch(data(size=size))
    region, x0 = keywords["region"], to_model_range(data(size=size)["image"])
    assert region.shape == (3, 1, *size)
    first_pixels = region  # one a patch
    for axis, length in enumerate(size, start=2):
        first_pixels = first_pixels.index_select(axis, torch.arange(0, length, 4))
    patches = first_pixels[0].numel()
    assert first_pixels.flatten(1).sum(dim=1).tolist() == [round(ratio * patches)] * 3
    whole = first_pixels
    for axis, length in enumerate(size, start=2):
        whole = whole.repeat_interleave(4, dim=axis).narrow(axis, 0, length)
    assert torch.equal(whole, region)
    assert torch.equal(state, torch.where(region > 0, 0.0, x0))
    assert torch.equal(target, x0 * region)
    if ratio < 1:
        assert not torch.equal(region[0], region[1])


def test_masks_depend_on_the_case_alone_in_validation():
    batch = MaskedBatch(SCHEDULE).for_validation(3)
    whole = batch(data())
    one = {"image": data()["image"][[2]], "case": ["case2"]}
    assert torch.equal(batch(one)[0], whole[0][[2]])
    assert not torch.equal(MaskedBatch(SCHEDULE).for_validation(4)(data())[0], whole[0])
    assert not torch.equal(MaskedBatch(SCHEDULE)(data())[0], MaskedBatch(SCHEDULE)(data())[0])


def test_only_masked_patches_count():
    state, target, _, keywords = MaskedBatch(SCHEDULE)(data())
    output = DenoisingInferer(amp=False)(state, lambda x, timesteps: x + 5, **keywords)
    seen = keywords["region"] == 0
    assert torch.equal(output[seen], target[seen])
    assert (output[~seen] - target[~seen]).abs().min() > 3


@pytest.mark.parametrize("ratio", [0, 1.1])
def test_impossible_ratios_are_refused(ratio):
    with pytest.raises(InputError, match="mask_ratio"):
        MaskedBatch(SCHEDULE, mask_ratio=ratio)


def augmented(seed, **options):
    quiet = {"flip_prob": 0, "rotate_degrees": 0, "scale": 0, "translate": 0, "gamma": (1.0, 1.0)}
    training = SliceTraining(Compose([]), **{**quiet, **options})
    training.set_random_state(seed)
    x, y = torch.meshgrid(torch.arange(32.0), torch.arange(40.0), indexing="ij")
    image = ((x - 16) ** 2 / 150 + (y - 20) ** 2 / 250 < 1).float() * 0.9
    return image, training({"image": image[None, ..., None], "case": "one"})["image"][0]


def test_bias_field_scales_smoothly_and_stays_in_range():
    image, plain = augmented(0)
    assert torch.allclose(plain, image)
    fields = []
    for seed in range(4):
        image, biased = augmented(seed, bias_field_prob=1.0)
        assert 0 <= biased.min() <= biased.max() <= 1
        assert (biased[image == 0] == 0).all()
        field = biased[image > 0] / 0.9
        fields.append(float(field.sum()))
        assert field.std() > 0.01
        assert (biased[1:-1, 20].diff().abs()[4:-4] < 0.05).all()
    assert len(set(fields)) == 4


def test_blur_softens_edges_alone():
    image, blurred = augmented(0, blur_prob=1.0)
    assert not torch.allclose(blurred, image, atol=0.05)
    assert blurred[16, 20].item() == pytest.approx(0.9, abs=1e-3)
    assert blurred.sum().item() == pytest.approx(image.sum().item(), rel=1e-3)
