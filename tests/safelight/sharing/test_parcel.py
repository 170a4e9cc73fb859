"""A shared file holds what its profile names, and nothing else: looked at byte by byte."""

import io
import json
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from safelight.exits import UsageError
from safelight.infotext import read_infotext
from safelight.pixels import encode_picture
from safelight.sharing import FORMATS, PROFILES, Share, pack
from safelight.sharing.redaction import redact
from safelight.sharing.xmp import SOURCE_TYPE
from tests.safelight.sharing.chunks import parts
from vault import Kind, Record

PROMPT = "a canary, in (Anna's:1.2) garden — ünï"
METADATA = {
    "prompt": PROMPT,
    "negative_prompt": "blurry",
    "model": "pocket",
    "model_hash": "ab" * 32,
    "settings": {
        "width": 64,
        "height": 48,
        "steps": 20,
        "sampler": "euler_a",
        "schedule": "karras",
        "guidance_scale": 7.5,
        "seed": 2**40,
    },
    "tags": ["private tag"],
    "note": "private note",
    "albums": ["private album"],
    "rating": 5,
    "parent": "0123456789abcdef0123456789abcdef",
    "disclosed": [{"when": "2026-11-24T12:00:00.000+00:00", "way": "reveal"}],
    "imported": {"text": {"parameters": "private text"}},
    "seconds": {"load": 1.0},
}


def record(metadata=METADATA):
    return Record("f" * 32, 1, Kind.PICTURE, 1, "2026-11-24T12:00:00.000Z", None, metadata, {})


def pixels(mode="RGB"):
    rng = np.random.default_rng(7)
    channels = len(mode)
    smooth = np.linspace(0, 255, 48 * 64 * channels).reshape(48, 64, channels)
    return np.clip(smooth + rng.normal(0, 8, smooth.shape), 0, 255).astype(np.uint8)


def stealth(channels, text):
    """Hide a text as the stealth extensions do: a signature, a length and bits in lowest bits."""
    payload = b"stealth_pnginfo" + (8 * len(text)).to_bytes(4, "big") + text
    bits = np.unpackbits(np.frombuffer(payload, np.uint8))
    flat = channels.transpose(1, 0, 2).reshape(-1).copy()
    flat[: bits.size] = (flat[: bits.size] & 0xFE) | bits
    return flat.reshape(channels.shape[1], channels.shape[0], -1).transpose(1, 0, 2)


def hidden(data):
    """Give all that lies in the lowest bits, of colours and of transparency."""
    image = np.asarray(Image.open(io.BytesIO(data)).convert("RGBA")).transpose(1, 0, 2)
    return b"".join(
        np.packbits(part.reshape(-1) & 1).tobytes() for part in (image[..., :3], image[..., 3:])
    )


@pytest.mark.parametrize("form", sorted(FORMATS))
def test_strip_leaves_pixels_alone(form):
    parcel = pack(record(), encode_picture(pixels()), Share(format=form))
    assert parts(parcel.data) == []
    assert parcel.fields == {}
    with Image.open(io.BytesIO(parcel.data)) as image:
        assert (image.size, Image.MIME[image.format]) == ((64, 48), parcel.media_type)
        error = np.asarray(image, dtype=float) - pixels()
    assert np.sqrt(np.mean(error**2)) < (1 if form == "png" else 8)


@pytest.mark.parametrize("form", sorted(FORMATS))
@pytest.mark.parametrize("profile", sorted(PROFILES))
def test_what_a_profile_does_not_name_stays(form, profile):
    parcel = pack(record(), encode_picture(pixels()), Share(profile=profile, format=form))
    beside = b"".join(name.encode() + content for name, content in parts(parcel.data))
    for text in ("private", "0123456789abcdef0123", "ffffffff", "2026-11-24", "seconds"):
        for encoding in ("utf-8", "utf-16-be", "utf-16-le"):
            assert text.encode(encoding) not in beside, (text, encoding)
    says_prompt = any("canary".encode(code) in beside for code in ("utf-8", "utf-16-be"))
    assert says_prompt == (profile in {"a1111", "full"})
    assert (SOURCE_TYPE.encode() in beside) == (profile != "strip")
    assert (b"safelight:settings" in beside) == (profile == "full")
    assert (
        list(parcel.fields)
        == {
            "strip": [],
            "minimal": ["DigitalSourceType"],
            "a1111": ["DigitalSourceType", "parameters"],
            "full": ["DigitalSourceType", "parameters", "settings"],
        }[profile]
    )


@pytest.mark.parametrize("form", sorted(FORMATS))
def test_other_programs_find_the_parameters_where_they_look(form):
    parcel = pack(record(), encode_picture(pixels()), Share(profile="a1111", format=form))
    with Image.open(io.BytesIO(parcel.data)) as image:
        image.load()
        if form == "png":
            text = image.text["parameters"]
        else:
            comment = image.getexif().get_ifd(0x8769)[0x9286]
            assert comment[:8] == b"UNICODE\0"
            text = comment[8:].decode("utf-16-be")
    assert text == parcel.fields["parameters"]
    assert read_infotext(text)["prompt"] == PROMPT
    assert read_infotext(text)["settings"] == METADATA["settings"]


