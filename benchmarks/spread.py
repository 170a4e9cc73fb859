"""What samples say: quantiles, how noisy they are, and whether two of them differ beyond noise."""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["NOISY", "noise", "outliers", "quantile", "ratio_interval", "variation"]

NOISY: Final = 0.025  # coefficient of variation above which a figure is flagged
# Iglewicz and Hoaglin, How to Detect and Handle Outliers (1993): modified Z-score and its bound.
# Of normal samples 1.4826 times the median deviation is the standard deviation, and 1.2533 times
# the mean one, which serves where half of all samples are equal.
OF_MEDIAN: Final = 1.4826
OF_MEAN: Final = 1.2533
BOUND: Final = 3.5
FEWEST: Final = 5  # samples among which one can be called an outlier
RESAMPLES: Final = 2000
LEVEL: Final = 0.95  # of the interval of a ratio

Float64 = NDArray[np.float64]


def quantile(samples: Sequence[float], share: float) -> float:
    """Give the quantile of `share` (0 to 1), linear between neighbours, in the samples' unit."""
    return float(np.quantile(np.asarray(samples, np.float64), share))


def variation(samples: Sequence[float]) -> float:
    """Give the coefficient of variation, standard deviation over mean; 0 for one sample."""
    if len(samples) < 2:
        return 0.0
    values = np.asarray(samples, np.float64)
    mean = float(values.mean())
    return float(values.std(ddof=1)) / mean if mean else 0.0


def outliers(samples: Sequence[float]) -> list[bool]:
    """Say of each sample whether its modified Z-score, by the median deviation, is above 3.5."""
    if len(samples) < FEWEST:
        return [False] * len(samples)
    values = np.asarray(samples, np.float64)
    away = np.abs(values - np.median(values))
    deviation = OF_MEDIAN * float(np.median(away)) or OF_MEAN * float(away.mean())
    return [bool(each) for each in away > BOUND * deviation] if deviation else [False] * len(away)


def noise(samples: Sequence[float]) -> float:
    """Give the coefficient of variation of what is no outlier: the spread of an ordinary call."""
    kept = [each for each, far in zip(samples, outliers(samples), strict=True) if not far]
    return variation(kept)


def ratio_interval(before: Sequence[float], after: Sequence[float]) -> tuple[float, float]:
    """Give the 95 % interval of median(after) / median(before) by a seeded percentile bootstrap.

    Fewer than three samples on either side say nothing of spread: the interval is then everything.
    """
    if min(len(before), len(after)) < 3:
        return 0.0, math.inf
    draw = np.random.default_rng(0)
    tops = np.median(_resampled(draw, after), axis=1)
    ratios = tops / np.median(_resampled(draw, before), axis=1)
    edge = (1.0 - LEVEL) / 2
    low, high = np.quantile(ratios, (edge, 1.0 - edge))
    return float(low), float(high)


def _resampled(draw: np.random.Generator, samples: Sequence[float]) -> Float64:
    values = np.asarray(samples, np.float64)
    return values[draw.integers(0, len(values), (RESAMPLES, len(values)))]
