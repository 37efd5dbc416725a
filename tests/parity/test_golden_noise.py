"""AnoDDPM, ANDi and Synomaly against the numbers that the authors' code gives with a toy network."""

import pytest
import torch

from common.anomaly import opencv_blur
from common.diffusion import NoiseSchedule, sampling_levels, simplex_field, to_model_range
from common.inferers import SynomalyInferer, blurred_difference, suspicious_regions
from common.networks import Denoiser
from common.samplers import Step, multistage, partial_diffusion, reverse_deviation, single_step
from tests.exact import constant_noise, toy_field, toy_image, toy_network
from tests.parity.test_golden import check

LINEAR, COSINE = NoiseSchedule(), NoiseSchedule("cosine")


class SimplexByLevel:
    """Seed 42 at every draw, and as third coordinate the level: 99 for the way up, then 99, 98, … down."""

    def __init__(self):
        self.levels = [99, *range(99, 0, -1)]

    def __call__(self, x, generator=None):
        return simplex_field([42], (32, 32), z=float(self.levels.pop(0))).expand_as(x)


@pytest.mark.parametrize(
    ("noise", "start", "image", "error"),
    [
        (
            constant_noise(toy_field()),
            (2.385178, [0.320908, 0.274004, 0.093840], 0.411681, -1.263604, 1.266844),
            (-9.949673, [1.0, 0.908205, -1.0], 1.0, -1.0, 1.0),
            (1207.892954, [1.0, 0.503442, 1.930483], 0.629694, 0.0, 3.999961),
        ),
        (
            SimplexByLevel(),
            (55.503360, [0.267455, 0.461312, 0.617344], 0.101103, -1.204542, 1.272618),
            (-189.535667, [1.0, 1.0, 0.995179], -1.0, -1.0, 1.0),
            (482.081782, [1.0, 0.642131, 0.366947], 1.455564, 0.0, 2.763480),
        ),
    ],
    ids=["gaussian", "simplex"],
)
def test_anoddpm(noise, start, image, error):
    """λ = 100 is level 99, and a hundred evaluations; the variance is the large one."""
    steps: list[Step] = []
    denoiser, x = Denoiser(toy_network, LINEAR), to_model_range(toy_image())
    y = partial_diffusion(
        denoiser, x, sampling_levels(99, 100), noise=noise, variance="fixed_large", callback=steps.append
    )
    assert denoiser.evaluations == 100
    check(steps[0].x, start, 1e-4)
    check(y, image, 1e-4)
    check((x - y).square(), error, 1e-4)


@pytest.mark.parametrize(
    ("variance", "levels", "image"),
    [
        ("fixed_small", sampling_levels(99, 100), (-9.954767, [1.0, 0.890050, -1.0], 1.0, -1.0, 1.0)),
        ("fixed_large", sampling_levels(100, 101), (-10.022666, [1.0, 0.917491, -1.0], 1.0, -1.0, 1.0)),
    ],
    ids=["small variance", "one level higher"],
)
def test_anoddpm_of_other_readings(variance, levels, image):
    noise = constant_noise(toy_field())
    x = to_model_range(toy_image())
    y = partial_diffusion(Denoiser(toy_network, LINEAR), x, levels, noise=noise, variance=variance)
    check(y, image, 1e-4)


@pytest.mark.parametrize(
    ("levels", "deviation"),
    [
        ([75], (2.102564e-02, [2.629100e-05, 1.762033e-07, 4.179723e-05], 7.200002e-06, 1.803557e-11, 8.063462e-05)),
        ([199], (1.868898e-02, [1.444796e-05, 2.789181e-07, 4.514187e-05], 2.521892e-06, 1.667022e-11, 8.227020e-05)),
        (
            list(range(75, 200)),
            (1.937178e-02, [1.933096e-05, 3.080040e-08, 4.287374e-05], 4.331024e-06, 0.0, 8.083077e-05),
        ),
    ],
    ids=["level 75", "level 199", "geometric mean"],
)
@pytest.mark.parametrize("max_batch", [1, 50])
def test_andi(levels, deviation, max_batch):
    denoiser = Denoiser(toy_network, LINEAR, clip=None, max_batch=max_batch)
    x = to_model_range(toy_image())
    found = reverse_deviation(denoiser, x, levels, noise=constant_noise(toy_field()))
    assert denoiser.evaluations == len(levels)
    check(found.map, deviation, 1e-7)
    assert found.map.sum().item() == pytest.approx(deviation[0], rel=1e-4)
    # The code's own mean has a zero where one level rounds to it; in closed form there is none.
    assert found.map.min() > 0


