"""Statistics against numbers that can be had by hand."""

import math

import numpy as np
import pytest

from benchmarks.spread import noise, outliers, quantile, ratio_interval, variation
from tests.benchmarks.made_results import samples


def test_quantiles_and_variation():
    assert quantile([1, 2, 3, 4, 5], 0.5) == 3
    assert quantile([1, 2], 0.9) == pytest.approx(1.9)
    assert variation([9.0, 10.0, 11.0]) == pytest.approx(0.1)
    assert variation([3.0]) == 0


def test_modified_z_scores_find_the_one_that_is_far():
    assert outliers([1.0, 1.01, 0.99, 1.02, 0.98, 3.0]) == [False] * 5 + [True]
    assert outliers([1.0] * 9 + [5.0]) == [False] * 9 + [True]  # the median deviation is 0
    assert outliers([1.0] * 6) == [False] * 6
    assert outliers([1.0, 1.0, 9.0]) == [False] * 3  # of three nothing can be said


def test_the_bound_is_the_published_one():
    """Median 0, median deviation 1: 0.6745 x / 1 > 3.5 begins at 5.19."""
    base = [-2.0, -1.0, 0.0, 1.0, 2.0]
    assert outliers([*base, 5.0])[-1] is False
    far = [*base, -9.0, 9.0]  # the median stays 0, the median deviation is 2
    assert outliers(far) == [False] * 7
    assert outliers([*base, -10.5, 10.5])[-2:] == [True, True]


def test_noise_leaves_outliers_out():
    quiet = samples(1.0, 0.01)
    assert noise([*quiet, 50.0]) == pytest.approx(noise(quiet), rel=0.2)
    assert variation([*quiet, 50.0]) > 1


def test_the_interval_holds_the_true_ratio_and_is_the_same_every_time():
    before, after = samples(1.0, 0.02), samples(1.1, 0.02, seed=1)
    low, high = ratio_interval(before, after)
    assert low < 1.1 < high
    assert high - low < 0.05
    assert ratio_interval(before, after) == (low, high)
    assert ratio_interval([1.0, 1.0], after) == (0.0, math.inf)


def test_the_interval_keeps_its_promise():
    """Of equal machines 95 % of intervals hold 1; a percentile bootstrap comes near."""
    held = 0
    for seed in range(100):
        draw = np.random.default_rng(seed)
        one, other = (list(1 + 0.05 * draw.standard_normal(20)) for _ in range(2))
        low, high = ratio_interval(one, other)
        held += low <= 1 <= high
    assert held >= 88
