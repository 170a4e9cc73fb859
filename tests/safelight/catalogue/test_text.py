"""Texts in one piece of memory: found are those that hold the word, and no neighbours."""

from hypothesis import given, settings
from hypothesis import strategies as st

from safelight.catalogue.text import Texts, fold

ALPHABET = st.text("ab\0äß ", max_size=6)


@settings(max_examples=60)
@given(st.lists(ALPHABET, max_size=8), st.text("ab\0äß ", min_size=1, max_size=3))
def test_a_word_is_found_where_looking_at_each_text_finds_it(texts, word):
    kept = Texts(texts)
    plain = [text.replace("\0", " ") for text in texts]
    assert [kept[row] for row in range(len(kept))] == plain
    assert list(kept.holding(word)) == [word.replace("\0", " ") in text for text in plain]


def test_folding_joins_what_keyboards_write_differently():
    assert fold("Cafe\u0301 STRASSE") == fold("CAFÉ straße")
