"""A drifting picture fails, rounding passes, and each precision has its own bound."""

import numpy as np
import pytest

from benchmarks.gate import BOUNDS, judge


def pictures(count=2, seed=0):
    draw = np.random.default_rng(seed)
    smooth = draw.integers(0, 256, (count, 4, 4, 3)).repeat(16, axis=1).repeat(16, axis=2)
    return list(smooth.astype(np.uint8))


def shaken(which, deviation):
    draw = np.random.default_rng(9)
    moved = [each + deviation * draw.standard_normal(each.shape) for each in which]
    return [np.clip(np.round(each), 0, 255).astype(np.uint8) for each in moved]


def test_equal_pictures_pass():
    assert judge(pictures(), pictures(), "fp32", random=False).passed


def test_the_worst_picture_decides():
    drifted = pictures()
    drifted[1] = pictures(seed=5)[1]
    found = judge(drifted, pictures(), "bf16", random=False)
    assert not found.passed
    assert found.psnr < 20
    assert found.pictures == 2


@pytest.mark.parametrize(
    ("precision", "deviation", "passed"),
    [
        ("fp32", 0.4, True),
        ("fp32", 3.0, False),
        ("bf16", 3.0, True),
        ("bf16", 9.0, False),
        ("unheard of", 3.0, False),  # an unknown precision is held to fp32's bound
    ],
)
def test_each_precision_has_its_bound(precision, deviation, passed):
    found = judge(shaken(pictures(), deviation), pictures(), precision, random=False)
    assert found.passed is passed


def test_random_weights_are_allowed_more_and_nothing_else_is():
    loose = judge(shaken(pictures(), 6.0), pictures(), "bf16", random=True)
    assert loose.passed
    assert loose.bound.psnr == BOUNDS["bf16"].psnr - 12
    assert not judge(pictures(seed=5), pictures(), "bf16", random=True).passed


def test_a_picture_of_another_size_is_no_likeness():
    small = [each[:32] for each in pictures()]
    assert not judge(small, pictures(), "bf16", random=False).passed
