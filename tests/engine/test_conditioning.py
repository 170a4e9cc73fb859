"""Texts become embeddings: a chunk is encoded once, weights scale it, steps choose a text."""

import numpy as np
import pytest

from engine.conditioning import KEPT, Conditioner
from engine.errors import BundleError, RequestError
from engine.moment import Moment
from engine.request import GenerationRequest

LIMIT = 6
EMPTY = [1, 2, 0, 0, 0, 0]


class LetterTokenizer:
    """One id a letter, four letters a chunk, as Tokenizer does it with words."""

    limit = LIMIT
    pad = 0

    def ids(self, text):
        return [ord(letter) for letter in text if letter != " "]

    def chunks(self, ids):
        pieces = [ids[i : i + 4] for i in range(0, len(ids), 4)] or [[]]
        rows = [[1, *piece, 2, *[self.pad] * (4 - len(piece))] for piece in pieces]
        return np.array(rows, dtype=np.int64)


def plan(conditioner, prompt, negative="", *, guided=True, steps=4, **given):
    request = GenerationRequest(
        prompt=prompt,
        negative_prompt=negative,
        width=64,
        height=64,
        steps=steps,
        sampler="euler",
        schedule="karras",
        guidance_scale=5.0,
        seed=0,
        **given,
    )
    return conditioner.plan(request, steps, guided=guided)


def embed(conditioner, encoders, *words, **given):
    return conditioner.embed(plan(conditioner, *words, **given), encoders)


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
    conditioner = Conditioner([LetterTokenizer()], 3)
    negative, prompt = plan(conditioner, "abcdefghi").different
    assert negative.ids.tolist() == [[EMPTY] * 3]
    assert prompt.ids[0, 2].tolist() == [1, ord("i"), 2, 0, 0, 0]
    negative, prompt = plan(conditioner, "ab", "abcde").different
    assert prompt.ids.tolist() == [[[1, 97, 98, 2, 0, 0], EMPTY]]


def test_chunks_are_joined_along_the_sequence_in_order():
    conditioner, encoder = Conditioner([LetterTokenizer()], 3), Encoder()
    embeds = embed(conditioner, [encoder], "abcde").embeds
    assert embeds.shape == (2, 2 * LIMIT, 3)
    assert embeds.dtype == np.float32
    assert embeds[1, :, 0].tolist() == [1, 97, 98, 99, 100, 2, 1, 101, 2, 0, 0, 0]
    assert embeds[0, :, 2].tolist() == EMPTY * 2


def test_a_chunk_is_encoded_once_and_copied_from_the_buffer():
    conditioner, encoder = Conditioner([LetterTokenizer()], 3), Encoder()
    first = embed(conditioner, [encoder], "ab", "cd").embeds
    again = embed(conditioner, [encoder], "ab", "cd").embeds
    assert len(encoder.seen) == 2
    assert np.array_equal(first, again)


def test_what_is_kept_is_bounded_and_the_oldest_goes_first():
    conditioner, encoder = Conditioner([LetterTokenizer()], 3), Encoder()

    def encode(text):
        embed(conditioner, [encoder], text, guided=False)

    texts = [chr(1000 + i) for i in range(KEPT + 1)]
    for text in texts:
        encode(text)
    encode(texts[-1])
    assert len(encoder.seen) == KEPT + 1
    encode(texts[0])
    assert len(encoder.seen) == KEPT + 2
    encode(texts[2])  # now used again, so it stays
    encode("new")  # and texts[3] has to go
    encode(texts[2])
    assert len(encoder.seen) == KEPT + 3
    encode(texts[3])
    assert len(encoder.seen) == KEPT + 4


def test_a_wrong_width_is_the_bundles_fault():
    conditioner = Conditioner([LetterTokenizer()], 3)
    with pytest.raises(BundleError, match=r"\(1, 6, 3\)"):
        embed(conditioner, [Encoder(width=4)], "a")


class Pooling(Encoder):
    """A second encoder as SDXL has it: another width, and the pooled text beside."""

    def run_all(self, inputs):
        hidden = -super().run_all(inputs)["last_hidden_state"]
        return {"penultimate_hidden_state": hidden, "text_embeds": hidden[:, 1, :2]}


class OtherPad(LetterTokenizer):
    """Pads with another id, as SDXL's second tokenizer does."""

    pad = 9


def twins(*, zero_empty):
    conditioner = Conditioner([LetterTokenizer(), OtherPad()], 5, zero_empty=zero_empty)
    return conditioner, [Encoder(3), Pooling(2)]


