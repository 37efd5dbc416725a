import torch

from common.diffusion import NoiseSchedule
from common.training import CoarseNoiseBatch, DenoisingInferer


def images(cases=4, size=(32, 40)):
    """In [0, 1], with a border of background."""
    x = torch.rand((cases, 1, *size), generator=torch.Generator().manual_seed(1)) * 0.8 + 0.1
    x[..., :6, :] = 0
    return x


def batch(**options):
    return CoarseNoiseBatch(NoiseSchedule(), **options)


def test_noise_is_in_the_foreground_and_so_is_the_loss():
    x = images()
    state, target, _, keywords = batch()({"image": x})
    background = x == 0
    assert (state[background] == -1).all()
    assert (state[~background] != 2 * x[~background] - 1).float().mean() > 0.95
    assert torch.equal(keywords["region"], (~background).float())
    torch.testing.assert_close(target, (2 * x - 1) * ~background)
    output = DenoisingInferer(amp=False)(state, lambda x, timesteps: x, **keywords)
    assert (output[background] == 0).all()


def test_noise_is_as_strong_as_asked_and_coarse():
    x = torch.full((64, 1, 64, 64), 0.5)
    state, target, _, _ = batch(std=0.3, resolution=8)({"image": x})
    noise = (state - target) / 2  # in image units
    # Linear interpolation averages the variance of the grid down: by 2/3 an axis between the points.
    assert abs(noise.std() / (0.3 * 2 / 3) - 1) < 0.1
    step = (noise[..., 1:] - noise[..., :-1]).std()
    assert step < 0.4 * noise.std()  # white noise has 1.4


def test_validation_depends_on_the_case_alone():
    x, fixed = images(), batch().for_validation(3)
    whole = fixed({"image": x, "case": list("abcd")})[0]
    alone = fixed({"image": x[2:3], "case": ["c"]})[0]
    assert torch.equal(whole[2:3], alone)
    assert not torch.equal(whole[:1] - x[:1], whole[1:2] - x[1:2])
