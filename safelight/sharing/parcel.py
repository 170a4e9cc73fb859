"""Make the file that is shared, and say what is in it; nothing leaves by this alone."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

from safelight.exits import UsageError
from safelight.infotext import write_infotext
from safelight.picturefile import decode_picture
from safelight.sharing.profile import FORMATS, Format, Share
from safelight.sharing.redaction import redact
from safelight.sharing.xmp import SOURCE_TYPE, xmp_packet

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

    from vault import Record

__all__ = ["Parcel", "pack"]

# What made the picture, and nothing of what its owner says of it, where it came from or went to.
SETTINGS: Final = (
    "prompt",
    "negative_prompt",
    "model",
    "model_hash",
    "settings",
    "beside",
    "backend",
    "device",
    "precision",
    "libraries",
    "version",
    "repairs",
    "tiles",
)
USER_COMMENT: Final = 0x9286  # EXIF
EXIF_IFD: Final = 0x8769
JPEG_TEXT: Final = 65_000  # bytes; a segment of a JPEG holds at most 65,533
WEBP_SIDE: Final = 16_383  # pixels; the format's own limit


@dataclass(frozen=True, kw_only=True, slots=True)
class Parcel:
    """A file that is ready to leave. fields: name and text of all that is in it beside pixels."""

    data: bytes = field(repr=False)
    suffix: str
    media_type: str
    width: int
    height: int
    fields: Mapping[str, str] = field(repr=False)


def pack(record: "Record", data: bytes | bytearray, share: Share) -> Parcel:
    """Make the file anew from a record's picture as a share asks for it.

    No byte of the stored file is copied: it is decoded, upright, what is transparent laid on white,
    and every lowest bit rewritten, since programs hide prompts in lowest bits and in transparency.
    Raises UsageError for a picture that cannot be decoded, or that the format cannot hold.
    """
    image = _clean(decode_picture(data, "the record"))
    kind = FORMATS[share.format]
    fields = _fields(record.metadata, share)
    encoded = _encode(image, kind, fields)
    return Parcel(
        data=encoded,
        suffix=kind.suffix,
        media_type=kind.media_type,
        width=image.width,
        height=image.height,
        fields=fields,
    )


def _clean(pixels: "NDArray[np.uint8]") -> "Image.Image":
    """Replace each value's lowest bit by its highest one: what was hidden there is gone, black
    stays black and white stays white.
    """
    from PIL import Image

    return Image.fromarray((pixels & 0xFE) | (pixels >> 7))


def _fields(metadata: Mapping[str, Any], share: Share) -> dict[str, str]:
    if share.profile == "strip":
        return {}
    fields = {"DigitalSourceType": SOURCE_TYPE}
    if share.profile == "minimal":
        return fields
    kept = redact({key: metadata[key] for key in SETTINGS if key in metadata}, share.redactions)
    # Once more: names that are only written in it, such as a sampler's, are texts too.
    fields["parameters"] = redact(write_infotext(kept), share.redactions)
    if share.profile == "full":
        fields["settings"] = json.dumps(kept, ensure_ascii=False)
    return fields


def _encode(image: "Image.Image", kind: Format, fields: Mapping[str, str]) -> bytes:
    from PIL.PngImagePlugin import PngInfo

    if kind.encoder == "WEBP" and max(image.size) > WEBP_SIDE:
        raise UsageError(
            f"the picture has {image.width}x{image.height} pixels; a WebP file holds {WEBP_SIDE}"
            " a side",
            hint="take png or jpeg",
        )
    options: dict[str, Any] = dict(kind.options)
    if fields:
        packet = xmp_packet(fields.get("settings", ""))
        if kind.encoder == "PNG":
            chunks = PngInfo()
            chunks.add_itxt("XML:com.adobe.xmp", packet.decode())
            if "parameters" in fields:
                chunks.add_text("parameters", fields["parameters"])
            options["pnginfo"] = chunks
        else:
            options["xmp"] = packet
            if "parameters" in fields:
                options["exif"] = _exif(fields["parameters"])
            largest = max(len(packet), len(options.get("exif", b"")))
            if kind.encoder == "JPEG" and largest > JPEG_TEXT:
                raise UsageError(
                    f"the texts have {largest} bytes; a JPEG file holds {JPEG_TEXT} of them",
                    hint="take png or webp, or the profile minimal",
                )
    buffer = BytesIO()
    with image:
        image.save(buffer, kind.encoder, **options)
    return buffer.getvalue()


def _exif(text: str) -> bytes:
    from PIL import Image

    exif = Image.Exif()
    exif.get_ifd(EXIF_IFD)[USER_COMMENT] = b"UNICODE\0" + text.encode("utf-16-be", "replace")
    return exif.tobytes()
