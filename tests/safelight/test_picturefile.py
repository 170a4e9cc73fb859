"""A picture from a file that may be anything: upright, on white, bounded, or one sentence."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from safelight.exits import ApplicationError, ExitStatus, UsageError, exit_status
from safelight.picturefile import MAX_BYTES, MAX_PIXELS, read_picture

ROTATED = 6  # EXIF: the first row is the right side


def saved(path, image, **options):
    image.save(path, **options)
    return path


def png_of(width, height):
    """Write a PNG that claims this size and holds next to nothing."""

    def chunk(kind, data):
        whole = kind + data
        return struct.pack(">I", len(data)) + whole + struct.pack(">I", zlib.crc32(whole))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 100))
        + chunk(b"IEND", b"")
    )


def noise():
    buffer = io.BytesIO()
    pixels = np.random.default_rng(1).integers(0, 256, (40, 40, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_picture_comes_as_it_is(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 256, (5, 7, 3), np.uint8)
    found = read_picture(saved(tmp_path / "a.png", Image.fromarray(pixels)), "the picture")
    assert found.dtype == np.uint8
    assert np.array_equal(found, pixels)


def test_what_is_transparent_lies_on_white(tmp_path):
    pixels = np.zeros((2, 2, 4), np.uint8)
    pixels[0, 0] = (255, 0, 0, 255)
    found = read_picture(saved(tmp_path / "a.png", Image.fromarray(pixels)), "the picture")
    assert found[0, 0].tolist() == [255, 0, 0]
    assert found[1, 1].tolist() == [255, 255, 255]


def test_a_camera_s_turn_is_applied(tmp_path):
    image = Image.new("RGB", (20, 10), (0, 0, 255))
    exif = Image.Exif()
    exif[0x0112] = ROTATED
    file = saved(tmp_path / "a.jpg", image, exif=exif)
    assert read_picture(file, "the picture").shape == (20, 10, 3)


@pytest.mark.parametrize("mode", ["L", "P", "1", "LA", "CMYK", "I;16"])
def test_every_kind_of_colour_becomes_three(tmp_path, mode):
    file = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    image = Image.new("L", (4, 3), 200)
    image = Image.new("I;16", (4, 3), 200) if mode == "I;16" else image.convert(mode)
    assert read_picture(saved(file, image), "the picture").shape == (3, 4, 3)


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"", "the picture, x.png, is no picture that can be read"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no picture"),
        (b"GIF89a" + bytes(50), "no picture"),
        (noise()[:2000], "no picture"),
        (png_of(8192, 8193), "has 8192x8193 pixels, more than"),
        (png_of(30_000, 30_000), "far too many pixels"),
        (png_of(0, 8), "no picture"),
    ],
    ids=["empty", "svg", "gif", "cut", "large", "bomb", "flat"],
)
def test_what_is_none_is_one_sentence_and_status_2(tmp_path, data, match):
    file = tmp_path / "x.png"
    file.write_bytes(data)
    with pytest.raises(UsageError, match=match) as raised:
        read_picture(file, "the picture")
    assert exit_status(raised.value) == ExitStatus.USAGE


def test_a_large_file_is_not_read_through(tmp_path):
    file = tmp_path / "x.png"
    with file.open("wb") as stream:
        stream.truncate(MAX_BYTES + 1)
    with pytest.raises(UsageError, match="larger than"):
        read_picture(file, "the picture")
    assert MAX_PIXELS < Image.MAX_IMAGE_PIXELS  # so that our sentence comes before a warning


def test_what_is_not_there_or_no_file(tmp_path):
    with pytest.raises(FileNotFoundError) as raised:
        read_picture(tmp_path / "none.png", "the picture")
    assert exit_status(raised.value) == ExitStatus.NOT_FOUND
    with pytest.raises(UsageError, match="cannot be read from"):
        read_picture(tmp_path, "the picture")


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_damaged_file_is_a_picture_or_a_sentence(tmp_path, data):
    kind = data.draw(st.sampled_from(["PNG", "JPEG", "WEBP"]))
    buffer = io.BytesIO()
    Image.new("RGB", (9, 9), (10, 200, 30)).save(buffer, kind)
    content = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    file = tmp_path / "x"
    file.write_bytes(content)
    try:
        found = read_picture(file, "the picture")
    except ApplicationError:
        return
    assert found.ndim == 3
