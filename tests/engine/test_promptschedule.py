r"""Prompts that change: the web interface's examples, its rules on random trees, hostile text."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import RequestError
from engine.promptschedule import MAX_CHANGES, read_schedule


def texts(prompt, steps=10):
    """Give [last step, text] pairs, counting steps from 1, as AUTOMATIC1111's doctests print it."""
    schedule = read_schedule(prompt)
    found = []
    for step in range(steps):
        now = prompt if schedule is None else schedule.at(step, steps)
        if found and found[-1][1] == now:
            found[-1][0] = step + 1
        else:
            found.append([step + 1, now])
    return found


@pytest.mark.parametrize(
    ("prompt", "wanted"),
    [
        ("test", [[10, "test"]]),
        ("a [b:3]", [[3, "a "], [10, "a b"]]),
        ("a [b: 3]", [[3, "a "], [10, "a b"]]),
        ("a [[[b]]:2]", [[2, "a "], [10, "a [[b]]"]]),
        ("[(a:2):3]", [[3, ""], [10, "(a:2)"]]),
        ("a [b : c : 1] d", [[1, "a b  d"], [10, "a  c  d"]]),
        ("a[b:[c:d:2]:1]e", [[1, "abe"], [2, "ace"], [10, "ade"]]),
        ("a [unbalanced", [[10, "a [unbalanced"]]),
        ("a [b:.5] c", [[5, "a  c"], [10, "a b c"]]),
        ("a [{b|d{:.5] c", [[5, "a  c"], [10, "a {b|d{ c"]]),
        ("((a][:b:c [d:3]", [[3, "((a][:b:c "], [10, "((a][:b:c d"]]),
        ("[a|(b:1.1)]", [[n, ("a", "(b:1.1)")[(n - 1) % 2]] for n in range(1, 11)]),
        ("[fe|]male", [[n, ("female", "male")[(n - 1) % 2]] for n in range(1, 11)]),
        (
            "[fe|||]male",
            [[1, "female"], [4, "male"], [5, "female"], [8, "male"], [9, "female"], [10, "male"]],
        ),
        ("[in:out:0.35]", [[3, "in"], [10, "out"]]),
        ("[gone::4]", [[4, "gone"], [10, ""]]),
    ],
)
def test_examples_of_the_web_interface(prompt, wanted):
    assert texts(prompt) == wanted


def test_its_long_example():
    prompt = (
        "fantasy landscape with a [mountain:lake:0.25] and [an oak:a christmas tree:0.75]"
        "[ in foreground::0.6][: in background:0.25] [shoddy:masterful:0.5]"
    )
    start = "fantasy landscape with a "
    assert texts(prompt, 100) == [
        [25, start + "mountain and an oak in foreground shoddy"],
        [50, start + "lake and an oak in foreground in background shoddy"],
        [60, start + "lake and an oak in foreground in background masterful"],
        [75, start + "lake and an oak in background masterful"],
        [100, start + "lake and a christmas tree in background masterful"],
    ]


@pytest.mark.parametrize(
    ("when", "steps", "before"),
    [
        ("3", 10, 3),
        ("0", 10, 0),
        ("-2", 10, 0),
        ("30", 10, 10),
        ("0.5", 9, 4),  # 4.5 is cut, not rounded
        (".5", 9, 4),
        ("1.0", 8, 8),  # with a point it is a part: all of them
        ("1.", 8, 8),
        ("1", 8, 1),
        ("9" * 400, 8, 8),
        ("9" * 400 + ".", 8, 8),
    ],
)
def test_a_number_is_a_step_and_with_a_point_a_part_of_all_steps(when, steps, before):
    schedule = read_schedule(f"[a:b:{when}]")
    assert [schedule.at(step, steps) for step in range(steps)].count("a") == before


