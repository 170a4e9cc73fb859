import numpy as np
import pytest

from export.pocket.icons import composite
from export.pocket.measures import Gallery, accuracy, fidelity, model_concepts, spaces, whiteness


@pytest.fixture(scope="module")
def fitted(shelf):
    return spaces(shelf, 1)


def gallery(fitted, shelf, space="full", roles=("concept",)):
    return Gallery.hang(fitted[space], shelf, shelf.where(*roles))


def test_disturbed_icons_are_named(fitted, shelf):
    assert accuracy(gallery(fitted, shelf), shelf, shelf.where("concept"), 3) == 1.0


def test_mirrored_icons_are_named(fitted, shelf):
    rows = shelf.where("concept")
    mirrored = composite(shelf.rgba[rows])[:, :, ::-1]
    found, far = gallery(fitted, shelf).nearest(np.ascontiguousarray(mirrored))
    assert found.tolist() == rows
    assert far.max() < 1e-3


def test_shape_sees_through_colour_and_colour_does_not(fitted, shelf):
    held = composite(shelf.rgba[shelf.where("held-out")])
    found, _ = gallery(fitted, shelf, "shape").nearest(held)
    assert shelf.rows[found[0]].concept == "butterfly"
    same = [i for i, row in enumerate(shelf.rows) if row.concept == "butterfly"]
    hues, _ = Gallery.hang(fitted["colour"], shelf, same).nearest(held)
    assert shelf.rows[hues[0]].colour == "purple"


def test_a_blank_picture_is_near_nothing(fitted, shelf):
    blank = np.full((1, 128, 128, 3), 255, np.uint8)
    _, far = gallery(fitted, shelf).nearest(blank)
    assert far[0] > 0.2


def test_psnr_is_its_definition():
    a = np.full((2, 4, 4, 3), 100, np.uint8)
    b = a.copy()
    b[0] += 10
    got = fidelity(a[:1], b[:1])
    assert got["psnr_mean"] == got["psnr_of_mean"] == pytest.approx(28.131, abs=1e-3)
    assert fidelity(a, b)["psnr_of_mean"] == pytest.approx(31.14, abs=0.01)


def test_whiteness_looks_at_the_corners_alone():
    pictures = np.full((2, 128, 128, 3), 255, np.uint8)
    pictures[0, 40:80, 40:80] = 0
    pictures[1, :10, :10] = 247
    np.testing.assert_allclose(whiteness(pictures), [0.0, 2.0])


def test_a_folder_is_asked_only_for_what_it_says_it_can_draw(shelf, tmp_path):
    assert len(model_concepts(tmp_path, shelf)) == 4
    (tmp_path / "concepts.txt").write_text("bell unknown-thing crocodile\n")
    assert model_concepts(tmp_path, shelf) == ["bell", "crocodile"]
