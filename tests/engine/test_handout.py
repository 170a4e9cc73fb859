"""Pictures handed out by shape and brought into order again."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from engine.handout import AHEAD, Handout, InOrder, shape_of


@dataclass
class Asked:
    """What of a request the handout looks at."""

    width: int
    count: int
    height: int = 64

    @property
    def final_size(self):
        return self.width, self.height


ASKED = st.lists(st.builds(Asked, st.sampled_from([64, 128, 192]), st.integers(1, 5)), max_size=30)


def taken(handout, shape):
    while (place := handout.take(shape)) is not None:
        yield place


@given(ASKED)
def test_each_picture_is_handed_out_once(asked):
    found = list(taken(Handout(asked), ()))
    assert [(each.request, each.picture) for each in found] == [
        (index, picture) for index, each in enumerate(asked) for picture in range(each.count)
    ]
    assert [each.number for each in found] == list(range(len(found)))


@given(ASKED, st.sampled_from([64, 128]))
def test_nothing_is_handed_out_far_ahead_of_what_waits(asked, width):
    handout = Handout(asked)
    waiting = set(range(sum(each.count for each in asked)))
    for place in taken(handout, (width, 64, width, 64)):
        assert place.number < min(waiting) + AHEAD
        ahead = [n for n in waiting if n < place.number]
        if ahead:  # what is passed over has another shape
            assert shape_of(asked[place.request])[0] == width
        waiting.remove(place.number)
    assert not waiting


def test_two_who_take_turns_keep_a_shape_each():
    asked = [Asked(64, 1), Asked(128, 1)] * 4
    handout = Handout(asked)
    shapes, found = [(), ()], [[], []]
    for turn in range(8):
        place = handout.take(shapes[turn % 2])
        shapes[turn % 2] = shape_of(asked[place.request])
        found[turn % 2].append(place.number)
    assert found == [[0, 2, 4, 6], [1, 3, 5, 7]]
    assert handout.take(()) is None


def test_of_a_request_that_is_dropped_nothing_more_comes():
    handout = Handout([Asked(64, 2), Asked(64, 3), Asked(64, 1)])
    assert [handout.take(()).number for _ in range(3)] == [0, 1, 2]
    assert handout.drop(1) == (3, 4)
    assert [each.number for each in taken(handout, ())] == [5]


@given(st.permutations(range(8)), st.sets(st.integers(0, 7)))
def test_things_come_in_order_whatever_is_left_out(order, left_out):
    line, found = InOrder(), []
    for number in order:
        if number in left_out:
            line.skip([number])
        else:
            line.put(number, str(number))
        found += line.ready()
    assert found == [str(number) for number in range(8) if number not in left_out]


def test_the_rest_is_all_that_is_there_in_order():
    line = InOrder()
    for number in (3, 1):
        line.put(number, number)
    assert list(line.ready()) == []
    assert list(line.rest()) == [1, 3]
    assert list(line.rest()) == []
