import math

import pytest
import torch

from common.diffusion import NoiseSchedule, case_generators
from common.errors import InputError
from common.samplers import box_mask, patch_boxes
from common.training import DenoisingInferer, MaskedCorruption, PatchedBatch

SCHEDULE = NoiseSchedule("cosine")
SHAPES = [(6, 1, 40, 48), (3, 2, 20, 24, 28)]
KINDS = {"patches": (True, False), "frequency": (False, True), "both": (True, True)}


def images(shape):
    """Textured brains (a box) on background -1."""
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 1.6 - 0.9
    inside = torch.zeros(shape[2:], dtype=torch.bool)
    inside[tuple(slice(3, size - 2) for size in shape[2:])] = True
    return torch.where(inside, x, -1.0)


def corrupt(kind, x, seeds=None, **options):
    patches, frequency = KINDS[kind]
    corruption = MaskedCorruption(patches=patches, frequency=frequency, margin=2, radius=(2, 4), **options)
    return corruption(x, case_generators(range(len(x)) if seeds is None else seeds))


@pytest.mark.parametrize("shape", SHAPES, ids=["2d", "3d"])
@pytest.mark.parametrize("kind", KINDS)
def test_something_inside_changes_and_the_background_stays(kind, shape):
    x = images(shape)
    corrupted = corrupt(kind, x)
    background = (x == -1).all(dim=1, keepdim=True).expand_as(x)
    assert (corrupted[background] == -1).all()
    assert not torch.equal(corrupted, x)
    assert torch.isfinite(corrupted).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_corruption_depends_on_its_own_generator_alone(kind):
    x = images(SHAPES[0])
    together = corrupt(kind, x, range(10, 16))
    alone = torch.cat([corrupt(kind, x[[i]], [10 + i]) for i in range(len(x))])
    torch.testing.assert_close(together, alone)
    assert not torch.equal(together, corrupt(kind, x, range(20, 26)))


def test_patches_alone_set_rectangles_to_background():
    shape = (200, 1, 40, 48)
    corrupted = corrupt("patches", images(shape).clamp(min=-0.99) * 0 + 0.5, patch_share=0.2)
    hidden = corrupted == -1
    assert ((corrupted == 0.5) | hidden).all()
    share = (~hidden.flatten(1).any(dim=1)).float().mean()
    assert share == pytest.approx(1 / 6, abs=0.08)  # none of 0 to 5 patches
    areas = hidden.flatten(1).sum(dim=1)
    assert areas.max() <= 5 * 8 * 8  # 0.2 of 40 rows
    assert areas[areas > 0].min() >= 4 * 4
    assert not hidden[..., :2, :].any()
    assert not hidden[..., :2].any()


def test_patches_stay_in_the_bounding_box_of_the_brain():
    x = torch.full((100, 1, 60, 60), -1.0)
    x[..., 20:50, 10:45] = 0.5
    hidden = corrupt("patches", x) != x
    assert hidden.any()
    assert hidden[..., 22:48, 12:43].sum() == hidden.sum()


def test_both_fill_the_rectangles_from_the_filtered_image():
    x = images(SHAPES[0])
    both, filtered = corrupt("both", x), corrupt("frequency", x)
    changed = both != x
    assert changed.any()
    assert torch.equal(both[changed], filtered[changed])
    assert changed.float().mean() < 0.3


@pytest.mark.parametrize("shape", [(4, 1, 32, 32), (2, 1, 16, 16, 16)], ids=["2d", "3d"])
def test_low_and_high_pass_add_up_to_the_image(shape):
    x = images(shape).clamp(min=-0.99)  # no background
    low = corrupt("frequency", x, low_pass=1.0)
    high = corrupt("frequency", x, low_pass=0.0)
    torch.testing.assert_close((low + 1) / 2 + (high + 1) / 2, (x + 1) / 2)


def test_low_pass_keeps_a_slow_wave_and_high_pass_a_fast_one():
    line = torch.arange(48) * 2 * math.pi / 48
    for waves, low_pass in ((1, 1.0), (15, 0.0)):
        x = (0.5 * torch.sin(waves * line)).expand(2, 1, 40, 48)
        found = corrupt("frequency", x, low_pass=low_pass)
        mean = 0 if low_pass else -1  # the mean belongs to the low frequencies
        torch.testing.assert_close(found, x + mean, rtol=0, atol=1e-5)
        lost = corrupt("frequency", x, low_pass=1 - low_pass)
        assert lost.std() < 1e-5


