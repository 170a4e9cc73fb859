"""Read the text chunks of a PNG: bounded, and whatever is broken is passed over.

PNG specification, third edition, 11.3.3: tEXt, zTXt, iTXt.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import Final

__all__ = ["png_texts"]

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
MAX_TEXT: Final = 1 << 20  # bytes of one text, decompressed; a large ComfyUI workflow has 200,000
MAX_CHUNKS: Final = 100_000  # of any kind; a picture of 64 MB in chunks of 8 KB has 8,000
MAX_TEXTS: Final = 64


def png_texts(data: bytes) -> Iterator[tuple[str, str]]:
    """Yield keyword and text of each text chunk, at most 64 of 1 MiB each."""
    at, found = len(SIGNATURE), 0
    view = memoryview(data)
    for _ in range(MAX_CHUNKS):
        if found == MAX_TEXTS or at + 12 > len(data):
            return
        (length,) = struct.unpack_from(">I", data, at)
        kind, body = data[at + 4 : at + 8], view[at + 8 : at + 8 + length]
        at += 12 + length
        if kind in _READERS and 0 < length <= MAX_TEXT:
            text = _READERS[kind](bytes(body))
            if text is not None:
                found += 1
                yield text


def _plain(body: bytes) -> tuple[str, str] | None:
    keyword, mark, text = body.partition(b"\0")
    return (_latin(keyword), _guessed(text)) if mark else None


def _compressed(body: bytes) -> tuple[str, str] | None:
    keyword, mark, rest = body.partition(b"\0")
    text = _inflated(rest[1:]) if mark and rest[:1] == b"\0" else None
    return None if text is None else (_latin(keyword), _guessed(text))


def _international(body: bytes) -> tuple[str, str] | None:
    keyword, mark, rest = body.partition(b"\0")
    parts = rest[2:].split(b"\0", 2)
    if not mark or len(parts) != 3:
        return None
    text = parts[2] if rest[:1] == b"\0" else _inflated(parts[2])
    return None if text is None else (_latin(keyword), text.decode("utf-8", "replace"))


_READERS: Final = {b"tEXt": _plain, b"zTXt": _compressed, b"iTXt": _international}


def _inflated(data: bytes) -> bytes | None:
    """Decompress at most MAX_TEXT bytes; None for more, or for what is no zlib stream."""
    machine = zlib.decompressobj()
    try:
        text = machine.decompress(data, MAX_TEXT)
    except zlib.error:
        return None
    return text if machine.eof else None


def _latin(keyword: bytes) -> str:
    return keyword[:79].decode("latin-1")


def _guessed(text: bytes) -> str:
    """Decode tEXt: Latin-1 by the standard, UTF-8 by what several programs write."""
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError:
        return text.decode("latin-1")
