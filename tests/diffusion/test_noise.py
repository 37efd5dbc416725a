import numpy as np
import pytest
import torch
from opensimplex import OpenSimplex
from scipy import ndimage

from common.diffusion import (
    NOISES,
    CoarseNoise,
    PyramidNoise,
    SimplexNoise,
    SynomalyNoise,
    case_generators,
    get_noise,
    run_generator,
    simplex_field,
)
from common.errors import InputError

IN_PLANE = [name for name in NOISES if name != "simplex"]  # what volumes can have


def image(*shape):
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    x[..., :3, :] = -1
    return x


@pytest.mark.parametrize("name", NOISES)
@pytest.mark.parametrize("shape", [(3, 1, 33, 20), (3, 2, 8, 15)], ids=["1ch", "2ch"])
def test_a_case_has_its_noise_whatever_its_neighbours(name, shape):
    noise, x = get_noise(name), image(*shape)
    together = noise(x, case_generators([5, 6, 7]))
    assert together.shape == x.shape
    assert together.dtype == x.dtype
    assert torch.isfinite(together).all()
    torch.testing.assert_close(noise(x[[2]], case_generators([7])), together[[2]], rtol=0, atol=1e-6)
    assert torch.equal(noise(x, case_generators([5, 6, 7])), together)
    assert not torch.allclose(together[0], together[1])
    if shape[1] > 1:
        assert not torch.allclose(together[:, 0], together[:, 1])


@pytest.mark.parametrize("name", ["gaussian", "simplex", "simplex3d", "pyramid", "coarse"])
def test_antithetic_runs_draw_opposite_noise_in_pairs(name):
    noise, x = get_noise(name), image(5, 1, 33, 20)
    runs = noise(x, [run_generator(7, run, antithetic=True) for run in range(5)])
    for first in (0, 2):
        assert torch.equal(runs[first + 1], -runs[first])
    assert not torch.allclose(runs[0], runs[2])
    plain = noise(x, [run_generator(7, run) for run in range(5)])
    assert torch.equal(plain[::2], runs[::2])
    torch.testing.assert_close(noise(x[:1], case_generators([7])), runs[:1], rtol=0, atol=1e-6)
    for one, other in ((0, 1), (1, 2), (3, 4)):
        assert not torch.allclose(plain[one].abs(), plain[other].abs())


@pytest.mark.parametrize("name", IN_PLANE)
def test_volumes(name):
    x = image(2, 1, 9, 12, 7)
    noise = get_noise(name)(x, case_generators([1, 2]))
    assert noise.shape == x.shape
    assert not torch.allclose(noise[..., 0], noise[..., 1])


@pytest.mark.parametrize("name", NOISES)
def test_one_generator_for_all_or_none(name):
    noise, x = get_noise(name), image(2, 1, 16, 16)
    one = noise(x, torch.Generator().manual_seed(3))
    assert torch.equal(one, noise(x, torch.Generator().manual_seed(3)))
    assert not torch.allclose(one[0], one[1])
    assert not torch.allclose(noise(x), noise(x))


@pytest.mark.parametrize("name", NOISES)
def test_generators_that_do_not_fit_are_refused(name):
    with pytest.raises(InputError, match="do not fit"):
        get_noise(name)(image(3, 1, 16, 16), case_generators([1, 2]))


def oracle(seed, rows, columns, z=None):
    simplex = OpenSimplex(seed=seed)
    field = np.zeros((rows, columns))
    for octave in range(6):
        f = 2**octave / 64
        for i in range(rows):
            for j in range(columns):
                point = (j * f, i * f) if z is None else (j * f, i * f, z * f)
                field[i, j] += 0.8**octave * (simplex.noise2 if z is None else simplex.noise3)(*point)
    return field