def test_two_encoders_are_joined_along_the_channels_each_with_its_own_ids():
    conditioner, encoders = twins(zero_empty=False)
    embeds, pooled = embed(conditioner, encoders, "abcde", "x")
    assert embeds.shape == (2, 2 * LIMIT, 5)
    assert embeds[1, :, 2].tolist() == [1, 97, 98, 99, 100, 2, 1, 101, 2, 0, 0, 0]
    assert embeds[1, :, 3].tolist() == [-1, -97, -98, -99, -100, -2, -1, -101, -2, -9, -9, -9]
    assert pooled.tolist() == [[-ord("x")] * 2, [-97.0] * 2]  # of the first chunk


def test_an_empty_negative_prompt_is_zero_where_the_family_wants_it():
    conditioner, encoders = twins(zero_empty=True)
    embeds, pooled = embed(conditioner, encoders, "abcde")
    assert not embeds[0].any()
    assert not pooled[0].any()
    assert embeds[1].any()
    embeds, pooled = embed(conditioner, encoders, "", "x")
    assert embeds.any(axis=(1, 2)).tolist() == [True, True]  # an empty prompt is a prompt
    assert pooled.any(axis=1).tolist() == [True, True]
    embeds, _ = embed(conditioner, encoders, "a AND ")
    assert embeds.any(axis=(1, 2)).tolist() == [False, True, True]  # and so is an empty part
    (alone,) = embed(conditioner, encoders, "", guided=False).embeds
    assert alone.any()  # without guidance there is no negative half


def test_one_encoder_gives_no_pooled_text():
    conditioner = Conditioner([LetterTokenizer()], 3)
    assert embed(conditioner, [Encoder()], "a").pooled is None


# -- weights -----------------------------------------------------------------------------------


def weighted(z, weights):
    """Scale in float64 and restore the mean, as the web interface's original emphasis does."""
    scaled = z.astype(np.float64) * np.array(weights)[:, None]
    return scaled * (z.astype(np.float64).mean() / scaled.mean())


def test_weights_scale_their_tokens_and_the_mean_of_each_chunk_stays():
    conditioner, encoder = Conditioner([LetterTokenizer()], 3), Encoder()
    (plain,) = embed(conditioner, [encoder], "abcdef", guided=False).embeds
    (got,) = embed(conditioner, [encoder], "a(bc:1.5)d(ef:0.25)", guided=False).embeds
    assert len(encoder.seen) == 2  # the same chunks: what a weight does comes after the encoder
    first = weighted(plain[:LIMIT], [1, 1, 1.5, 1.5, 1, 1])
    second = weighted(plain[LIMIT:], [1, 0.25, 0.25, 1, 1, 1])
    # float32 has 24 bits, and three roundings are behind each number.
    np.testing.assert_allclose(got, np.concatenate([first, second]), rtol=3e-7)


def test_the_mean_is_restored_for_each_encoder_by_itself():
    conditioner, encoders = twins(zero_empty=False)
    (plain,) = embed(conditioner, encoders, "ab", guided=False).embeds
    (got,) = embed(conditioner, encoders, "a(b:2)", guided=False).embeds
    halves = [weighted(half, [1, 1, 2, 1, 1, 1]) for half in (plain[:, :3], plain[:, 3:])]
    np.testing.assert_allclose(got, np.concatenate(halves, axis=1), rtol=3e-7)


def test_a_mean_that_becomes_zero_is_left_alone():
    conditioner, encoder = Conditioner([LetterTokenizer()], 3), Encoder()
    encoder.run_all = lambda inputs: {"z": np.array([[[1.0] * 3, [1.0] * 3, *[[0.0] * 3] * 4]])}
    (got,) = embed(conditioner, [encoder], "(a:-1)", guided=False).embeds
    assert got[:, 0].tolist() == [1, -1, 0, 0, 0, 0]


def test_weights_of_one_are_the_plain_text_bit_by_bit():
    conditioner, encoder = Conditioner([LetterTokenizer()], 3), Encoder()
    plain = embed(conditioner, [encoder], "abcdef", prompt_syntax="plain").embeds
    for prompt in ("abcdef", "a(bc:1.0)def", "([abcdef])", "(abcdef:1)"):
        assert np.array_equal(plain, embed(conditioner, [encoder], prompt).embeds)


