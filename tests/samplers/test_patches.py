import pytest
import torch

from common.diffusion import NoiseSchedule, StaticClip, case_generators, gaussian_noise
from common.errors import InputError
from common.networks import Denoiser
from common.samplers import Step, box_mask, patch_boxes, patched_estimate

SCHEDULE = NoiseSchedule("cosine")
LEVEL = 499


def spreading(x, timesteps):
    """An x̂_0 that depends on the whole state and on the level, so that every box sees what surrounds it."""
    mean = x.flatten(1).mean(dim=1).reshape(-1, *(1,) * (x.ndim - 1))
    return 0.5 * x + mean + 1e-4 * timesteps.reshape(mean.shape)


def denoiser():
    return Denoiser(spreading, SCHEDULE, "sample", StaticClip(-9, 9))


def image(shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


def bounds(boxes):
    return [[(side.start, side.stop) for side in box] for box in boxes]


def test_the_last_box_moves_inside_and_pastes_what_is_left():
    patches = patch_boxes((10,), 4)
    assert bounds(patch.box for patch in patches) == [[(0, 4)], [(4, 8)], [(6, 10)]]
    assert bounds(patch.paste for patch in patches) == [[(0, 4)], [(4, 6)], [(6, 10)]]


def test_cut_spreads_the_boxes_and_divides_their_overlaps():
    patches = patch_boxes((96,), 48, "cut")
    assert bounds(patch.box for patch in patches) == [[(0, 48)], [(24, 72)], [(48, 96)]]
    assert bounds(patch.paste for patch in patches) == [[(0, 36)], [(36, 60)], [(60, 96)]]


def test_the_last_axis_changes_fastest_and_sides_may_differ():
    patches = patch_boxes((80, 96), [40, 48])
    assert bounds(patch.box for patch in patches) == [
        [(0, 40), (0, 48)],
        [(0, 40), (48, 96)],
        [(40, 80), (0, 48)],
        [(40, 80), (48, 96)],
    ]


@pytest.mark.parametrize("overlap", ["none", "cut", "average"])
@pytest.mark.parametrize(
    ("size", "side"), [((17, 22), 7), ((9, 12), [9, 1]), ((8, 9, 10), [4, 5, 3])], ids=["2d", "thin", "3d"]
)
def test_paste_regions_cover_the_image_and_lie_in_their_boxes(size, side, overlap):
    patches = patch_boxes(size, side, overlap)
    x = torch.zeros(1, 1, *size)
    boxes, pastes = (box_mask(x, [patch[part] for patch in patches]) for part in (0, 1))
    assert (pastes <= boxes).all()
    covered = pastes.sum(dim=0)
    assert (covered >= 1).all()
    assert overlap == "average" or (covered == 1).all()
    sides = [side] * len(size) if isinstance(side, int) else side
    assert all([cut.stop - cut.start for cut in patch.box] == sides for patch in patches)


@pytest.mark.parametrize("overlap", ["none", "cut", "average"])
@pytest.mark.parametrize(("shape", "side"), [((3, 1, 12, 16), [6, 8]), ((2, 2, 6, 8, 8), 4)], ids=["2d", "3d"])
def test_all_boxes_at_once_equal_one_after_the_other(shape, side, overlap):
    x, seeds = image(shape), range(shape[0])
    patches = patch_boxes(shape[2:], side, overlap)
    noised = SCHEDULE.add_noise(x, gaussian_noise(x, case_generators(seeds)), LEVEL)
    total, count = torch.zeros_like(x), torch.zeros_like(x)
    for patch in patches:
        one = denoiser()(torch.where(box_mask(x, [patch.box]).bool(), noised, x), LEVEL).x0
        paste = box_mask(x, [patch.paste])
        total += paste * one
        count += paste
    together = patched_estimate(denoiser(), x, LEVEL, patches, generator=case_generators(seeds))
    torch.testing.assert_close(together, total / count)


def test_each_state_is_clean_outside_its_box_and_shares_one_noise_field():
    x = image((2, 1, 8, 8))
    steps: list[Step] = []
    patches = patch_boxes((8, 8), 4)
    counted = denoiser()
    patched_estimate(counted, x, LEVEL, patches, generator=case_generators([1, 2]), callback=steps.append)
    assert counted.evaluations == 8
    assert [(step.i, step.t) for step in steps] == [(i, LEVEL) for i in range(4)]
    noised = SCHEDULE.add_noise(x, gaussian_noise(x, case_generators([1, 2])), LEVEL)
    for step, patch in zip(steps, patches, strict=True):
        inside = box_mask(x, [patch.box]).bool()
        assert torch.equal(step.x, torch.where(inside, noised, x))


def test_conditioning_stays_with_its_case():
    x, condition = image((3, 1, 8, 8)), torch.tensor([[1.0], [2.0], [3.0]])

    def network(x, timesteps, context):
        return context[..., None, None].expand_as(x)

    bounded = Denoiser(network, SCHEDULE, "sample", None, max_batch=5)
    found = patched_estimate(bounded, x, LEVEL, patch_boxes((8, 8), 4), context=condition)
    assert torch.equal(found, condition[..., None, None].expand_as(x))


@pytest.mark.parametrize(("side", "overlap"), [(9, "none"), (0, "none"), ([4, 4, 4], "none"), (4, "blend")], ids=str)
def test_boxes_that_do_not_fit_are_refused(side, overlap):
    with pytest.raises(InputError):
        patch_boxes((8, 16), side, overlap)


def test_a_level_outside_the_schedule_is_refused():
    with pytest.raises(InputError, match="level 1000"):
        patched_estimate(denoiser(), image((1, 1, 8, 8)), 1000, patch_boxes((8, 8), 4))
