"""Frames hide sizes, and open in one way only."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vault.errors import DamagedError
from vault.frame import Framed, frame, metadata_size, padme, strip_frame, unframe

# Worked by hand from the definition: E = floor(log2 L), S = floor(log2 E) + 1, round up to 2^(E-S).
PADME = {0: 0, 1: 1, 2: 2, 8: 8, 9: 10, 17: 18, 33: 36, 100: 104, 1000: 1024, 4097: 4352}


@pytest.mark.parametrize(("size", "padded"), PADME.items())
def test_padme_by_hand(size, padded):
    assert padme(size) == padded


def test_padme_costs_half_a_percent_at_a_picture():
    assert 1_500_000 <= padme(1_500_000) <= 1_500_000 * 1.005


@given(st.integers(1, 1 << 40))
def test_padme_is_stable_small_and_monotone(size):
    assert size <= padme(size) <= size * 1.12 + 1
    assert padme(padme(size)) == padme(size)
    assert padme(size) <= padme(size + 1)


@pytest.mark.parametrize(
    ("size", "padded"), [(8, 256), (256, 256), (257, 512), (4096, 4096), (4097, 4352)]
)
def test_metadata_grows_in_steps(size, padded):
    assert metadata_size(size) == padded


@given(st.binary(max_size=600), st.booleans())
def test_what_goes_in_comes_out(payload, metadata):
    framed = frame(payload, metadata=metadata)
    assert unframe(framed, metadata=metadata) == payload
    assert unframe(bytearray(framed), metadata=metadata) == payload


@given(st.binary(max_size=64), st.integers(0, 24), st.booleans())
def test_only_the_canonical_frame_opens(body, length, metadata):
    framed = length.to_bytes(8, "big") + body
    try:
        payload = unframe(framed, metadata=metadata)
    except DamagedError:
        return
    assert frame(payload, metadata=metadata) == framed


@pytest.mark.parametrize("metadata", [True, False])
def test_bent_frames_are_damage(metadata):
    good = frame(b"x" * 90, metadata=metadata)
    assert len(good) > 98  # there is padding to bend
    bent = [
        good[:-1] + b"\x01",
        good + b"\0",
        good[:-1],
        good[:98],  # no padding at all
        good.ljust(2 * len(good), b"\0"),
        b"\xff" * 8 + good[8:],
        (91).to_bytes(8, "big") + good[8:98] + b"x" + good[99:-1] + b"\1",
        b"",
        b"\0" * 7,
    ]
    for one in bent:
        with pytest.raises(DamagedError):
            unframe(one, metadata=metadata)


@given(st.integers(0, 5000), st.integers(9, 600))
def test_pieces_are_the_frame_cut_up(length, size):
    payload = bytes(range(251)) * 20
    payload = payload[:length]
    whole = frame(payload, metadata=False)
    framed = Framed(payload)
    pieces = [bytes(piece) for piece in framed.parts(size)]
    assert framed.size == len(whole)
    assert [len(piece) for piece in pieces[:-1]] == [size] * (framed.size // size)
    assert len(pieces[-1]) == framed.size % size
    assert b"".join(pieces) == whole
    assert strip_frame(bytearray(whole)) == payload


@given(st.binary(max_size=64), st.integers(0, 70))
def test_stripping_gives_what_unframing_gives(body, length):
    framed = length.to_bytes(8, "big") + body
    try:
        payload = unframe(framed, metadata=False)
    except DamagedError:
        with pytest.raises(DamagedError):
            strip_frame(bytearray(framed))
    else:
        assert strip_frame(bytearray(framed)) == payload


def test_a_byte_of_padding_anywhere_is_seen():
    good = frame(bytes(100_000), metadata=False)
    assert strip_frame(bytearray(good)) == bytes(100_000)
    for at in (100_008, len(good) - 1):
        bent = bytearray(good)
        bent[at] = 1
        with pytest.raises(DamagedError):
            strip_frame(bent)
