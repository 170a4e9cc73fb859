"""The hunter must find what it hunts, or its silence proves nothing."""

import base64
import gzip
import io
import zlib

import numpy as np
import pytest
from PIL import Image

from tests.e2e.hunt import found_in, written_files

NEEDLE = b"canary-prompt-7f3a91"


def png_with_text() -> bytes:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("parameters", NEEDLE.decode(), zip=True)
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        b"..." + NEEDLE + b"...",
        "wide".encode("utf-16-le") + NEEDLE.decode().encode("utf-16-le"),
        NEEDLE.decode().encode("utf-32-be"),
        NEEDLE.hex().encode(),
        base64.b64encode(NEEDLE),
        base64.b64encode(b"a" + NEEDLE + b"b"),
        base64.b64encode(b"ab" + NEEDLE),
        b"head" + zlib.compress(b"x" * 100 + NEEDLE, 9),
        b"head" + gzip.compress(NEEDLE, mtime=0),
        png_with_text(),
    ],
    ids="plain utf16 utf32 hex base64 base64-odd base64-even zlib gzip png".split(),
)
def test_every_form_is_found(data):
    assert found_in(data, NEEDLE)


def test_pixels_are_found_inside_a_png():
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    buffer = io.BytesIO()
    # Filter 0 on each row keeps the row as it is; random pixels do not profit from any other.
    Image.fromarray(pixels).save(buffer, "PNG")
    assert found_in(pixels.tobytes(), pixels[5].tobytes()[:48])
    assert found_in(b"x" + buffer.getvalue(), pixels[5, :16].tobytes()) or found_in(
        zlib.compress(pixels.tobytes()), pixels[5, :16].tobytes()
    )


def test_innocent_bytes_are_left_alone():
    noise = np.random.default_rng(1).bytes(200_000)
    assert found_in(noise, NEEDLE) == []


def test_writes_are_read_from_a_trace():
    trace = (
        '7 openat(AT_FDCWD, "/etc/hosts", O_RDONLY|O_CLOEXEC) = 3\n'
        '7 openat(AT_FDCWD, "/a/new", O_WRONLY|O_CREAT|O_EXCL, 0600) = 4\n'
        '[pid 8] rename("/a/new", "/b/final") = 0\n'
    )
    assert {str(path) for path in written_files(trace)} == {"/a/new", "/b/final"}