@pytest.fixture(scope="module")
def synomaly():
    """Denoiser, input and noise of 128 × 128."""
    return Denoiser(toy_network, COSINE), to_model_range(toy_image(128)), constant_noise(toy_field(128))


def test_synomaly_estimate_and_difference(synomaly):
    denoiser, x, noise = synomaly
    steps: list[Step] = []
    x0 = single_step(denoiser, x, 250, noise=noise, callback=steps.append).x0
    check(steps[0].x, (1.926887, [0.392571, 0.287733, 0.021767], 0.219617, -1.312249, 1.312177), 1e-4)
    check(x0, (-1393.070380, [0.248060, 0.152917, -0.085229], 0.091508, -1.0, 1.0), 1e-4)
    small = suspicious_regions(blurred_difference(x, x0, 5), 0.2, 30)
    check(small, (1077.400363, [0.0, 0.0, 0.0], 0.0, 0.0, 0.436065), 1e-4)
    assert int((small > 0).sum()) == 3833
    large = suspicious_regions(blurred_difference(x, x0, 11), 0.2, 30)
    check(large, (837.335826, [0.276218, 0.272360, 0.260134], 0.0, 0.0, 0.287498), 1e-4)
    assert int((large > 0).sum()) == 3753


@pytest.mark.parametrize(
    ("field", "level", "blur", "threshold", "pixels"),
    [
        (True, 200, 5, 0.1, 6239),
        (True, 300, 5, 0.2, 5839),
        (True, 300, 11, 0.2, 6125),
        (False, 200, 5, 0.1, 6871),
        (False, 250, 5, 0.2, 4740),
        (False, 250, 11, 0.2, 3694),
        (False, 300, 5, 0.2, 6782),
        (False, 300, 11, 0.2, 6320),
    ],
)
def test_synomaly_counts(synomaly, field, level, blur, threshold, pixels):
    denoiser, x, noise = synomaly
    x0 = single_step(denoiser, x, level, noise=noise if field else constant_noise(torch.zeros(1, 1, 128, 128))).x0
    found = int((suspicious_regions(blurred_difference(x, x0, blur), threshold, 30) > 0).sum())
    assert found == pytest.approx(pixels, abs=1)  # a pixel may lie at the threshold to the last digit


def test_synomaly_stages(synomaly):
    denoiser, x, noise = synomaly
    inferer = SynomalyInferer(schedule=COSINE, blur=5, difference_threshold=0.1)
    stages: list[Step] = []
    x0 = multistage(denoiser, x, 200, difference=inferer.suspicious, noise=noise, callback=stages.append)
    assert [step.i for step in stages] == [0, 1, 2, 3, 4]
    check(stages[0].x0, (-895.504558, [0.221002, 0.179368, 0.018397], 0.204730, -1.0, 1.0), 1e-4)
    check(stages[1].x0, (-1182.995218, [0.221002, 0.176579, -0.060498], 0.204730, -1.0, 1.0), 1e-4)
    check(x0, (-1415.438727, [0.251491, 0.174624, -0.125491], 0.204730, -1.0, 1.0), 1e-4)
    final = inferer.suspicious(x, x0)
    check(final, (1711.479879, [0.146018, 0.238524, 0.343351], 0.0, 0.0, 0.522503), 1e-4)


def test_synomaly_stages_with_a_binary_mask(synomaly):
    denoiser, x, noise = synomaly
    inferer = SynomalyInferer(schedule=COSINE, blur=5, difference_threshold=0.1)
    x0 = multistage(denoiser, x, 200, difference=lambda a, b: (inferer.suspicious(a, b) > 0).to(a), noise=noise)
    check(inferer.suspicious(x, x0), (5377.962407, [0.371234, 0.627826, 0.936326], 0.0, 0.0, 1.279876), 1e-4)


@pytest.mark.parametrize(
    ("size", "weights"),
    [
        (3, [0.25, 0.5, 0.25]),
        (5, [0.0625, 0.25, 0.375, 0.25, 0.0625]),
        (7, [0.03125, 0.109375, 0.21875, 0.28125, 0.21875, 0.109375, 0.03125]),
    ],
)
def test_small_blurs_have_opencvs_tables(size, weights):
    line = torch.zeros(1, 1, 15, 15)
    line[..., 7] = 1
    blurred = opencv_blur(line, size)[0, 0, 0]
    assert blurred[blurred > 0].tolist() == pytest.approx(weights, abs=1e-7)
    line[..., 7], line[..., 0] = 0, 1
    assert opencv_blur(line, size)[0, 0, 0, 0] == weights[size // 2]  # the edge is mirrored without itself
