"""Encode pictures in memory: no temp file, no text chunk, nothing but pixels."""

from io import BytesIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["PICTURE_TYPE", "THUMBNAIL_TYPE", "encode_picture", "encode_thumbnail"]

PICTURE_TYPE = "image/png"
THUMBNAIL_TYPE = "image/webp"
THUMBNAIL_SIDE = 256  # pixels, the longer side; two device pixels a CSS pixel on a 128-pixel tile
# zlib level of the PNG: 1 costs a third of the default's time for about 5 % more bytes
PNG_LEVEL = 1


def encode_picture(pixels: "NDArray[np.uint8]") -> bytes:
    """Encode uint8[H, W, 3], or grey uint8[H, W], as PNG without text, time or profile chunk."""
    from PIL import Image

    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=PNG_LEVEL)
    return buffer.getvalue()


def encode_thumbnail(pixels: "NDArray[np.uint8]") -> bytes:
    """Encode a reduced copy of uint8[H, W, 3], at most 256 pixels a side, as WebP."""
    from PIL import Image

    image = Image.fromarray(pixels, "RGB")
    image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.LANCZOS)
    buffer = BytesIO()
    image.save(buffer, "WEBP", quality=80, method=2)
    return buffer.getvalue()
