"""The quick look at raw JSON never hides a record that the thorough one would find."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vault.folded import FoldedPage
from vault.frame import frame
from vault.search import Query

LETTERS = st.text(st.sampled_from('aAeEßſKk\u212aéÉ\u0301\u0130i "\\/\n\t,:.x'), max_size=8)


def may_match(query: Query, raw: bytes) -> bool:
    """Ask a page whose middle record is this one."""
    texts = {9: b'{"x":"before"}', 5: raw, 2: b'{"x":"after"}'}
    page = FoldedPage((index, frame(text, metadata=True)) for index, text in texts.items())
    return 5 in page.holding(query.raw)


OTHER = st.dictionaries(st.sampled_from(["rest", "x", "data"]), LETTERS, max_size=2)


@given(st.lists(LETTERS, max_size=3), LETTERS, OTHER, OTHER, st.sampled_from([(",", ":"), None]))
def test_what_matches_may_match(values, text, before, after, separators):
    """Whatever stands around the application's object, and however the JSON is spaced."""
    data = {"key": values}
    document = {"rest": before, "data": data, "more": after}
    raw = json.dumps(document, ensure_ascii=False, separators=separators).encode()
    query = Query(text)
    assert may_match(query, raw) or not query.matches(data)


@pytest.mark.parametrize(
    ("text", "value", "found"),
    [
        ("apple", "Red Apples", True),
        ("red apples", "apples, RED", True),
        ("rep", "red apples", False),
        ("STRASSE", "Straße", True),
        ("caf\u00e9", "CAFE\u0301", True),
        ("\u212a", "k", True),  # the Kelvin sign is a K
        ("", "anything", True),
        ('say "x"', 'say "x"', True),
    ],
)
def test_words(text, value, found):
    assert Query(text).matches([{"deep": [value]}]) is found


def test_a_lone_surrogate_finds_nothing_and_breaks_nothing():
    query = Query("\ud800")
    assert not query.matches(["x"])
    assert not may_match(query, b'{"x":"y"}')


def test_a_query_does_not_show_its_words():
    assert "secret" not in repr(Query("secret words"))
