"""What is sealed of a finished picture: its pixels, a thumbnail, how it was made, what went in."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from safelight.pixels import PICTURE_TYPE, THUMBNAIL_TYPE, encode_picture, encode_thumbnail
from safelight.records import picture_metadata

if TYPE_CHECKING:
    from engine import Picture
    from vault import BlobDraft, Draft

__all__ = ["picture_draft"]


def picture_draft(
    picture: "Picture", more: Mapping[str, Any], inputs: "Iterable[BlobDraft]"
) -> "Draft":
    """Encode a picture for the vault. more: metadata beside the picture's own. inputs: as they are
    sealed with it.
    """
    from vault import BlobDraft, Draft, Kind

    return Draft(
        kind=Kind.PICTURE,
        metadata=picture_metadata(picture) | dict(more),
        blobs=(
            BlobDraft(
                name="picture",
                kind=Kind.PICTURE,
                media_type=PICTURE_TYPE,
                data=encode_picture(picture.pixels),
            ),
            BlobDraft(
                name="thumbnail",
                kind=Kind.THUMBNAIL,
                media_type=THUMBNAIL_TYPE,
                data=encode_thumbnail(picture.pixels),
            ),
            *inputs,
        ),
    )
