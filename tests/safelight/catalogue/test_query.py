"""The search line: what it says is what is looked for, and what it cannot say is an error."""

import re
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safelight.catalogue.query import FLAGS, Query, QueryError, Range, Size, Term

TODAY = date(2026, 11, 29)


def parse(text: str) -> Query:
    return Query.parse(text, TODAY)


def only(text: str) -> Term:
    (term,) = parse(text).terms
    return term


def days(first: date, last: date) -> Range:
    return Range(first.toordinal(), last.toordinal())


def test_words_are_folded_and_may_be_negated_or_quoted():
    assert parse('Red -BLUR "studio  light" -"soft focus"').terms == (
        Term("words", "red"),
        Term("words", "blur", negated=True),
        Term("words", "studio  light"),
        Term("words", "soft focus", negated=True),
    )


def test_quotes_keep_colons_and_an_open_quote_reaches_to_the_end():
    assert only('"a1111: x"') == Term("words", "a1111: x")
    assert only('tag:"red car') == Term("tag", "red car")
    assert only("(masterpiece:1.2)") == Term("words", "(masterpiece:1.2)")


@pytest.mark.parametrize(
    ("text", "term"),
    [
        ("rating:>=3", Term("rating", Range(3, 2**63 - 1))),
        ("-rating:<3", Term("rating", Range(0, 2), negated=True)),
        ("RATING:2..4", Term("rating", Range(2, 4))),
        ("seed:9223372036854775807", Term("seed", Range(2**63 - 1, 2**63 - 1))),
        ("seed:>5", Term("seed", Range(6, 2**63 - 1))),
        ("steps:..20", Term("steps", Range(0, 20))),
        ("score:<=5.5", Term("score", Range(0.0, 5.5))),
        ("size:512x768", Term("size", Size(Range(512, 512), Range(768, 768)))),
        ("size:>=512×768", Term("size", Size(Range(512, 2**63 - 1), Range(768, 2**63 - 1)))),
        ("date:2026-11-03", Term("date", days(date(2026, 11, 3), date(2026, 11, 3)))),
        ("date:2024-2", Term("date", days(date(2024, 2, 1), date(2024, 2, 29)))),
        ("date:2026-11..2026-12", Term("date", days(date(2026, 11, 1), date(2026, 12, 31)))),
        ("date:>2025", Term("date", days(date(2026, 1, 1), date.max))),
        ("date:<2025-06", Term("date", days(date.min, date(2025, 5, 31)))),
        ("date:today", Term("date", days(TODAY, TODAY))),
        ("date:yesterday..", Term("date", days(date(2026, 11, 28), date.max))),
        ("is:Favorite", Term("is", "favourite")),
        ("tag:Straße*", Term("tag", "strasse*")),
        ("parent:3F9A", Term("parent", "3f9a")),
    ],
)
def test_fields_are_read_as_they_are_meant(text, term):
    assert only(text) == term


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sed:5", "did you mean 'seed'"),
        ("nonsense:1", "no field 'nonsense'"),
        ("rating:", "such as rating:>=3"),
        ("rating:high", "whole numbers"),
        ("seed:9223372036854775808", "whole numbers"),
        ("seed:-3", "whole numbers"),
        ("score:1e5", "takes numbers"),
        ("size:512", "width x height"),
        ("date:2026-13", "days, months or years"),
        ("date:2026-02-30", "days, months or years"),
        ("date:soon", "days, months or years"),
        ("is:nice", "favourite"),
        ("sort:colour", "newest"),
        ("id:xyz", "hex digits"),
        ("x" * 1001, "1000 characters"),
        ("a " * 33, "32 conditions"),
    ],
)
def test_what_cannot_be_understood_is_said(text, message):
    with pytest.raises(QueryError, match=message):
        parse(text)


def test_every_search_that_the_readme_shows_is_understood():
    text = (Path(__file__).parents[3] / "README.md").read_text("utf-8")
    table = text[text.index("| search | finds |") : text.index("- **Labels**")]
    shown = re.findall(r"`([^`]{2,})`", table)
    assert len(shown) > 20
    for query in shown:
        parse(query)


def test_an_order_is_no_condition():
    assert parse("sort:rating apple") == Query((Term("words", "apple"),), "rating")


def test_the_trash_is_asked_for_by_name():
    assert parse("is:trashed").wants_trash
    assert not parse("apple is:rated").wants_trash


TOKENS = st.sampled_from(
    ["-", '"', ":", "..", ">=", "<", "x", "rating", "date", "seed", "is", "2026-11", "5", " "]
)


@settings(max_examples=60)
@given(st.one_of(st.text(max_size=60), st.lists(TOKENS, max_size=14).map("".join)))
def test_every_line_parses_or_is_refused_in_a_sentence(text):
    try:
        query = parse(text)
    except QueryError:
        return  # any other error fails the test
    for term in query.terms:
        assert isinstance(term.value, (str, Range, Size))
        assert term.field != "is" or term.value in FLAGS


@given(st.text(min_size=1, max_size=40).filter(lambda text: '"' not in text and text.strip()))
def test_any_text_is_found_as_it_is_when_quoted(text):
    assert only(f'"{text}"').field == "words"
