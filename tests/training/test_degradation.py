import pytest
import torch

from common.diffusion import NoiseSchedule, case_generators, level_of_severity
from common.errors import InputError
from common.training import Degradation, DegradationBatch

SCHEDULE = NoiseSchedule("linear", 100, beta_start=1e-3, beta_end=0.2)
SHAPES = [(24, 1, 32, 40), (6, 2, 16, 20, 18)]
OPTIONS = {"both": {}, "texture": {"bias": 0.0}, "bias": {"texture": 0.0}}


def images(shape, seed=0):
    """Textured heads on background 0."""
    x = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 0.6 + 0.2
    inside = torch.zeros(shape[2:], dtype=torch.bool)
    inside[tuple(slice(3, size - 2) for size in shape[2:])] = True
    return torch.where(inside, x, 0.0)


def degrade(x, foreign=None, seeds=None, **options):
    foreign = images(x.shape, 1) if foreign is None else foreign
    return Degradation(**options)(x, foreign, case_generators(range(len(x)) if seeds is None else seeds))


@pytest.mark.parametrize("shape", SHAPES, ids=["2d", "3d"])
@pytest.mark.parametrize("kind", OPTIONS)
def test_images_change_inside_the_shape_alone(kind, shape):
    x = images(shape)
    degraded = degrade(x, **OPTIONS[kind])
    assert degraded.image.shape == x.shape
    assert degraded.shape.shape == (shape[0], 1, *shape[2:])
    assert 0 <= degraded.shape.min() <= degraded.shape.max() <= 1
    outside = (degraded.shape == 0).expand_as(x)
    torch.testing.assert_close(degraded.image[outside], x[outside])
    assert (degraded.image[x == 0] == 0).all()
    assert (degraded.image != x).flatten(1).any(dim=1).all()
    assert 0 <= degraded.image.min() <= degraded.image.max() <= 1


def test_severity_of_texture_is_its_share():
    """Against a black image the largest change is the share of what was there."""
    x = torch.full((50, 1, 32, 32), 0.8)
    degraded = degrade(x, torch.zeros_like(x), bias=0.0, radius=(0.3, 0.4))
    change = (x - degraded.image).flatten(1).amax(dim=1) / 0.8
    torch.testing.assert_close(change, degraded.severity)
    assert degraded.severity.min() < 0.15
    assert degraded.severity.max() > 0.85


def test_severity_of_a_bias_is_its_largest_effect():
    x = images((50, 1, 32, 40))
    degraded = degrade(x, texture=0.0)
    change = (degraded.image - x).abs().flatten(1).amax(dim=1)
    torch.testing.assert_close(change, degraded.severity)
    brighter = (degraded.image - x).flatten(1).sum(dim=1) > 0
    assert 10 < brighter.sum() < 40


def test_a_bias_follows_the_tissue():
    """Two tissues, a shape over everything: the bias reaches the one in its centre, and the other now and then."""
    x = torch.full((60, 1, 32, 32), 0.2)
    x[..., 16:] = 0.6
    degraded = degrade(x, texture=0.0, radius=(2.0, 2.0))
    change = (degraded.image - x).abs().mean(dim=(1, 2))  # (case, column)
    left, right = change[:, :12].mean(dim=1), change[:, 20:].mean(dim=1)
    one = (torch.minimum(left, right) < 1e-3) & (torch.maximum(left, right) > 1e-2)
    assert 20 < one.sum() < 58


def test_severity_is_the_larger_of_both():
    x = images((30, 1, 32, 40))
    both, texture = degrade(x), degrade(x, bias=0.0)
    assert (both.severity >= texture.severity).all()
    assert (both.severity > texture.severity).any()


def test_no_anomaly_has_severity_0():
    x = images(SHAPES[0])
    degraded = degrade(x, texture=0.0, bias=0.0)
    assert torch.equal(degraded.image, x)
    assert (degraded.severity == 0).all()
    empty = degrade(torch.zeros_like(x))
    assert (empty.image == 0).all()
    assert (empty.severity == 0).all()


