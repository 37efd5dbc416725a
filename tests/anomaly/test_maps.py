import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.stats import hmean
from skimage.restoration import denoise_tv_chambolle
from sklearn.metrics import average_precision_score

from common.anomaly import (
    FeatureDistance,
    LpipsDistance,
    get_map,
    harmonic_mean,
    residual,
    smooth_residual,
    tv_residual,
)
from common.anomaly.filters import dilate, gaussian_smooth, grey_closing, tv_denoise
from common.errors import InputError

SHAPES = [(2, 1, 24, 20), (2, 1, 12, 10, 8)]


def rand(shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", SHAPES, ids=["2d", "3d"])
@pytest.mark.parametrize("name", ["residual", "squared", "ssim", "residual*ssim", "residual_tv"])
def test_maps_are_finite_not_negative_and_zero_for_equal_images(name, shape):
    a, b = rand(shape), rand(shape, 1)
    result = get_map(name)(a, b)
    assert result.shape == a.shape
    assert torch.isfinite(result).all()
    assert (result >= 0).all()
    assert result.max() > 0
    assert get_map(name)(a, a).abs().max() < 1e-6


def test_maps_are_not_scaled_by_the_image():
    a, b = rand(SHAPES[0]), rand(SHAPES[0], 1)
    half = a + (b - a) / 2
    torch.testing.assert_close(residual(a, half), residual(a, b) / 2)


def test_product_is_the_product():
    a, b = rand(SHAPES[0]), rand(SHAPES[0], 1)
    assert torch.equal(get_map("residual*squared")(a, b), get_map("residual")(a, b) * get_map("squared")(a, b))


def test_polarity_splits_the_residual():
    a, b = rand(SHAPES[0]), rand(SHAPES[0], 1)
    bright, dark = residual(a, b, "bright"), residual(a, b, "dark")
    torch.testing.assert_close(bright + dark, residual(a, b))
    assert (bright[a <= b] == 0).all()
    assert (dark[a >= b] == 0).all()
    with pytest.raises(InputError, match="polarity"):
        residual(a, b, "up")  # type: ignore[arg-type]


def test_channels_are_averaged():
    a, b = rand((1, 3, 8, 8)), rand((1, 3, 8, 8), 1)
    torch.testing.assert_close(residual(a, b)[:, 0], (a - b).abs().mean(dim=1))


def test_unknown_map_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match=r"residuum.*residual"):
        get_map("residuum")


def test_harmonic_mean_is_scipys():
    maps = [rand(SHAPES[0], seed) for seed in range(4)]
    expected = hmean(np.stack([each.numpy() for each in maps]), axis=0)
    np.testing.assert_allclose(harmonic_mean(maps).numpy(), expected, rtol=1e-5)
    maps[1][0, 0, 3, 4] = 0
    assert harmonic_mean(maps)[0, 0, 3, 4] == 0
    assert torch.isfinite(harmonic_mean(maps)).all()


@pytest.mark.parametrize("shape", SHAPES, ids=["2d", "3d"])
def test_filters_are_scipys(shape):
    x = rand(shape)
    for case in range(shape[0]):
        image = x[case, 0].numpy()
        size = 5
        np.testing.assert_allclose(
            gaussian_smooth(x, 2.0)[case, 0].numpy(), ndimage.gaussian_filter(image, 2.0), atol=2e-6
        )
        np.testing.assert_array_equal(
            dilate(x, size)[case, 0].numpy(), ndimage.grey_dilation(image, size=size, mode="nearest")
        )
        np.testing.assert_array_equal(
            grey_closing(x, size)[case, 0].numpy(), ndimage.grey_closing(image, size=size, mode="nearest")
        )


def test_cases_do_not_see_each_other():
    x = rand(SHAPES[0])
    for function in (lambda y: gaussian_smooth(y, 2.0), lambda y: grey_closing(y, 5)):
        torch.testing.assert_close(function(x)[1:], function(x[1:]))