def test_an_empty_image_stays_empty():
    x = torch.full((2, 1, 16, 16), -1.0)
    for kind in KINDS:
        assert torch.equal(corrupt(kind, x), x)


@pytest.mark.parametrize(
    "options",
    [
        {"patches": False, "frequency": False},
        {"max_patches": 0},
        {"patch_share": 0.0},
        {"radius": (5, 2)},
        {"low_pass": 1.5},
    ],
    ids=lambda options: next(iter(options)),
)
def test_bad_options_are_refused(options):
    with pytest.raises(InputError):
        MaskedCorruption(**options)


def batch(x, **options):
    return PatchedBatch(SCHEDULE, noise="gaussian", patch_size=options.pop("patch_size", [20, 24]), **options)


def prepared(x, **options):
    torch.manual_seed(0)
    cases = [f"case{i}" for i in range(len(x))]
    made = batch(x, **options)
    return made, {"image": (x + 1) / 2, "case": cases}


def clean(state, region):
    """What a state has outside its box."""
    return state * (1 - region)


def test_only_a_box_of_the_grid_is_noised_and_counts():
    x = images((12, 1, 40, 48))
    made, data = prepared(x)
    state, target, _, keywords = made(data)
    region = keywords["region"]
    grid = box_mask(x, [patch.box for patch in patch_boxes((40, 48), [20, 24])])
    chosen = [next(i for i in range(4) if torch.equal(each, grid[i])) for each in region]
    assert len(set(chosen)) > 1
    torch.testing.assert_close(clean(state, region), clean(x, region))
    assert (state != x)[region > 0].float().mean() > 0.99
    torch.testing.assert_close(target, x * region)

    output = DenoisingInferer(amp=False)(state, lambda y, timesteps: torch.ones_like(y), **keywords)
    assert torch.equal(output, region)


def test_noise_in_the_box_is_that_of_the_level():
    x = torch.zeros(200, 1, 8, 8)
    made = PatchedBatch(SCHEDULE, noise="gaussian", patch_size=4, levels=[499, 499])
    state, _, _, keywords = made({"image": (x + 1) / 2})
    inside = keywords["region"] > 0
    assert state[inside].std().item() == pytest.approx(SCHEDULE.signal_and_noise(499)[1], rel=0.05)


def test_a_volume_is_trained_in_boxes_too():
    x = images((2, 1, 8, 8, 8))
    made, data = prepared(x, patch_size=4)
    state, _, _, keywords = made(data)
    assert keywords["region"].flatten(1).sum(dim=1).tolist() == [64, 64]
    torch.testing.assert_close(clean(state, keywords["region"]), clean(x, keywords["region"]))


def test_a_corrupted_batch_still_has_the_clean_image_as_target():
    x = images((8, 1, 40, 48))
    made, data = prepared(x, corruption=MaskedCorruption(patches=False, radius=(2, 4)), levels=[0, 0])
    state, target, _, keywords = made(data)
    region = keywords["region"]
    torch.testing.assert_close(target, x * region)
    assert clean(state - x, region).abs().mean() > 0.05  # the corruption is not limited to the box


def test_validation_is_uncorrupted_and_depends_on_the_case_alone():
    x = images((5, 1, 40, 48))
    made, data = prepared(x, corruption=MaskedCorruption())
    fixed = made.for_validation(3)
    assert made.corruption is not None
    state, target, _, keywords = fixed(data)
    torch.testing.assert_close(clean(state, keywords["region"]), clean(x, keywords["region"]))
    one = {"image": data["image"][[3]], "case": data["case"][3:4]}
    alone, alone_target, _, alone_keywords = fixed(one)
    torch.testing.assert_close(alone, state[[3]])
    torch.testing.assert_close(alone_target, target[[3]])
    assert torch.equal(alone_keywords["timesteps"], keywords["timesteps"][[3]])


def test_a_corruption_needs_a_network_that_predicts_the_image():
    with pytest.raises(InputError, match="sample"):
        PatchedBatch(SCHEDULE, "epsilon", corruption=MaskedCorruption())