def test_foreign_texture_comes_from_its_foreground():
    """A foreign image that is bright in one corner only still darkens or brightens at every place."""
    x = torch.full((40, 1, 32, 32), 0.2)
    foreign = torch.zeros_like(x)
    foreign[..., :4, :4] = 1.0
    degraded = degrade(x, foreign, bias=0.0)
    brightened = (degraded.image > x + 1e-4).flatten(1).any(dim=1)
    assert brightened.float().mean() > 0.9


def test_shapes_differ_in_kind_and_size():
    shapes = degrade(torch.full((200, 1, 64, 64), 0.5)).shape
    areas = (shapes > 0.5).flatten(1).sum(dim=1)
    assert areas.min() < 60
    assert areas.max() > 1000
    soft = ((shapes > 0) & (shapes < 1)).flatten(1).any(dim=1)
    assert soft.all()


@pytest.mark.parametrize("shape", SHAPES, ids=["2d", "3d"])
def test_a_degradation_depends_on_its_own_generator_alone(shape):
    x, foreign = images(shape), images(shape, 1)
    together = degrade(x, foreign)
    for i in range(3):
        alone = degrade(x[[i]], foreign[[i]], [i])
        for one, all_ in zip(alone, together, strict=True):
            torch.testing.assert_close(one, all_[[i]])
    again = degrade(x, foreign, range(100, 100 + len(x)))
    assert not torch.equal(together.image, again.image)


@pytest.mark.parametrize(
    "options", [{"radius": (0.4, 0.1)}, {"radius": (0, 0.1)}, {"texture": 1.1}, {"bias": -0.1}], ids=str
)
def test_bad_options_are_refused(options):
    with pytest.raises(InputError):
        Degradation(**options)


def data(count=6):
    x = images((count, 1, 32, 40))
    return x, {"image": x, "case": [f"case{i}" for i in range(count)]}


def test_the_network_is_told_the_level_of_the_severity():
    torch.manual_seed(0)
    x, batch = data(24)
    seen = {}

    class Recording(Degradation):
        def __call__(self, image, foreign, generators):
            seen["degraded"] = super().__call__(image, foreign, generators)
            seen["foreign"] = foreign
            return seen["degraded"]

    state, target, _, keywords = DegradationBatch(SCHEDULE, Recording())(batch)
    assert torch.equal(target, x * 2 - 1)
    torch.testing.assert_close(state, seen["degraded"].image * 2 - 1)
    assert torch.equal(keywords["timesteps"], level_of_severity(SCHEDULE, seen["degraded"].severity))
    assert keywords["timesteps"].unique().numel() > 5
    assert set(keywords) == {"timesteps"}
    torch.testing.assert_close(seen["foreign"][1:], x[:-1])  # texture of another image


def test_a_severe_anomaly_has_a_high_level():
    x = torch.full((4, 1, 32, 32), 0.5)
    _, _, _, slight = DegradationBatch(SCHEDULE, Degradation(texture=0.0, bias=0.0))({"image": x})
    assert slight["timesteps"].tolist() == [0] * 4
    torch.manual_seed(0)
    severe = DegradationBatch(SCHEDULE)({"image": images((200, 1, 16, 16))})[3]["timesteps"]
    assert severe.max() > 90


def test_validation_does_not_depend_on_neighbours():
    _, batch = data()
    fixed = DegradationBatch(SCHEDULE).for_validation(1)
    state, target, _, keywords = fixed(batch)
    for i in (0, 4):
        one = {"image": batch["image"][[i]], "case": batch["case"][i : i + 1]}
        alone, alone_target, _, alone_keywords = fixed(one)
        torch.testing.assert_close(alone, state[[i]])
        torch.testing.assert_close(alone_target, target[[i]])
        assert torch.equal(alone_keywords["timesteps"], keywords["timesteps"][[i]])
    assert torch.equal(fixed(batch)[0], state)