def test_full_holds_every_setting_as_json_in_the_xmp():
    parcel = pack(record(), encode_picture(pixels()), Share(profile="full"))
    settings = json.loads(parcel.fields["settings"])
    assert settings["settings"] == METADATA["settings"]
    with Image.open(io.BytesIO(parcel.data)) as image:
        packet = image.info["xmp"]
    tree = ET.fromstring(packet)  # noqa: S314 - our own bytes
    found = {element.tag.rpartition("}")[2]: element.text for element in tree.iter()}
    assert found["DigitalSourceType"] == SOURCE_TYPE
    assert json.loads(found["settings"]) == settings


@pytest.mark.parametrize("form", sorted(FORMATS))
@pytest.mark.parametrize("channels", ["colour", "alpha"])
def test_what_stealth_extensions_hid_is_gone(form, channels):
    secret = b"a canary prompt that nobody sees"
    picture = pixels("RGBA")
    picture[..., 3] = 254
    if channels == "colour":
        picture[..., :3] = stealth(picture[..., :3], secret)
    else:
        picture[..., 3:] = stealth(picture[..., 3:], secret)
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    assert secret in hidden(buffer.getvalue())
    for profile in PROFILES:
        parcel = pack(record(), buffer.getvalue(), Share(profile=profile, format=form))
        assert secret[:4] not in hidden(parcel.data)
        assert b"stealth" not in hidden(parcel.data)


def test_the_lowest_bit_says_nothing_that_the_others_do_not():
    parcel = pack(record(), encode_picture(pixels()), Share())
    after = np.asarray(Image.open(io.BytesIO(parcel.data)))
    assert np.array_equal(after & 1, after >> 7)
    assert np.array_equal(after & 0xFE, pixels() & 0xFE)
    for level in (0, 255):
        flat = encode_picture(np.full((8, 8, 3), level, np.uint8))
        same = np.asarray(Image.open(io.BytesIO(pack(record(), flat, Share()).data)))
        assert (same == level).all()


@pytest.mark.parametrize("form", sorted(FORMATS))
def test_redacted_words_are_in_no_byte_of_the_file(form):
    share = Share(profile="full", format=form, redactions=("ANNA", "in  canary"))
    metadata = METADATA | {"prompt": "In\ncanary Annas an annanna garden", "model": "anna-xl"}
    parcel = pack(record(metadata), encode_picture(pixels()), share)
    for encoding in ("utf-8", "utf-16-be"):
        for word in ("anna", "canary"):
            assert word.encode(encoding) not in parcel.data.lower()
    assert json.loads(parcel.fields["settings"])["prompt"] == "s an nna garden"


def test_a_word_that_only_the_parameters_text_has_is_redacted_too():
    share = Share(profile="a1111", redactions=("Euler a", "karras"))
    text = pack(record(), encode_picture(pixels()), share).fields["parameters"]
    assert "Sampler: , CFG" in text  # the schedule is "karras" in the record too, so it goes whole
    assert "karras" not in text.lower()


def test_redaction_reaches_nested_texts_and_gives_up_whole_texts_before_time():
    assert redact({"a": ["xAx", {"b": "A b"}], "n": 1}, ["a"]) == {"a": ["xx", {"b": "b"}], "n": 1}
    assert redact("ab" * 3 + "keep", ["ab"]) == "keep"
    assert redact("a" * 500 + "b" * 500, ["ab"]) == ""
    assert redact("Stra\u00dfe u\u0308ber", ["\u00dcBER"]) == "Stra\u00dfe"
    assert redact("  as it was ", []) == "  as it was "


def test_a_jpeg_and_a_turned_picture_are_made_anew_too():
    turned = Image.fromarray(pixels())
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "a canary description"
    buffer = io.BytesIO()
    turned.save(buffer, "JPEG", exif=exif.tobytes(), comment=b"canary", quality=95)
    parcel = pack(record(), buffer.getvalue(), Share(format="jpeg"))
    assert parts(parcel.data) == []
    assert (parcel.width, parcel.height) == (48, 64)


def test_what_cannot_be_shared_so_is_one_sentence():
    long = record(METADATA | {"prompt": "x" * 60_000})
    data = encode_picture(pixels())
    with pytest.raises(UsageError, match="a JPEG file holds 65000"):
        pack(long, data, Share(profile="full", format="jpeg"))
    assert len(pack(long, data, Share(profile="full", format="webp")).data) > 60_000
    wide = encode_picture(np.zeros((1, 17_000, 3), np.uint8))
    with pytest.raises(UsageError, match="16383"):
        pack(record(), wide, Share(format="webp"))
    with pytest.raises(UsageError, match="no picture"):
        pack(record(), b"broken", Share())
    for wrong in ({"profile": "all"}, {"format": "gif"}, {"redactions": (" ",)}):
        with pytest.raises(UsageError):
            Share(**wrong)