@pytest.mark.parametrize("seed", [42, -3026847021, 2**61 + 12345])
@pytest.mark.parametrize("z", [None, 0.0, 37.5, 100.0])
def test_simplex_is_opensimplex(seed, z):
    field = simplex_field([7, seed], (9, 13), z=z)[1]
    np.testing.assert_allclose(field, oracle(seed, 9, 13, z), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("z", "total", "first", "last"),
    [
        (100.0, 159.118246, [0.954321, 0.833744, 0.700434], -0.386752),
        (None, 121.587461, [0, 0.497665, 0.519953], -0.231284),
    ],
)
def test_simplex_of_the_authors(z, total, first, last):
    field = simplex_field([42], (32, 32), z=z).flatten()
    assert field.sum().item() == pytest.approx(total, abs=0.02)
    assert field[:3].tolist() == pytest.approx(first, abs=1e-4)
    assert field[-1].item() == pytest.approx(last, abs=1e-4)


@pytest.mark.parametrize(("dimensions", "std", "extreme"), [(3, 0.496, 1.9), (2, 0.585, 2.3)])
def test_simplex_has_about_half_the_spread_of_gaussian_noise(dimensions, std, extreme):
    x = torch.zeros(40, 1, 128, 128)
    field = SimplexNoise(dimensions=dimensions)(x, case_generators(range(40)))
    assert field.mean().item() == pytest.approx(0, abs=0.08)
    assert field.std().item() == pytest.approx(std, abs=0.03)
    assert [-field.min().item(), field.max().item()] == pytest.approx([extreme] * 2, abs=0.35)


def test_simplex_volume_is_a_stack_of_planes():
    x = torch.zeros(1, 1, 8, 9, 3)
    volume = get_noise("simplex3d")(x, case_generators([4]))
    for z in range(3):
        plane = SimplexNoise(plane=float(z))(x[..., z], case_generators([4]))
        torch.testing.assert_close(volume[..., z], plane)


def test_shared_simplex_is_one_field_for_the_batch():
    noise = SimplexNoise(shared=True)(image(3, 2, 16, 16), case_generators([1, 2, 3]))
    assert torch.equal(noise[0], noise[2])
    assert not torch.allclose(noise[:, 0], noise[:, 1])


def test_simplex_that_cannot_be_is_refused():
    with pytest.raises(InputError, match="simplex3d"):
        get_noise("simplex")(image(1, 1, 8, 8, 8))
    with pytest.raises(InputError, match="use 2 or 3"):
        SimplexNoise(dimensions=4)


def test_coarse_noise_is_an_enlarged_grid():
    x = torch.zeros(200, 1, 31, 31)
    noise = CoarseNoise(resolution=16, std=0.2)(x, case_generators(range(200)))
    assert noise.mean().item() == pytest.approx(0, abs=0.01)
    # With 31 pixels every other one lies on the grid: a quarter keeps its spread, half has 1/2, a quarter 1/4 of it.
    assert noise.square().mean().item() == pytest.approx(0.2**2 * (16 / 31 + 15 / 31 / 2) ** 2, rel=0.02)
    corner, middle = (noise[..., start::2, start::2].square().mean().item() for start in (0, 1))
    assert corner == pytest.approx(middle, rel=0.1)  # the shift puts grid points anywhere; unshifted it would be 4 to 1


def test_pyramid_noise_has_unit_spread_and_long_range():
    x = torch.zeros(64, 1, 48, 40)
    noise = PyramidNoise()(x, case_generators(range(64)))
    torch.testing.assert_close(noise.flatten(1).std(dim=1), torch.ones(64), rtol=1e-5, atol=0)
    far = (noise[..., :-4] * noise[..., 4:]).mean().item()
    white = PyramidNoise(discount=0.0)(x, case_generators(range(64)))
    assert far > 0.1
    assert abs((white[..., :-4] * white[..., 4:]).mean().item()) < 0.02


