"""What is sealed of a finished picture: its pixels, a thumbnail, how it was made, what went in."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from safelight.pixels import PICTURE_TYPE, THUMBNAIL_TYPE, encode_picture, encode_thumbnail
from safelight.records import picture_metadata, upscaled_metadata

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from engine import Bundle, Choice, Picture
    from engine.inputs import Inputs
    from vault import BlobDraft, Draft, Record

__all__ = ["enlarged_draft", "input_blobs", "picture_blobs", "picture_draft"]


def picture_draft(
    picture: "Picture", more: Mapping[str, Any], inputs: "Iterable[BlobDraft]"
) -> "Draft":
    """Encode a picture for the vault. more: metadata beside the picture's own. inputs: as they are
    sealed with it.
    """
    from vault import Draft, Kind

    return Draft(
        kind=Kind.PICTURE,
        metadata=picture_metadata(picture) | dict(more),
        blobs=(*picture_blobs(picture.pixels), *inputs),
    )


def enlarged_draft(
    pixels: "NDArray[np.uint8]",
    bundle: "Bundle",
    choice: "Choice",
    parent: "Record | None",
    seconds: float,
) -> "Draft":
    """Encode what an upscaler made, uint8[H, W, 3], of `parent` or of a file."""
    from vault import Draft, Kind

    before = None if parent is None else (parent.id, parent.metadata)
    metadata = upscaled_metadata(bundle, choice, pixels.shape[:2], before)
    metadata["seconds"] = {"upscale": round(seconds, 6)}
    return Draft(kind=Kind.PICTURE, metadata=metadata, blobs=picture_blobs(pixels))


def picture_blobs(pixels: "NDArray[np.uint8]") -> "tuple[BlobDraft, BlobDraft]":
    """Encode uint8[H, W, 3] as the two blobs that each picture's record has."""
    from vault import BlobDraft, Kind

    return (
        BlobDraft(
            name="picture",
            kind=Kind.PICTURE,
            media_type=PICTURE_TYPE,
            data=encode_picture(pixels),
        ),
        BlobDraft(
            name="thumbnail",
            kind=Kind.THUMBNAIL,
            media_type=THUMBNAIL_TYPE,
            data=encode_thumbnail(pixels),
        ),
    )


def input_blobs(inputs: "Inputs") -> "tuple[BlobDraft, ...]":
    """Encode the pictures that went in: `init`, `mask`, and `control-0` and on."""
    named = {f"control-{place}": pixels for place, pixels in enumerate(inputs.controls)}
    if inputs.mask.size:
        named = {"mask": inputs.mask} | named
    if inputs.init.size:
        named = {"init": inputs.init} | named
    return tuple(_input_blob(name, pixels) for name, pixels in named.items())


def _input_blob(name: str, pixels: "NDArray[np.uint8]") -> "BlobDraft":
    from vault import BlobDraft, Kind

    data = encode_picture(pixels)
    return BlobDraft(name=name, kind=Kind.INPUT, media_type=PICTURE_TYPE, data=data)
