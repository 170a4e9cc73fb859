import numpy as np
import pytest

from export.pocket.colours import BACKGROUNDS
from export.pocket.icons import composite
from export.pocket.placement import (
    Placement,
    beside,
    compose,
    place,
    random_background,
    random_placement,
)
from tests.export.pocket.drawn_shelf import icon


@pytest.fixture
def dot():
    rgba = np.zeros((128, 128, 4), np.uint8)
    rgba[60:64, 20:24] = (200, 100, 50, 255)
    return rgba


def test_unmoved_is_unchanged(dot):
    np.testing.assert_array_equal(place(dot, Placement()), dot)


def test_a_shift_moves_right_and_down(dot):
    moved = place(dot, Placement(right=3, down=-2))
    np.testing.assert_array_equal(moved[58:62, 23:27], dot[60:64, 20:24])
    assert moved.sum() == dot.sum()


def test_a_flip_mirrors(dot):
    np.testing.assert_array_equal(place(dot, Placement(flip=True)), dot[:, ::-1])


def test_smaller_keeps_the_middle_and_never_glows():
    rgba = icon("disc", (220, 40, 40))
    small = place(rgba, Placement(scale=0.8))
    area = (small[..., 3] > 127).sum() / (rgba[..., 3] > 127).sum()
    assert area == pytest.approx(0.64, abs=0.03)
    assert small[64, 64, 3] == 255
    assert (small[..., :3] <= small[..., 3:]).all()


def test_placements_stay_within_their_bounds():
    rng = np.random.default_rng(1)
    drawn = [random_placement(rng, shift=3, smallest=0.9, flips=False) for _ in range(300)]
    assert not any(p.flip for p in drawn)
    assert {p.right for p in drawn} == {-3, -2, -1, 0, 1, 2, 3}
    assert min(p.scale for p in drawn) >= 0.9
    assert 60 < sum(p.scale == 1.0 for p in drawn) < 180


def test_two_icons_lie_side_by_side():
    both = composite(beside(icon("disc", (255, 0, 0)), icon("square", (0, 0, 255))))
    assert tuple(both[64, 32]) == (255, 0, 0)
    assert tuple(both[64, 96]) == (0, 0, 255)
    assert (both[:30] == 255).all()


def test_a_background_fills_what_is_empty(dot):
    picture = compose(dot, "blue")
    assert tuple(picture[0, 0]) == BACKGROUNDS["blue"]
    assert tuple(picture[61, 21]) == (200, 100, 50)
    assert random_background(np.random.default_rng(1)) in BACKGROUNDS


def test_half_covered_edges_blend():
    rgba = np.zeros((2, 2, 4), np.uint8)
    rgba[0, 0] = (100, 0, 0, 128)
    assert tuple(composite(rgba)[0, 0]) == (227, 127, 127)
