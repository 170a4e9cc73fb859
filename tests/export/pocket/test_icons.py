import numpy as np
import pytest

from export.errors import ExportError
from export.pocket.icons import IconSet, rasterise

DOCUMENT = {
    "width": 32,
    "height": 32,
    "icons": {
        "box": {"body": '<path fill="#f00" d="M0 0h32v32h-32z"/>'},
        "tall": {"body": '<path fill="#00f" d="M0 0h32v64h-32z"/>', "height": 64},
        "hand": {"body": ""},
        "hand-medium-light": {"body": ""},
    },
}


def test_skin_tones_are_left_out():
    assert IconSet(DOCUMENT).names == ["box", "hand", "tall"]


def test_an_unknown_icon_is_named():
    with pytest.raises(ExportError, match="no icon 'sun'"):
        IconSet(DOCUMENT).svg("sun")


def test_a_tall_box_is_padded_to_a_square():
    assert 'viewBox="-16.0 0.0 64 64"' in IconSet(DOCUMENT).svg("tall")


def test_a_picture_is_premultiplied_and_padded_with_nothing():
    pytest.importorskip("resvg_py", reason="the rasteriser is in the extra `pocket`")
    drawn = rasterise(IconSet(DOCUMENT).svg("tall"), 64)
    assert drawn.shape == (64, 64, 4)
    np.testing.assert_array_equal(drawn[:, :16], 0)
    assert tuple(drawn[32, 32]) == (0, 0, 255, 255)
