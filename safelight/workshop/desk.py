"""Pictures that a page has laid down to draw from: in memory alone, few, and gone with the lock."""

import secrets
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from safelight.exits import UsageError
from safelight.picturefile import decode_picture

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["MAX_UPLOAD", "Desk"]

MAX_UPLOAD: Final = 32 << 20  # bytes of one encoded picture
MAX_BYTES: Final = 512 << 20  # of all decoded pictures; the oldest make room
MAX_PICTURES: Final = 16


class Desk:
    """Keeps decoded pictures by random names. Safe to use from several threads."""

    def __init__(self) -> None:
        self._pictures: OrderedDict[str, NDArray[np.uint8]] = OrderedDict()
        self._guard = threading.Lock()

    def lay(self, data: bytes) -> str:
        """Decode a picture and keep it; gives its name. Raises UsageError for what is none."""
        if len(data) > MAX_UPLOAD:
            raise UsageError(f"the picture is larger than {MAX_UPLOAD} bytes")
        pixels = decode_picture(data, "the picture")
        name = secrets.token_hex(16)
        with self._guard:
            self._pictures[name] = pixels
            while len(self._pictures) > MAX_PICTURES or self._size() > MAX_BYTES:
                self._pictures.popitem(last=False)
        return name

    def take(self, name: str) -> "NDArray[np.uint8]":
        """Give a picture, uint8[H, W, 3]; it stays. Raises UsageError where it is no longer."""
        with self._guard:
            pixels = self._pictures.get(name)
        if pixels is None:
            raise UsageError("the picture is no longer in memory", hint="choose it once more")
        return pixels

    def clear(self) -> None:
        """Forget them all."""
        with self._guard:
            self._pictures.clear()

    def _size(self) -> int:
        kept = list(self._pictures.values())
        return sum(each.nbytes for each in kept[:-1])  # the newest stays whatever its size
