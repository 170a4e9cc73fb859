"""A file of another program as a draft for the vault: its bytes as they are, what it says beside.

The original bytes are the picture: nothing is lost, what was imported can leave as it came, and
"verified" means byte by byte. A thumbnail is made; the texts are kept as they were found, unless
they are too large for a record, and then they are in the picture still.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from safelight.exits import UsageError
from safelight.importing.jsontext import text_of
from safelight.importing.programs import recognise
from safelight.importing.texts import picture_texts
from safelight.picturefile import MAX_BYTES, decode_picture
from safelight.pixels import THUMBNAIL_TYPE, encode_thumbnail

if TYPE_CHECKING:
    from vault import Draft

__all__ = ["Original", "mark_of", "read_original"]

MAX_PROMPT: Final = 65_536  # characters, as a request has it
MAX_NAME: Final = 500  # characters of a file's or model's name
# Bytes of JSON of all texts in a record. Every search reads them; a workflow of 100,000 bytes in
# each of 200,000 records would fill the memory, and is in the sealed file anyway.
MAX_KEPT: Final = 16_384
BITS: Final = 63  # of a mark; a whole number, so that no search for words meets it


@dataclass(frozen=True, kw_only=True, slots=True)
class Original:
    """A picture file that was read. mark: tells equal files; program: who made it, '' unknown."""

    data: bytes = field(repr=False)
    media_type: str
    thumbnail: bytes = field(repr=False)
    metadata: Mapping[str, Any] = field(repr=False)
    mark: int
    program: str

    def draft(self) -> "Draft":
        """Give what is sealed."""
        from vault import BlobDraft, Draft, Kind

        return Draft(
            kind=Kind.PICTURE,
            metadata=self.metadata,
            blobs=(
                BlobDraft("picture", Kind.PICTURE, self.media_type, self.data),
                BlobDraft("thumbnail", Kind.THUMBNAIL, THUMBNAIL_TYPE, self.thumbnail),
            ),
        )


def mark_of(data: bytes) -> int:
    """Give the mark of a file's bytes."""
    return int.from_bytes(hashlib.sha256(data).digest()[:8]) >> (64 - BITS)


def read_original(data: bytes, name: str, modified: str = "") -> Original:
    """Read a picture file. name: as it is remembered. modified: ISO 8601, '' where not known.

    Raises UsageError for what is no PNG, JPEG or WebP, is damaged or too large.
    """
    if len(data) > MAX_BYTES:
        raise UsageError(f"it has {len(data)} bytes, more than {MAX_BYTES}")
    pixels = decode_picture(data, "it")
    media_type = _media_type(data)
    texts = picture_texts(data, media_type)
    program, found = recognise(texts)
    kept, left = _kept(texts)
    size = {"width": pixels.shape[1], "height": pixels.shape[0]}
    mark = mark_of(data)
    metadata = {
        "prompt": found["prompt"][:MAX_PROMPT],
        "negative_prompt": found["negative_prompt"][:MAX_PROMPT],
        "model": found["model"][:MAX_NAME],
        "settings": {"seed": None} | found["settings"] | size,
        "tags": [],
        "rating": 0,
        "favourite": False,
        "disclosed": [],
        "imported": {
            "program": program,
            "file": text_of(name)[-MAX_NAME:],
            "modified": modified,
            "mark": mark,
            "text": kept,
            "left_out": left,
        },
    }
    return Original(
        data=data,
        media_type=media_type,
        thumbnail=encode_thumbnail(pixels),
        metadata=metadata,
        mark=mark,
        program=program,
    )


def _media_type(data: bytes) -> str:
    if data[:4] == b"\x89PNG":
        return "image/png"
    return "image/webp" if data[:4] == b"RIFF" else "image/jpeg"


def _kept(texts: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Give the texts that fit into a record, the short ones first, and the names of the others."""
    kept: dict[str, str] = {}
    left: list[str] = []
    room = MAX_KEPT
    for name, text in sorted(texts.items(), key=lambda item: len(item[1])):
        size = len(json.dumps({name: text}, ensure_ascii=False).encode())
        if size <= room:
            kept[name] = text
            room -= size
        else:
            left.append(name)
    return kept, left
