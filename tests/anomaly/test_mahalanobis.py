import pytest
import torch

from common.anomaly import body_region, mahalanobis
from common.errors import InputError


def case(count=6, batch=2, channels=1, size=(7, 9), seed=0):
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(batch, channels, *size, generator=generator)
    factors = torch.randn(count, batch, 3, generator=generator)  # pixels that vary together, and each by itself
    patterns = torch.randn(batch, 3, image[0].numel(), generator=generator)
    noise = torch.randn(count, *image.shape, generator=generator)
    shared = torch.einsum("nbk,bkp->nbp", factors, patterns).reshape(count, *image.shape)
    return image, 0.5 + 0.1 * shared + 0.05 * noise


def dense(image, reconstructions, region, ridge, terms):
    """The definition, with the full covariance of each case's pixels inside the region."""
    result = torch.zeros_like(image[:, :1], dtype=torch.float64)
    for i in range(len(image)):
        inside = (region[i] > 0).expand_as(image[i])
        samples = reconstructions[:, i][:, inside].double()
        offset = image[i][inside].double() - samples.mean(dim=0)
        covariance = torch.cov(samples.T) + ridge * torch.eye(len(offset), dtype=torch.float64)
        if terms == "product":
            shares = torch.linalg.inv(covariance) @ offset * offset
        else:
            values, vectors = torch.linalg.eigh(covariance)
            shares = (vectors @ ((vectors.T @ offset) / values.sqrt())).square()
        full = torch.zeros_like(image[i], dtype=torch.float64)
        full[inside] = shares
        result[i] = full.sum(dim=0, keepdim=True).clamp(min=0).sqrt()
    return result


@pytest.mark.parametrize("terms", ["whitened", "product"])
@pytest.mark.parametrize("ridge", [1e-4, 0.01, 1.0])
@pytest.mark.parametrize(("channels", "size"), [(1, (7, 9)), (2, (4, 5)), (1, (4, 3, 5))], ids=["2d", "2ch", "3d"])
def test_equals_the_dense_inverse(terms, ridge, channels, size):
    image, reconstructions = case(channels=channels, size=size)
    region = torch.rand(2, 1, *size, generator=torch.Generator().manual_seed(1)) > 0.3
    actual = mahalanobis(image, reconstructions, region, ridge=ridge, terms=terms)
    expected = dense(image, reconstructions, region, ridge, terms)
    assert actual.dtype == image.dtype
    torch.testing.assert_close(actual.double(), expected, rtol=1e-5, atol=1e-6)
    assert (actual[~region] == 0).all()
    assert (actual[region] > 0).sum() > 0.4 * region.sum()


def test_shares_sum_to_the_distance_of_the_image():
    image, reconstructions = case()
    samples = reconstructions[:, 0].flatten(1).double()
    offset = image[0].flatten().double() - samples.mean(dim=0)
    covariance = torch.cov(samples.T) + 0.01 * torch.eye(samples.shape[1], dtype=torch.float64)
    whole = float(offset @ torch.linalg.solve(covariance, offset))
    whitened = mahalanobis(image, reconstructions)[0].double()
    assert whitened.square().sum().item() == pytest.approx(whole, rel=1e-5)
    assert (whitened > 0).all()
    product = mahalanobis(image, reconstructions, terms="product")[0]
    assert (product == 0).any()  # negative shares, which are lost


def test_pixels_that_vary_count_less_and_a_lesion_stands_out():
    generator = torch.Generator().manual_seed(0)
    reconstructions = 0.5 + 0.01 * torch.randn(10, 1, 1, 16, 16, generator=generator)
    reconstructions[..., :8] += 0.3 * torch.randn(10, 1, 1, 16, 1, generator=generator)
    image = reconstructions.mean(dim=0)
    image[..., 4, 4] += 0.2
    image[..., 4, 12] += 0.2
    distance = mahalanobis(image, reconstructions)[0, 0]
    assert distance[4, 12] > 1.5
    assert distance[4, 12] > distance[4, 4] > 0.5 * distance[4, 12]  # alone it is odd even where a row moves together
    moved = reconstructions.mean(dim=0)
    moved[..., 4, :8] += 0.2  # as the reconstructions do
    assert mahalanobis(moved, reconstructions)[0, 0, 4, :8].max() < 0.5 * distance[4, 4]


@pytest.mark.parametrize("terms", ["whitened", "product"])
def test_never_anything_but_a_number(terms):
    image = torch.rand(2, 1, 5, 5)
    for reconstructions in (
        image.expand(4, -1, -1, -1, -1),  # no difference at all
        torch.zeros(4, 2, 1, 5, 5),
        1e6 * torch.rand(4, 2, 1, 5, 5),
        1e-30 * torch.rand(2, 2, 1, 5, 5),
    ):
        for region in (None, torch.zeros(2, 1, 5, 5)):
            distance = mahalanobis(image, reconstructions, region, terms=terms)
            assert torch.isfinite(distance).all()
            assert (distance >= 0).all()
    assert (mahalanobis(image, image.expand(4, -1, -1, -1, -1), terms=terms) < 1e-6).all()


def test_cases_do_not_see_each_other():
    image, reconstructions = case(batch=3)
    whole = mahalanobis(image, reconstructions)
    torch.testing.assert_close(mahalanobis(image[[1]], reconstructions[:, [1]]), whole[[1]])


def test_order_of_reconstructions_does_not_matter():
    image, reconstructions = case()
    torch.testing.assert_close(mahalanobis(image, reconstructions.flip(0)), mahalanobis(image, reconstructions))


def test_impossible_options_are_refused():
    image, reconstructions = case()
    with pytest.raises(InputError, match="at least 2"):
        mahalanobis(image, reconstructions[:1])
    with pytest.raises(InputError, match="ridge"):
        mahalanobis(image, reconstructions, ridge=0)
    with pytest.raises(InputError, match="terms"):
        mahalanobis(image, reconstructions, terms="root")  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(20, 24), (20, 22, 24)], ids=["2d", "3d"])
def test_region_closes_holes_and_leaves_the_margin(size):
    image = torch.zeros(2, 2, *size)
    body, ventricle = (torch.zeros(size) for _ in range(2))
    body[tuple(slice(2, length - 3) for length in size)] = 1
    ventricle[tuple(slice(8, 13) for _ in size)] = 1
    image[:, 1] = 0.5 * body * (1 - ventricle)
    region = body_region(image)
    assert region.dtype == torch.bool
    assert torch.equal(region, body.bool().expand(2, 1, *size))
