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

    def run_all(self, inputs):
        ids = inputs["input_ids"]
        self.seen.append(ids[0].tolist())
        self.buffer[:] = ids[:, :, None]  # one buffer for all runs, as real sessions have
        return {"last_hidden_state": self.buffer.copy()}


def test_the_shorter_text_is_filled_up_with_empty_chunks():
    negative, prompt = Conditioner([LetterTokenizer()], 3).tokens(("", "abcdefghi"))
    assert negative.tolist() == [[EMPTY] * 3]
    assert prompt[0, 2].tolist() == [1, ord("i"), 2, 0, 0, 0]
    prompt, negative = Conditioner([LetterTokenizer()], 3).tokens(("ab", "abcde"))
    assert prompt.tolist() == [[[1, 97, 98, 2, 0, 0], EMPTY]]


def test_chunks_are_joined_along_the_sequence_in_order():
    conditioner, encoder = Conditioner([LetterTokenizer()], 3), Encoder()
    embeds = conditioner.embed(conditioner.tokens(("", "abcde")), [encoder]).embeds
    assert embeds.shape == (2, 2 * LIMIT, 3)
    assert embeds.dtype == np.float32
    assert embeds[1, :, 0].tolist() == [1, 97, 98, 99, 100, 2, 1, 101, 2, 0, 0, 0]
    assert embeds[0, :, 2].tolist() == EMPTY * 2


def test_a_chunk_is_encoded_once_and_copied_from_the_buffer():
    conditioner, encoder = Conditioner([LetterTokenizer()], 3), Encoder()
    first = conditioner.embed(conditioner.tokens(("ab", "cd")), [encoder]).embeds
    again = conditioner.embed(conditioner.tokens(("ab", "cd")), [encoder]).embeds
    assert len(encoder.seen) == 2
    assert np.array_equal(first, again)


def test_what_is_kept_is_bounded_and_the_oldest_goes_first():
    conditioner, encoder = Conditioner([LetterTokenizer()], 3), Encoder()
    texts = [chr(1000 + i) for i in range(KEPT + 1)]
    for text in texts:
        conditioner.embed(conditioner.tokens((text,)), [encoder])
    conditioner.embed(conditioner.tokens((texts[-1],)), [encoder])
    assert len(encoder.seen) == KEPT + 1
    conditioner.embed(conditioner.tokens((texts[0],)), [encoder])
    assert len(encoder.seen) == KEPT + 2
    conditioner.embed(conditioner.tokens((texts[2],)), [encoder])  # now used again, so it stays
    conditioner.embed(conditioner.tokens(("new",)), [encoder])  # and texts[3] has to go
    conditioner.embed(conditioner.tokens((texts[2],)), [encoder])
    assert len(encoder.seen) == KEPT + 3
    conditioner.embed(conditioner.tokens((texts[3],)), [encoder])
    assert len(encoder.seen) == KEPT + 4


def test_a_wrong_width_is_the_bundles_fault():
    conditioner = Conditioner([LetterTokenizer()], 3)
    with pytest.raises(BundleError, match=r"\(1, 6, 3\)"):
        conditioner.embed(conditioner.tokens(("a",)), [Encoder(width=4)])


class Pooling(Encoder):
    """A second encoder as SDXL has it: another width, and the pooled text beside."""

    def run_all(self, inputs):
        hidden = -super().run_all(inputs)["last_hidden_state"]
        return {"penultimate_hidden_state": hidden, "text_embeds": hidden[:, 1, :2]}


class OtherPad(LetterTokenizer):
    """Pads with another id, as SDXL's second tokenizer does."""

    def encode(self, text):
        ids = super().encode(text)
        ids[ids == 0] = 9
        return ids


def twins(*, zero_empty):
    conditioner = Conditioner([LetterTokenizer(), OtherPad()], 5, zero_empty=zero_empty)
    return conditioner, [Encoder(3), Pooling(2)]


def test_two_encoders_are_joined_along_the_channels_each_with_its_own_ids():
    conditioner, encoders = twins(zero_empty=False)
    embeds, pooled = conditioner.embed(conditioner.tokens(("x", "abcde")), encoders)
    assert embeds.shape == (2, 2 * LIMIT, 5)
    assert embeds[1, :, 2].tolist() == [1, 97, 98, 99, 100, 2, 1, 101, 2, 0, 0, 0]
    assert embeds[1, :, 3].tolist() == [-1, -97, -98, -99, -100, -2, -1, -101, -2, -9, -9, -9]
    assert pooled.tolist() == [[-ord("x")] * 2, [-97.0] * 2]  # of the first chunk


def test_an_empty_negative_prompt_is_zero_where_the_family_wants_it():
    conditioner, encoders = twins(zero_empty=True)
    embeds, pooled = conditioner.embed(conditioner.tokens(("", "abcde")), encoders)
    assert not embeds[0].any()
    assert not pooled[0].any()
    assert embeds[1].any()
    embeds, pooled = conditioner.embed(conditioner.tokens(("x", "")), encoders)
    assert embeds.any(axis=(1, 2)).tolist() == [True, True]  # an empty prompt is a prompt
    assert pooled.any(axis=1).tolist() == [True, True]
    (alone,) = conditioner.embed(conditioner.tokens(("",)), encoders).embeds
    assert alone.any()  # without guidance there is no negative half


def test_one_encoder_gives_no_pooled_text():
    conditioner = Conditioner([LetterTokenizer()], 3)
    assert conditioner.embed(conditioner.tokens(("a",)), [Encoder()]).pooled is None