@pytest.mark.parametrize(
    "prompt",
    [
        "[a:b]",
        "[a:b:c]",
        "[a:b:c:3]",
        "[a:b:3",
        "a:b:3]",
        "[a:b:1e1]",
        "[a:b:0x3]",
        "[a:b:3.1.4]",
        "[a:b:\u0663]",  # a digit of another script
        "[a|b:3:c]",
        r"[a:b:3\]",
        r"\[a:b:3]",
        r"[a\:b\:3]",
        r"[a\|b]",
        "[x (a:b:c) :3]",  # emphasis has one colon, so the brackets are no pair
        "[x (y :3]",
        "[x y) :3]",
        "(a|b)",
        "[:]",
        "\\",
        "[a:b:3\\",
    ],
)
def test_what_is_no_change_is_text(prompt):
    assert read_schedule(prompt) is None


def test_a_bracket_that_spoils_the_outer_ones_leaves_the_inner_ones():
    assert texts("[x [a:b:2] ) :3] y", 3) == [[2, "[x a ) :3] y"], [3, "[x b ) :3] y"]]
    assert texts("( [a:b:2] : c : d", 3) == [[2, "( a : c : d"], [3, "( b : c : d"]]


WORDS = st.text("ab (c", max_size=4).map(lambda text: text.replace("(", "(d) "))


def trees():
    """Give pairs of a prompt and a function that says how it reads at a step of ten."""

    def switch(parts):
        (before, then), (after, later), when = parts
        return f"[{before}:{after}:{when}]", lambda n: then(n) if n < when else later(n)

    def fade_in(parts):
        (after, later), when = parts
        return f"[{after}:{when}]", lambda n: "" if n < when else later(n)

    def alternation(options):
        prompt = "[" + "|".join(text for text, _ in options) + "]"
        return prompt, lambda n: options[n % len(options)][1](n)

    def both(pair):
        (one, first), (other, second) = pair
        return one + other, lambda n: first(n) + second(n)

    def emphasis(inner):
        return f"({inner[0]}:1.2)", lambda n: f"({inner[1](n)}:1.2)"

    leaves = WORDS.map(lambda text: (text, lambda n: text))
    steps = st.integers(0, 10)
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.tuples(inner, inner, steps).map(switch),
            st.tuples(inner, steps).map(fade_in),
            st.lists(inner, min_size=2, max_size=3).map(alternation),
            st.tuples(inner, inner).map(both),
            inner.map(emphasis),
        ),
        max_leaves=12,
    )


@given(trees())
def test_nested_changes_read_as_they_were_built(tree):
    prompt, wanted = tree
    schedule = read_schedule(prompt)
    for step in range(10):
        assert (prompt if schedule is None else schedule.at(step, 10)) == wanted(step)


@given(st.text(r"[]():|\ab1.,-" + "\n\u00e9", max_size=60), st.integers(1, 12))
def test_no_text_is_an_error_and_nothing_is_made_up(prompt, steps):
    schedule = read_schedule(prompt)
    if schedule is not None:
        for step in range(steps):
            now = schedule.at(step, steps)
            assert len(now) < len(prompt)
            left = iter(prompt)
            assert all(character in left for character in now)  # in its order


@pytest.mark.parametrize(
    "prompt",
    [
        "[" * 65536,
        "[" * 32768 + "]" * 32768,
        "(" * 32768 + ")" * 32768,
        "[a:" * 900 + "b" + ":3]" * 900,
        "[a|" * 900 + "b" + "]" * 900,
        "[(a:b:c)" * 8000,
        "[]" * 32768,
        "[ (" * 16000 + "]" * 16000,
    ],
    ids=["open", "square", "round", "switches", "options", "spoilt", "empty", "crossed"],
)
def test_time_grows_with_the_length_alone(prompt):
    """Whatever is deep or crossed: a quadratic reader needs minutes."""
    start = time.perf_counter()
    texts(prompt, 3)
    assert time.perf_counter() - start < 20.0  # 0.4 s on an idle core


def test_too_many_changes_are_refused():
    read_schedule("[a|b]" * MAX_CHANGES)
    with pytest.raises(RequestError, match="1001 places"):
        read_schedule("[a|b]" * (MAX_CHANGES + 1))