def test_break_fills_the_chunk_up():
    conditioner = Conditioner([LetterTokenizer()], 3)
    (text,) = plan(conditioner, "a BREAK (b:2)", guided=False).different
    assert text.ids[0].tolist() == [[1, 97, 2, 0, 0, 0], [1, 98, 2, 0, 0, 0]]
    assert text.weights[0].tolist() == [[1] * 6, [1, 2, 1, 1, 1, 1]]
    (text,) = plan(conditioner, "abcd BREAK BREAK e BREAK", guided=False).different
    assert text.ids[0, :, 1].tolist() == [97, 2, 101]  # full, empty, and none behind the last


# -- parts and steps ---------------------------------------------------------------------------


def test_and_gives_a_text_for_each_part_and_always_the_unconditional_one():
    conditioner = Conditioner([LetterTokenizer()], 3)
    texts = plan(conditioner, "a AND b :0.5 AND a", "n", guided=False)
    assert (texts.halves, texts.weights) == (4, (1.0, 0.5, 1.0))
    assert len(texts.different) == 3
    embeds = conditioner.embed(texts, [Encoder()]).embeds
    assert embeds[:, 1, 0].tolist() == [ord("n"), ord("a"), ord("b"), ord("a")]
    assert plan(conditioner, "a", guided=False).halves == 1


def test_a_text_that_changes_is_another_one_at_its_step_and_the_same_arrays_between():
    conditioner, encoders = twins(zero_empty=True)
    text = embed(conditioner, encoders, "[a:b:2]", "[x::1]", steps=4)
    shown = [text.at(Moment(step, step, 4, 1.0, 1.0)) for step in range(4)]
    assert [each.embeds[1, 1, 0] for each in shown] == [97, 97, 98, 98]
    assert [bool(each.embeds[0].any()) for each in shown] == [True, False, False, False]
    assert [each.pooled[1, 0] for each in shown] == [-97, -97, -98, -98]
    assert text.embeds.shape == (2, LIMIT, 5)
    again = [text.at(Moment(step, step, 4, 1.0, 1.0)).embeds for step in (2, 3)]
    assert again[0] is again[1]


def test_a_pass_of_other_length_goes_through_the_texts_at_its_own_pace():
    conditioner = Conditioner([LetterTokenizer()], 3)
    text = embed(conditioner, [Encoder()], "[a:b:2]", steps=4)
    for steps, wanted in ((2, "ab"), (8, "aaaabbbb"), (5, "aaabb")):
        moments = [Moment(step, step, steps, 1.0, 1.0) for step in range(steps)]
        assert "".join(chr(int(text.at(each).embeds[1, 1, 0])) for each in moments) == wanted


def test_texts_of_different_length_are_filled_up_to_the_longest_of_all_steps():
    conditioner = Conditioner([LetterTokenizer()], 3)
    texts = plan(conditioner, "[a:abcdefghi:2]", "n")
    assert {text.ids.shape for text in texts.different} == {(1, 3, LIMIT)}
    assert {text.weights.shape for text in texts.different} == {(1, 3, LIMIT)}
    assert texts.tokens == 3 * LIMIT


def test_what_takes_too_much_memory_is_refused_before_it_is_encoded():
    conditioner = Conditioner([LetterTokenizer()], 100_000_000)
    with pytest.raises(RequestError, match=r"4577 MB .* at most 4096 MB"):
        plan(conditioner, "wish")


# -- clip skip ---------------------------------------------------------------------------------


class Layers(Encoder):
    def run_all(self, inputs):
        hidden = super().run_all(inputs)["last_hidden_state"]
        return {"last_hidden_state": hidden, "clip_skip_2": hidden + 1000}


def test_a_clip_skip_takes_another_output_and_is_kept_apart():
    conditioner = Conditioner([LetterTokenizer()], 3, outputs=lambda skip: ((skip - 1,),))
    encoder = Layers()
    usual, other, again = (
        embed(conditioner, [encoder], "ab", guided=False, clip_skip=skip).embeds
        for skip in (1, 2, 1)
    )
    assert np.array_equal(usual + 1000, other)
    assert np.array_equal(usual, again)
    assert len(encoder.seen) == 2


def test_a_clip_skip_that_the_bundle_lacks_is_refused_before_anything_runs():
    def none(skip):
        raise RequestError(f"no layer for {skip}")

    with pytest.raises(RequestError, match="no layer for 3"):
        plan(Conditioner([LetterTokenizer()], 3, outputs=none), "a", clip_skip=3)
