r"""Weights, breaks and parts of a prompt: the web interface's examples, its rules, hostile text."""

import itertools
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import RequestError
from engine.promptsyntax import MAX_BREAKS, MAX_PARTS, MAX_WEIGHT, Part, Run, Span, parse_prompt


def passages(prompt):
    """Give the passages of a prompt that does not change and has no AND, weights to 6 digits."""
    (part,) = parse_prompt(prompt, 10)
    (span,) = part.spans
    assert (part.weight, span.end) == (1.0, 10)
    return [[(run.text, run.weight) for run in passage] for passage in span.passages]


def runs(prompt):
    (passage,) = passages(prompt)
    return passage


@pytest.mark.parametrize(
    ("prompt", "wanted"),
    [
        ("normal text", [("normal text", 1.0)]),
        ("an (important) word", [("an ", 1.0), ("important", 1.1), (" word", 1.0)]),
        ("(unbalanced", [("unbalanced", 1.1)]),
        (r"\(literal\]", [("(literal]", 1.0)]),
        ("(unnecessary)(parens)", [("unnecessaryparens", 1.1)]),
        (
            "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).",
            [
                ("a ", 1.0),
                ("house", 1.573),
                (" ", 1.1),
                ("on", 1.0),
                (" a ", 1.1),
                ("hill", 0.55),
                (", sun, ", 1.1),
                ("sky", 1.4641),
                (".", 1.1),
            ],
        ),
    ],
)
def test_examples_of_the_web_interface(prompt, wanted):
    assert runs(prompt) == wanted


@pytest.mark.parametrize(
    ("prompt", "wanted"),
    [
        ("[b]", [("b", round(1 / 1.1, 6))]),
        ("(b:-0.5)", [("b", -0.5)]),
        ("(b: 1.2 )", [("b", 1.2)]),
        ("(b:.5)", [("b", 0.5)]),
        ("a:b", [("a:b", 1.0)]),
        (":) a ]", [(":) a ]", 1.0)]),  # nothing opened them
        (":1.2)", [(":1.2)", 1.0)]),
        ("(b:1.2.3)", [("b:1.2.3", 1.1)]),
        ("a (b:1.0) c", [("a b c", 1.0)]),  # weight 1 is no weight: one run
        ("[a (b] c)", [("a ", round(1 / 1.1, 6)), ("b", 1.0), (" c", 1.1)]),  # they may cross
        (r"a\\b \( \\(c\)", [(r"a\b ( " + "\\", 1.0), ("c)", 1.1)]),
        (r"c\d", [("cd", 1.0)]),
        ("", [("", 1.0)]),
        ("()", [("", 1.0)]),
        ("(a:1000)", [("a", MAX_WEIGHT)]),
        ("(a:-" + "9" * 500 + ")", [("a", -MAX_WEIGHT)]),
    ],
)
def test_signs_and_what_is_none(prompt, wanted):
    assert runs(prompt) == wanted


@pytest.mark.parametrize(
    ("prompt", "wanted"),
    [
        ("a BREAK b", [[("a", 1.0)], [("b", 1.0)]]),
        ("(a BREAK b:1.3)", [[("a", 1.3)], [("b", 1.3)]]),
        ("BREAK a BREAK", [[("", 1.0)], [("a", 1.0)], [("", 1.0)]]),
        ("aBREAKb break BREAKS", [[("aBREAKb break BREAKS", 1.0)]]),
        ("(a) BREAK\n(b)", [[("a", 1.1)], [("b", 1.1)]]),
    ],
)
def test_break_cuts_passages(prompt, wanted):
    assert passages(prompt) == wanted


def text_part(weight, text, steps=10):
    return Part(weight, (Span(steps, ((Run(text, 1.0),),)),))


def test_and_joins_weighted_parts_and_is_a_word_in_the_negative_prompt():
    assert parse_prompt("a AND b :1.5 AND c: -.5", 10) == (
        text_part(1.0, "a"),
        text_part(1.5, "b"),
        text_part(-0.5, "c"),
    )
    assert parse_prompt("a AND b", 10, joins=False) == (text_part(1.0, "a AND b"),)
    assert parse_prompt("SAND and ANDY", 10) == (text_part(1.0, "SAND and ANDY"),)
    assert [part.weight for part in parse_prompt("a:1.2.3 AND b:x AND c:1e3", 10)] == [1.0] * 3


def test_a_number_at_the_end_of_a_single_text_is_no_weight():
    assert parse_prompt("a poster at 16:9", 10) == (text_part(1.0, "a poster at 16:9"),)


