"""Prompts become chunks of equal number, and a chunk is encoded once."""

import numpy as np
import pytest

from engine.conditioning import KEPT, Conditioner
from engine.errors import BundleError

LIMIT = 6
EMPTY = [1, 2, 0, 0, 0, 0]


class LetterTokenizer:
    """One id a letter, four letters a chunk, as Tokenizer does it with words."""

    limit = LIMIT

    def encode(self, text):
        pieces = [text[i : i + 4] for i in range(0, len(text), 4)] or [""]
        rows = [[1, *map(ord, piece), 2, *[0] * (4 - len(piece))] for piece in pieces]
        return np.array(rows, dtype=np.int64)


class Encoder:
    def __init__(self, width=3):
        self.seen = []
        self.width = width
        self.buffer = np.zeros((1, LIMIT, width), dtype=np.float32)

    def run(self, inputs):
        ids = inputs["input_ids"]
        self.seen.append(ids[0].tolist())
        self.buffer[:] = ids[:, :, None]  # one buffer for all runs, as real sessions have
        return self.buffer


def test_the_shorter_text_is_filled_up_with_empty_chunks():
    negative, prompt = Conditioner(LetterTokenizer(), 3).tokens(("", "abcdefghi"))
    assert negative.tolist() == [EMPTY] * 3
    assert prompt[2].tolist() == [1, ord("i"), 2, 0, 0, 0]
    prompt, negative = Conditioner(LetterTokenizer(), 3).tokens(("ab", "abcde"))
    assert prompt.tolist() == [[1, 97, 98, 2, 0, 0], EMPTY]


def test_chunks_are_joined_along_the_sequence_in_order():
    conditioner, encoder = Conditioner(LetterTokenizer(), 3), Encoder()
    embeds = conditioner.embed(conditioner.tokens(("", "abcde")), encoder)
    assert embeds.shape == (2, 2 * LIMIT, 3)
    assert embeds.dtype == np.float32
    assert embeds[1, :, 0].tolist() == [1, 97, 98, 99, 100, 2, 1, 101, 2, 0, 0, 0]
    assert embeds[0, :, 2].tolist() == EMPTY * 2


def test_a_chunk_is_encoded_once_and_copied_from_the_buffer():
    conditioner, encoder = Conditioner(LetterTokenizer(), 3), Encoder()
    first = conditioner.embed(conditioner.tokens(("ab", "cd")), encoder)
    again = conditioner.embed(conditioner.tokens(("ab", "cd")), encoder)
    assert len(encoder.seen) == 2
    assert np.array_equal(first, again)


def test_what_is_kept_is_bounded_and_the_oldest_goes_first():
    conditioner, encoder = Conditioner(LetterTokenizer(), 3), Encoder()
    texts = [chr(1000 + i) for i in range(KEPT + 1)]
    for text in texts:
        conditioner.embed(conditioner.tokens((text,)), encoder)
    conditioner.embed(conditioner.tokens((texts[-1],)), encoder)
    assert len(encoder.seen) == KEPT + 1
    conditioner.embed(conditioner.tokens((texts[0],)), encoder)
    assert len(encoder.seen) == KEPT + 2
    conditioner.embed(conditioner.tokens((texts[2],)), encoder)  # now used again, so it stays
    conditioner.embed(conditioner.tokens(("new",)), encoder)  # and texts[3] has to go
    conditioner.embed(conditioner.tokens((texts[2],)), encoder)
    assert len(encoder.seen) == KEPT + 3
    conditioner.embed(conditioner.tokens((texts[3],)), encoder)
    assert len(encoder.seen) == KEPT + 4


def test_a_wrong_width_is_the_bundles_fault():
    conditioner = Conditioner(LetterTokenizer(), 3)
    with pytest.raises(BundleError, match=r"\(1, 6, 3\)"):
        conditioner.embed(conditioner.tokens(("a",)), Encoder(width=4))
