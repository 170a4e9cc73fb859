"""What is painted on: files and records, sizes, and what is refused."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from engine.inputs import Inputs
from safelight.canvas import Canvas, open_canvas, open_picture
from safelight.exits import UsageError

MODEL = SimpleNamespace(default_width=512, default_height=512)


def saved(path, size, mode="RGB", fill=200):
    Image.new(mode, size, fill if mode == "L" else (fill, 10, 90)).save(path)
    return path


def canvas(width, height, *, mask=False):
    init = np.zeros((height, width, 3), np.uint8)
    init[:, : width // 2] = 255
    area = np.zeros((height, width), np.uint8)
    area[: height // 2] = 255
    return Canvas(init, area if mask else None, "")


@pytest.mark.parametrize(
    ("size", "expected"),
    [((512, 512), (512, 512)), ((4000, 3000), (576, 448)), ((100, 300), (320, 896))],
    ids=["own", "photograph", "tall"],
)
def test_without_a_size_the_area_is_the_models_and_the_proportion_stays(size, expected):
    inputs, found = canvas(*size, mask=True).fitted(Inputs(), {}, MODEL)
    assert (found["width"], found["height"]) == expected
    assert inputs.init.shape == (*expected[::-1], 3)
    assert inputs.mask.shape == expected[::-1]
    assert set(np.unique(inputs.mask)) == {0, 255}


def test_a_side_that_is_given_stays_and_the_other_follows():
    inputs, found = canvas(400, 300).fitted(Inputs(), {"width": 320, "height": None}, MODEL)
    assert found == {"width": 320, "height": 240}
    assert inputs.init.shape == (240, 320, 3)
    assert not inputs.mask.size


def test_nothing_is_stretched():
    with pytest.raises(UsageError, match="another proportion than 256x128"):
        canvas(128, 128).fitted(Inputs(), {"width": 256, "height": 128}, MODEL)


@pytest.mark.parametrize(
    ("size", "given", "message"),
    [
        ((64, 64), {"width": 100_000}, "a width of 100000 pixels; 8 to 8192 can be drawn"),
        ((64, 64), {"height": 10**400}, "a height of 10"),
        ((64, 64), {"width": -8}, "a width of -8"),
        ((64, 640), {"width": 1024}, "a height of 10240"),
        ((4, 20_000), {}, "a height of 36224"),
    ],
    ids=["wide", "huge", "negative", "follows", "own"],
)
def test_a_size_that_cannot_be_drawn_is_refused_before_anything_is_resized(size, given, message):
    with pytest.raises(UsageError, match=message):
        canvas(*size).fitted(Inputs(), given, MODEL)


def test_the_largest_size_can_be_drawn():
    _, found = canvas(8, 1).fitted(Inputs(), {"width": 8192, "height": None}, MODEL)
    assert found == {"width": 8192, "height": 1024}


def test_a_mask_is_of_the_pictures_size_and_needs_one(tmp_path):
    init = saved(tmp_path / "a.png", (64, 48))
    with pytest.raises(UsageError, match="the mask has 32x48 pixels and the picture 64x48"):
        open_canvas(str(init), saved(tmp_path / "m.png", (32, 48), "L"), None)
    with pytest.raises(UsageError, match="give both"):
        open_canvas(None, tmp_path / "m.png", None)
    found = open_canvas(str(init), saved(tmp_path / "n.png", (64, 48), "L", 255), None)
    assert found.mask.min() == 255
    assert found.parent == ""
    assert open_canvas(None, None, None) is None


def test_what_is_neither_file_nor_id_is_said_so():
    with pytest.raises(UsageError, match=r"'gone\.png' is neither a file nor"):
        open_picture("some/where/gone.png", SimpleNamespace())
