"""Read a picture from a file that may be anything: bounded, never stretched, nothing executed."""

import warnings
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from safelight.exits import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["decode_picture", "read_picture"]

MAX_BYTES = 64 << 20  # of a file; a photograph of 50 megapixels has 20 MB
MAX_PIXELS = 1 << 26  # 8192 x 8192: 200 MB decoded
FORMATS = ("PNG", "JPEG", "WEBP")
WHITE = (255, 255, 255, 255)


def read_picture(file: Path, what: str) -> "NDArray[np.uint8]":
    """Give the picture in `file` as uint8[H, W, 3], upright, what is transparent laid on white.

    what: names it in messages. Raises UsageError for what is too large, no picture or cannot be
    read, and FileNotFoundError.
    """
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UsageError(f"{what} cannot be read from {file.name}: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise UsageError(f"{what} is larger than {MAX_BYTES} bytes: {file.name}")
    return decode_picture(data, f"{what}, {file.name},")


def decode_picture(data: bytes | bytearray, what: str) -> "NDArray[np.uint8]":
    """Give the encoded picture as `read_picture` does. Raises UsageError."""
    import numpy as np
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata; the size is looked at below
            image = Image.open(BytesIO(data), formats=FORMATS)
            width, height = image.size
            if width * height <= MAX_PIXELS:
                upright = ImageOps.exif_transpose(image).convert("RGBA")
                paper = Image.new("RGBA", upright.size, WHITE)
                return np.asarray(Image.alpha_composite(paper, upright).convert("RGB"))
    except Image.DecompressionBombError:
        width, height = 0, 0
    except Exception as error:  # decoders raise what they like on damaged files
        raise UsageError(
            f"{what} is no picture that can be read", hint=f"one of: {', '.join(FORMATS)}"
        ) from error
    size = f"{width}x{height}" if width else "far too many"
    raise UsageError(f"{what} has {size} pixels, more than {MAX_PIXELS} in all")
