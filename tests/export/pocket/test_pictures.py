import numpy as np

from export.pocket import pictures
from export.pocket.pictures import Picture
from export.pocket.words import Vocabulary
from tests.export.pocket.drawn_shelf import icon

WORDS = Vocabulary(
    concepts=("bell", "red-apple", "red-heart"),
    synonyms={},
    held_out=frozenset({("blue", "bell"), ("green", "bell")}),
)


def rows(concept, colour=(220, 40, 40)):
    drawn = icon("disc", colour)
    return [
        row for _, row in pictures._concept_rows(drawn, concept, WORDS, np.random.default_rng(1))
    ]


def test_held_out_colours_are_never_under_a_trained_role():
    got = rows("bell")
    assert got[0] == Picture(concept="bell", role="concept", own="red")
    trained = {row.colour for row in got if row.role == "recoloured"}
    held = {row.colour for row in got if row.role == "held-out"}
    assert held == {"blue", "green"}
    assert not trained & (held | {"red"})
    assert len(trained) >= 3


def test_an_apple_is_never_painted_as_an_icon_that_exists():
    assert not {row.colour for row in rows("red-apple")} & {"red", "green"}


def test_hearts_exist_in_all_colours_and_are_not_painted():
    assert [row.role for row in rows("red-heart")] == ["concept"]


def test_a_grey_icon_is_not_painted():
    assert [row.role for row in rows("bell", (128, 128, 128))] == ["concept"]


def test_the_shelf_says_who_may_see_what(shelf):
    trained = shelf.where("concept", "recoloured")
    assert len(trained) == 8
    assert shelf.rgba.shape[1:] == (128, 128, 4)
    assert not set(trained) & set(shelf.where("held-out", "unseen", "other"))
    assert shelf.vocabulary.tags["bell"] == ("shape", "plain")
