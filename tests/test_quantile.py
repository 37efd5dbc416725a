"""Quantiles are NumPy's, of each case by itself, and of tensors that torch.quantile is too small for."""

import numpy as np
import pytest
import torch

from common.quantile import quantile


@pytest.mark.parametrize("q", [0.0, 0.5, 0.95, 1.0])
@pytest.mark.parametrize("start_dim", [0, 1, 2])
def test_is_that_of_numpy(q, start_dim):
    values = torch.rand(3, 2, 7, 5, generator=torch.Generator().manual_seed(0))
    expected = np.quantile(values.flatten(start_dim).numpy(), q, axis=-1)
    found = quantile(values, q, start_dim)
    assert found.shape == (*values.shape[:start_dim], *(1,) * (4 - start_dim))
    np.testing.assert_allclose(found.numpy().reshape(expected.shape), expected, atol=1e-6)


def test_takes_more_values_than_torch():
    values = torch.arange(2**24 + 2, dtype=torch.float64)[None]
    with pytest.raises(RuntimeError, match="too large"):
        torch.quantile(values, 0.5)
    assert quantile(values, 0.5).item() == 2**23 + 0.5