def test_feature_distance_grows_with_the_change():
    kernel = torch.randn(8, 1, 3, 3, generator=torch.Generator().manual_seed(0))

    def features(x, timesteps):
        assert timesteps.shape == (x.shape[0],)
        return [torch.nn.functional.conv2d(x, kernel), torch.nn.functional.conv2d(x, kernel, stride=2)]

    a, b = rand(SHAPES[0]), rand(SHAPES[0], 1)
    distance = FeatureDistance(features)
    small, large = distance(a, a + 0.1 * (b - a)), distance(a, b)
    assert small.shape == a.shape
    assert distance(a, a).abs().max() == 0
    assert 0 < small.mean() < large.mean()
    assert large.max() <= 4

    def twice(x, timesteps):
        assert set(timesteps.tolist()) == {7}
        return 2 * features(x, timesteps)[:1]

    once = FeatureDistance(lambda x, t: features(x, t)[:1])
    torch.testing.assert_close(FeatureDistance(twice, level=7)(a, b), once(a, b))  # the mean over levels


def test_features_of_the_same_image_are_computed_once():
    a, b, c = (rand(SHAPES[0], seed) for seed in range(3))
    seen = []

    def features(x, timesteps):
        seen.append(x)
        return [torch.cat([x, x.square()], dim=1)]

    distance = FeatureDistance(features)
    first, second, other = distance(a, b), distance(a, c), distance(c, a)
    assert len(seen) == 2 + 1 + 2
    torch.testing.assert_close(other, second)  # a distance is symmetric, so nothing of `a` was used for `c`
    assert not torch.allclose(first, second)
    torch.testing.assert_close(first, FeatureDistance(features)(a, b))


def test_lpips_says_what_is_missing():
    with pytest.raises(InputError, match="feature"):
        LpipsDistance()


def test_smoothing_cancels_errors_of_both_signs_and_keeps_lesions():
    healthy = torch.full((1, 1, 20, 20), 0.5)
    checkers = 0.1 * (-1.0) ** (torch.arange(20)[:, None] + torch.arange(20))
    noisy = smooth_residual(healthy + checkers, healthy)
    assert float(noisy[..., 4:-4, 4:-4].max()) < 0.002  # at the border the mirrored half is of one sign
    lesion = torch.zeros(20, 20)
    lesion[5:15, 5:15] = -0.1
    found = smooth_residual(healthy + checkers + lesion, healthy)
    assert float(found[0, 0, 10, 10]) == pytest.approx(0.1, abs=0.005)
    assert float(found[0, 0, 0, 10]) < 0.01


@pytest.mark.parametrize("shape", SHAPES, ids=["2d", "3d"])
@pytest.mark.parametrize("weight", [0.05, 0.3])
def test_total_variation_agrees_with_scikit_image(shape, weight):
    noisy = rand(shape) + (rand(shape, 1) > 0.5)
    expected = [denoise_tv_chambolle(each[0].double().numpy(), weight, eps=0, max_num_iter=3000) for each in noisy]
    difference = tv_denoise(noisy, weight, iterations=300)[:, 0].numpy() - np.stack(expected)
    assert np.abs(difference).max() < 0.01 * weight
    coarse = tv_denoise(noisy, weight)[:, 0].numpy() - np.stack(expected)
    assert np.abs(coarse).mean() < 0.01 * weight
    assert tv_denoise(noisy, 0) is noisy


def test_total_variation_keeps_a_lesion_and_takes_the_noise():
    healthy = torch.full((1, 1, 64, 64), 0.5)
    image = healthy + 0.1 * torch.randn(healthy.shape, generator=torch.Generator().manual_seed(0))
    image[..., 20:36, 20:36] += 0.3
    found = tv_residual(image, healthy, "bright")[0, 0]
    lesion = torch.zeros(64, 64, dtype=torch.bool)
    lesion[20:36, 20:36] = True
    worst = residual(image, healthy, "bright")[0, 0]
    precise, noisy = (average_precision_score(lesion.flatten(), each.flatten()) for each in (found, worst))
    assert precise > 0.99 > 0.95 > noisy
    assert found[lesion].mean() > 10 * found[~lesion].mean()
    assert tv_residual(image, healthy, "dark")[0, 0][lesion].max() < 0.05


def test_total_variation_lets_gradients_through_where_nothing_is_to_be_done():
    flat = torch.zeros(1, 1, 8, 8, requires_grad=True)
    tv_denoise(flat, 0.15).square().sum().backward()
    assert flat.grad is not None
    assert torch.isfinite(flat.grad).all()
    noisy = rand((1, 1, 8, 8)).requires_grad_()
    tv_denoise(noisy, 0.05).square().sum().backward()
    assert noisy.grad is not None
    assert torch.isfinite(noisy.grad).all()
    assert noisy.grad.abs().max() > 0
