"""All texts that a picture file holds, by name: PNG chunks, and EXIF of any format."""

from collections.abc import Iterator
from io import BytesIO
from typing import Any, Final

from safelight.importing.pngtext import png_texts

__all__ = ["USER_COMMENT", "picture_texts", "user_comment"]

USER_COMMENT: Final = "UserComment"  # the name of EXIF's field among the texts
_EXIF_IFD: Final = 0x8769
# EXIF tag -> name. Programs put texts into fields that were meant for cameras.
_TAGS: Final = {
    0x010E: "ImageDescription",
    0x010F: "Make",
    0x0110: "Model",
    0x0131: "Software",
    0x9286: USER_COMMENT,
    0x927C: "MakerNote",
}
MAX_TEXT: Final = 1 << 20  # bytes of one field


def picture_texts(data: bytes, media_type: str) -> dict[str, str]:
    """Read every text of a PNG, JPEG or WebP; the first of a name counts. Never raises."""
    found: dict[str, str] = {}
    if media_type == "image/png":
        for name, text in png_texts(data):
            found.setdefault(name, _sealable(text))
    for name, text in _exif_texts(data):
        found.setdefault(name, _sealable(text))
    return {name: text for name, text in found.items() if text}


def user_comment(value: bytes) -> str:
    """Decode EXIF's UserComment: eight bytes name its encoding, and programs differ in what they
    write behind `UNICODE`: UTF-16 of either order, or UTF-8.
    """
    code, text = value[:8], value[8:]
    if code == b"UNICODE\0":
        if text[:2] in {b"\xff\xfe", b"\xfe\xff"}:
            return text.decode("utf-16", "replace")
        return max(
            (text.decode(order, "replace") for order in ("utf-16-be", "utf-16-le", "utf-8")),
            key=_plausible,
        )
    if code in {b"ASCII\0\0\0", b"\0" * 8}:
        value = text
    return value.decode("utf-8", "replace").strip("\0")


def _exif_texts(data: bytes) -> Iterator[tuple[str, str]]:
    for tag, value in _exif(data).items():
        if isinstance(value, tuple) or len(value) > MAX_TEXT:
            continue
        name = _TAGS[tag]
        if isinstance(value, str):
            yield name, value.strip("\0 ")
        elif name == USER_COMMENT:
            yield name, user_comment(value)
        else:
            yield name, value.decode("utf-8", "replace").strip("\0 ")


def _exif(data: bytes) -> dict[int, Any]:
    """Give the fields of `_TAGS` that hold text or bytes; nothing where EXIF is broken."""
    import warnings

    from PIL import Image

    from safelight.picturefile import FORMATS

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of corrupt EXIF
            with Image.open(BytesIO(data), formats=FORMATS) as image:
                exif = image.getexif()
                fields = dict(exif) | dict(exif.get_ifd(_EXIF_IFD))
    except Exception:  # noqa: BLE001 - parsers raise what they like on damaged files
        return {}
    return {tag: fields[tag] for tag in _TAGS if isinstance(fields.get(tag), str | bytes)}


def _plausible(text: str) -> float:
    """Say how much of it are letters as prompts have them, and not what wrong order makes."""
    good = sum(char.isascii() and (char.isprintable() or char in "\n\r\t") for char in text)
    return good / max(1, len(text)) - text.count("\ufffd") - text.count("\0")


def _sealable(text: str) -> str:
    """Replace half characters, which no JSON in UTF-8 can hold."""
    return text.encode("utf-8", "replace").decode("utf-8")