def test_each_part_has_a_schedule_of_its_own_and_emphasis_in_it():
    first, second = parse_prompt("[(a:1.2):b:3] AND c :0.5", 4)
    assert first.spans == (
        Span(3, ((Run("a", 1.2),),)),
        Span(4, ((Run("b", 1.0),),)),
    )
    assert second == text_part(0.5, "c", 4)


def test_plain_takes_everything_as_it_is():
    prompt = r"(a:1.2) [b|c] \( AND d BREAK"
    assert parse_prompt(prompt, 7, "plain") == (text_part(1.0, prompt, 7),)


@given(st.text(st.characters(exclude_characters="()[]\\"), max_size=80))
def test_a_text_without_signs_stays_as_it_is(prompt):
    if not re.search(r"\b(AND|BREAK)\b", prompt):
        assert runs(prompt) == [(prompt, 1.0)]


def nested():
    """Give pairs of a prompt and the weight of each of its characters."""

    def weighted(pair):
        (prompt, weights), factor = pair
        return f"({prompt}:{factor})", [(c, w * factor) for c, w in weights]

    def bracketed(inner, brackets, factor):
        return brackets[0] + inner[0] + brackets[1], [(c, w * factor) for c, w in inner[1]]

    leaves = st.text("ab, ", max_size=3).map(lambda text: (text, [(c, 1.0) for c in text]))
    escaped = st.sampled_from(r"()[]\ ".strip()).map(lambda c: ("\\" + c, [(c, 1.0)]))
    return st.recursive(
        leaves | escaped,
        lambda inner: st.one_of(
            st.tuples(inner, st.sampled_from([0.5, 0.25, 1.5])).map(weighted),
            inner.map(lambda each: bracketed(each, "()", 1.1)),
            inner.map(lambda each: bracketed(each, "[]", 1 / 1.1)),
            st.tuples(inner, inner).map(lambda two: (two[0][0] + two[1][0], two[0][1] + two[1][1])),
        ),
        max_leaves=10,
    )


@given(nested())
def test_nested_emphasis_multiplies(tree):
    prompt, wanted = tree
    got = [(c, weight) for text, weight in runs(prompt) for c in text]
    assert [c for c, _ in got] == [c for c, _ in wanted]
    # Weights are kept to six digits behind the point.
    assert [w for _, w in got] == pytest.approx([w for _, w in wanted], abs=1e-6)


@given(st.text(r"[]():|\AND BREAK1.-", max_size=80), st.integers(1, 8), st.booleans())
def test_no_text_is_an_error(prompt, steps, joins):
    for part in parse_prompt(prompt, steps, joins=joins):
        ends = [span.end for span in part.spans]
        assert ends == sorted(set(ends))
        assert ends[-1] == steps
        for span in part.spans:
            for passage in span.passages:
                weights = [run.weight for run in passage]
                assert all(abs(weight) <= MAX_WEIGHT for weight in weights)
                assert all(a != b for a, b in itertools.pairwise(weights))


@pytest.mark.parametrize(
    "prompt",
    [
        "(a" * 20000 + ")" * 20000,
        "a)" * 32768,
        "(a:1.1)" * 9000,
        "[" * 65536,
        " " * 65530 + "BREA",
        "x :" + " " * 60000 + "AND y :" + "1" * 5000 + "z",
        "(a:" + "1" * 65000,
        "(a:" + "1" * 65000 + ")",
        "((a:1.2)" * 8000,
    ],
    ids=["deep", "closed", "many", "open", "blanks", "and", "digits", "number", "unclosed"],
)
def test_time_grows_with_the_length_alone(prompt):
    start = time.perf_counter()
    parse_prompt(prompt, 10)
    assert time.perf_counter() - start < 20.0  # 0.4 s on an idle core


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        ("canary AND " * MAX_PARTS, "joins 17 texts by AND; at most 16"),
        ("canary BREAK " * (MAX_BREAKS + 1), "has 256 BREAKs; at most 255"),
        ("canary" * 1000 + "[a|b]" * 10 + "".join(f"[c:d:{n}]" for n in range(90)), "262144 char"),
    ],
    ids=["parts", "breaks", "texts"],
)
def test_what_the_network_cannot_be_shown_is_one_sentence_without_the_prompt(prompt, says):
    with pytest.raises(RequestError, match=says) as caught:
        parse_prompt(prompt, 100)
    assert "canary" not in str(caught.value) + caught.value.hint
