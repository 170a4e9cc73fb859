import numpy as np
import pytest

from export.pocket.colours import (
    BACKGROUNDS,
    TARGETS,
    dominant,
    from_oklab,
    hue_distance,
    name_colour,
    recolour,
    to_oklab,
)


def test_known_colours_lie_where_their_author_says():
    rgb = np.array([[1, 1, 1], [1, 0, 0], [0, 0, 1], [0, 0, 0]], np.float32)
    expected = [[1, 0, 0], [0.628, 0.225, 0.126], [0.452, -0.032, -0.312], [0, 0, 0]]
    np.testing.assert_allclose(to_oklab(rgb), expected, atol=2e-3)


def test_there_and_back_is_the_same():
    rgb = np.random.default_rng(1).random((50, 3), dtype=np.float32)
    np.testing.assert_allclose(from_oklab(to_oklab(rgb)), rgb, atol=2e-3)


def picture(colour):
    """A square of one colour with a grey stripe, over nothing."""
    rgb = np.zeros((32, 32, 3), np.float32)
    alpha = np.zeros((32, 32), np.float32)
    rgb[4:28, 4:28], alpha[4:28, 4:28] = colour, 1.0
    rgb[12:16, 4:28] = 0.5
    return rgb, alpha


@pytest.mark.parametrize("target", sorted(TARGETS))
@pytest.mark.parametrize("colour", [(0.9, 0.2, 0.2), (0.2, 0.4, 0.9), (0.95, 0.8, 0.1)])
def test_a_recoloured_icon_has_the_colours_name_and_keeps_its_greys(colour, target):
    rgb, alpha = picture(colour)
    out = recolour(rgb, alpha, target)
    share, lightness, chroma, hue = dominant(out, alpha)
    assert share > 0.7
    assert hue_distance(hue, TARGETS[target][2]) < 12
    assert name_colour(lightness, chroma, hue) == target
    np.testing.assert_allclose(out[12:16, 4:28], 0.5, atol=4e-3)


def test_shading_stays():
    rgb, alpha = picture((0.9, 0.2, 0.2))
    rgb[20:28, 4:28] *= 0.6
    lab = to_oklab(recolour(rgb, alpha, "blue"))
    assert lab[5, 5, 0] > lab[24, 5, 0] + 0.1


def test_a_grey_icon_has_no_colour():
    rgb, alpha = picture((0.6, 0.6, 0.6))
    assert dominant(rgb, alpha)[0] == 0.0
    assert name_colour(0.5, 0.0, 0.0) == ""


def test_an_empty_icon_has_no_colour():
    assert dominant(np.zeros((4, 4, 3), np.float32), np.zeros((4, 4), np.float32))[0] == 0.0


def test_hues_wrap_round():
    assert hue_distance(350.0, 10.0) == pytest.approx(20.0)


def test_backgrounds_are_no_white():
    assert all(min(colour) <= 200 for colour in BACKGROUNDS.values())
