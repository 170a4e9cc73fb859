"""Bytes that must not be printed: passphrases and keys at the borders of the vault."""

import hmac
from typing import NoReturn

__all__ = ["Secret", "wipe"]


def wipe(key: bytearray) -> None:
    """Overwrite a key with zeros: best effort, since Python and its libraries make copies."""
    key[:] = bytes(len(key))


class Secret:  # noqa: PLW1641 - a hash would be a second door to the value
    """Hold bytes behind a mask: only `reveal` gives them out.

    `repr`, `str` and every format string print the mask, which does not even tell the length.
    Equality takes the same time wherever two secrets of one length differ. A secret cannot be
    pickled or copied, has no hash, and is never equal to plain bytes.
    """

    __slots__ = ("_value",)

    def __init__(self, value: bytes | bytearray | memoryview) -> None:
        self._value = bytearray(value)

    def reveal(self) -> bytes:
        """Return a copy of the bytes."""
        return bytes(self._value)

    def wipe(self) -> None:
        """Overwrite the bytes with zeros. Copies that were revealed are not reached."""
        wipe(self._value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._value, other._value)

    def __repr__(self) -> str:
        return "Secret(***)"

    def __getstate__(self) -> NoReturn:
        raise TypeError("a Secret cannot be copied or pickled")

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret cannot be copied or pickled")
