"""Quantiles of the symmetric beta distribution, in numpy alone: scipy is not worth 100 MB here."""

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["beta_quantile"]

Float64 = NDArray[np.float64]

_TERMS: Final = 60  # of a series whose terms fall at least like 2**-n: below the last bit of 1.0
_HALVINGS: Final = 60


def beta_quantile(probability: Float64, shape: float) -> Float64:
    """Invert the distribution function of Beta(shape, shape), for probabilities f64[n] in 0..1.

    By bisection below one half, where the series converges fast, and by symmetry above.
    """
    upper = probability > 0.5
    target = np.where(upper, 1.0 - probability, probability)
    low, high = np.zeros_like(target), np.full_like(target, 0.5)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        below = _distribution(middle, shape) < target
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    found = np.where(target == 0.0, 0.0, (low + high) / 2)
    return np.where(upper, 1.0 - found, found)


def _distribution(x: Float64, shape: float) -> Float64:
    """Compute I_x(shape, shape) for x up to one half: DLMF 8.17.7 in its power series."""
    n = np.arange(_TERMS)
    binomials = np.cumprod(np.concatenate([[1.0], (n[1:] - shape) / n[1:]]))
    series = x[:, np.newaxis] ** n @ (binomials / (shape + n))
    norm = math.gamma(2 * shape) / math.gamma(shape) ** 2
    return norm * x**shape * series
