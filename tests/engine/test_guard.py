"""One non-finite value anywhere is found."""

import numpy as np
import pytest

from engine.guard import finite


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [(0, 0, 0, 0), (0, 3, 7, 7), (0, 1, 2, 3)])
def test_a_single_bad_value_is_found(bad, place):
    values = np.zeros((1, 4, 8, 8), dtype=np.float32)
    assert finite(values)
    values[place] = bad
    assert not finite(values)


def test_large_values_and_opposite_infinities_are_told_apart():
    largest = np.full((1, 4, 8, 8), np.finfo(np.float32).max, dtype=np.float32)
    assert finite(largest)  # a sum in fp32 would overflow
    largest[0, 0, 0, :2] = (np.inf, -np.inf)
    assert not finite(largest)