@pytest.mark.parametrize("name", ["synomaly_brats", "synomaly_lits", "synomaly_us"])
def test_synomaly_adds_blobs_inside_the_body(name):
    noise = NOISES[name]
    assert isinstance(noise, SynomalyNoise)
    x = image(4, 1, 64, 64)
    x[..., :20] = -1
    drawn = noise(x, case_generators([1, 2, 3, 4]))
    plain = NOISES["gaussian"](x, case_generators([1, 2, 3, 4]))
    change = drawn - plain
    for case in range(4):
        changed = change[case][change[case].abs() > 1e-4]
        assert 0 < len(changed) < x[case].numel() / 2
        assert changed.std() < 1e-5  # one strength an image
        assert noise.offset - 1e-4 <= changed[0].item() * noise.direction < noise.offset + 1
    assert (change[x == -1] == 0).all()
    assert len(change.unique()) > 4


def test_synomaly_of_both_directions_draws_one_for_each_image():
    x, generators = image(40, 1, 64, 64), case_generators(range(40))
    change = SynomalyNoise(direction=0.0)(x, generators) - NOISES["gaussian"](x, case_generators(range(40)))
    strongest = [case[case.abs().argmax()].item() for case in change.flatten(1)]
    assert 10 < sum(each > 0 for each in strongest) < 30
    assert all(0.5 - 1e-4 <= abs(each) < 1.5 for each in strongest)
    for case, each in zip(change.flatten(1), strongest, strict=True):  # no image has both
        assert ((case * each) >= -1e-4).all()
    with pytest.raises(InputError, match=r"direction 0\.5: is none → give 1 \(brighter\), -1 \(darker\) or 0 \(both\)"):
        SynomalyNoise(direction=0.5)


@pytest.mark.parametrize("sigma", [3.0, 7.0])
def test_synomaly_blur_is_scipys(sigma):
    """Side 8σ + 1 is a radius of 4σ; blobs from scipy's filter must be ours, voxel by voxel."""
    noise = torch.randn(1, 1, 40, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    blurred = ndimage.gaussian_filter(noise[0, 0].numpy(), sigma, mode="mirror", truncate=4)
    expected = (blurred - blurred.min()) / np.ptp(blurred) * 255 > 175
    combined = SynomalyNoise(sigma=sigma).combine(noise, torch.tensor([1.0]), torch.tensor(True))
    np.testing.assert_array_equal((combined - noise)[0, 0].numpy() > 0.5, expected)


@pytest.mark.parametrize(
    ("noise", "added", "pixels", "masked"),
    [
        (NOISES["synomaly_brats"], 0.996257, 1768, 1239),
        (NOISES["synomaly_lits"], -1.496257, 1768, 1239),
        (NOISES["synomaly_us"], 0.996257, 7992, 4947),
    ],
    ids=["brats", "lits", "us"],
)
def test_synomaly_of_the_authors(noise, added, pixels, masked):
    assert isinstance(noise, SynomalyNoise)
    drawn = torch.from_numpy(np.random.RandomState(0).randn(128, 128))[None, None]
    change = noise.direction * (noise.offset + torch.rand(1, generator=torch.Generator().manual_seed(0)))
    region = torch.ones(1, 1, 128, 128, dtype=torch.bool)
    combined = noise.combine(drawn, change, region)
    assert int((combined != drawn).sum()) == pixels
    assert (combined - drawn)[combined != drawn].tolist() == pytest.approx([added] * pixels, abs=1e-5)
    if noise == SynomalyNoise():
        assert combined.sum().item() == pytest.approx(1667.160287, abs=0.01)
        assert [combined.min().item(), combined.max().item()] == pytest.approx([-3.740101, 4.208104], abs=1e-4)
        assert combined.flatten()[[0, -1]].tolist() == pytest.approx([1.764052, 1.962257], abs=1e-4)
    region[..., :40] = False
    assert int((noise.combine(drawn, change, region) != drawn).sum()) == masked


def test_unknown_noise_is_refused():
    with pytest.raises(InputError, match="choose one of"):
        get_noise("pink")
