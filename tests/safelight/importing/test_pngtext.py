"""Text chunks of a PNG: bounded, whatever they claim."""

import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safelight.exits import UsageError
from safelight.importing import read_original
from safelight.importing.pngtext import MAX_TEXT, MAX_TEXTS, SIGNATURE, png_texts
from tests.safelight.importing.samples import png


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def inserted(*chunks):
    """Give a picture with these chunks behind its header."""
    data = png()
    return data[:33] + b"".join(chunks) + data[33:]


def test_the_three_kinds_are_read():
    texts = [
        chunk(b"tEXt", b"a\0plain \xe9"),
        chunk(b"tEXt", b"b\0" + "utf-8 é".encode()),
        chunk(b"zTXt", b"c\0\0" + zlib.compress(b"packed")),
        chunk(b"iTXt", b"d\0\0\0en\0\0" + "灯台".encode()),
        chunk(b"iTXt", b"e\0\1\0\0\0" + zlib.compress("größer".encode())),
    ]
    assert list(png_texts(inserted(*texts))) == [
        ("a", "plain é"),
        ("b", "utf-8 é"),
        ("c", "packed"),
        ("d", "灯台"),
        ("e", "größer"),
    ]


def test_what_is_broken_or_too_large_is_passed_over():
    bomb = zlib.compress(b"x" * (100 << 20), 9)
    texts = [
        chunk(b"zTXt", b"bomb\0\0" + bomb),
        chunk(b"iTXt", b"bomb\0\1\0\0\0" + bomb),
        chunk(b"zTXt", b"broken\0\0no zlib"),
        chunk(b"zTXt", b"cut\0\0" + zlib.compress(b"x" * 999)[:-9]),
        chunk(b"zTXt", b"method\0\7" + zlib.compress(b"x")),
        chunk(b"tEXt", b"no end"),
        chunk(b"iTXt", b"few\0\0"),
        chunk(b"tEXt", b"huge\0" + b"x" * MAX_TEXT),
        chunk(b"tEXt", b"good\0here"),
    ]
    assert list(png_texts(inserted(*texts))) == [("good", "here")]
    many = inserted(*[chunk(b"tEXt", b"k%d\0v" % k) for k in range(2 * MAX_TEXTS)])
    assert len(list(png_texts(many))) == MAX_TEXTS


def test_a_picture_with_a_bomb_is_refused_in_one_sentence_or_taken_without_it():
    bomb = inserted(chunk(b"zTXt", b"bomb\0\0" + zlib.compress(b"x" * (50 << 20), 9)))
    with pytest.raises(UsageError, match="is no picture that can be read"):
        read_original(bomb, "bomb.png")
    deep = inserted(chunk(b"tEXt", b"prompt\0" + b'{"a":' * 100_000))
    assert read_original(deep, "deep.png").program == ""


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=120), st.sampled_from([b"tEXt", b"zTXt", b"iTXt"]), st.integers(0, 200))
def test_any_chunk_gives_texts_or_nothing(body, kind, cut):
    data = SIGNATURE + chunk(kind, body) * 2
    for keyword, text in png_texts(data[: len(data) - cut]):
        assert isinstance(keyword, str)
        assert len(text) <= MAX_TEXT
