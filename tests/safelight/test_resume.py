"""Which line of a file is which: what its mark follows from, and what leaves it as it was."""

import pytest

from engine.inputs import NO_INPUTS
from safelight.resume import marks_of

ORDERS = [{"prompt": "red apple"}, {"prompt": "snail", "seed": 3}, {"prompt": "red apple"}]
GIVEN = {"steps": 4, "count": 2, "width": None}


def marks(orders=ORDERS, given=GIVEN, model="a model", beside=None):
    return marks_of(orders, given, model, NO_INPUTS, beside or [{}] * len(orders))


def test_marks_of_plain_lines_outlive_versions():
    # As they were before bundles beside the model were looked at: records hold them.
    assert marks() == [1911045169917098832, 3852946770562151307, 5169626683993679753]


@pytest.mark.parametrize(
    "other", [{"given": GIVEN | {"steps": 5}}, {"model": "another"}], ids=["option", "model"]
)
def test_what_every_line_is_drawn_with_is_part_of_all_marks(other):
    assert not set(marks()) & set(marks(**other))


def test_another_bundle_beside_makes_another_line_of_those_alone_that_name_it():
    before, after = (
        marks(beside=[{}, {"finish": each}, {"finish": each, "up": "c"}]) for each in ("a", "b")
    )
    assert before[0] == after[0] == marks()[0]
    assert len({*before, *after}) == 5
    assert before == marks(beside=[{}, {"finish": "a"}, {"up": "c", "finish": "a"}])


def test_how_many_pictures_are_asked_for_leaves_a_line_the_same():
    assert marks(given=GIVEN | {"count": 9, "batch_size": 4}) == marks()
