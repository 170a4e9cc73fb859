"""Quantiles of the beta distribution against scipy."""

import numpy as np
import pytest
from scipy.stats import beta

from engine.beta import beta_quantile


@pytest.mark.parametrize("shape", [0.3, 0.6, 1.0, 2.5])
def test_quantiles_equal_scipys(shape):
    probability = np.concatenate([np.linspace(0, 1, 501), [1e-12, 1e-6, 1 - 1e-6]])
    got = beta_quantile(probability, shape)
    np.testing.assert_allclose(got, beta.ppf(probability, shape, shape), rtol=1e-9, atol=1e-14)


def test_the_ends_are_exact():
    assert beta_quantile(np.array([0.0, 1.0]), 0.6).tolist() == [0.0, 1.0]
