"""Say what each sealed thing means: kinds, and the fixed-width context that every seal binds.

A ciphertext that is moved, renamed or replayed opens under no other context (FORMAT.md, 3).
"""

import struct
from enum import IntEnum

from vault.errors import BadValueError, UnsupportedFormatError

__all__ = [
    "CONTEXT_BYTES",
    "ID_BYTES",
    "LABEL",
    "PUBLIC_KINDS",
    "Kind",
    "context",
    "id_bytes",
    "id_prefix",
    "kind_of",
    "number_id",
]

LABEL = b"safelight/vault/1\0"  # names the format; a later format seals under another label
ID_BYTES = 16  # vault ids and record ids: 128 random bits
CONTEXT_BYTES = 59  # 18 label + 16 vault id + 1 kind + 16 id + 8 revision
_SHORTEST_PREFIX = 4  # hex digits: fewer are a slip of the finger
_HEX_DIGITS = frozenset("0123456789abcdefABCDEF")
_FIELDS = struct.Struct(">18s16sB16sQ")


class Kind(IntEnum):
    """What a record or a blob is. The numbers are part of the format and are never given again."""

    PICTURE = 1
    ATTEMPT = 2
    THUMBNAIL = 3
    INPUT = 4
    JOB = 5
    PRESET = 6
    WORDLIST = 7
    MODEL = 8
    # The vault's own, from 128.
    ROOT = 128
    PAGE = 129
    PENDING = 130
    SLOT = 131


_KINDS = {int(kind): kind for kind in Kind}  # `Kind(number)` takes eight times as long
PUBLIC_KINDS = frozenset(kind for kind in Kind if kind < 128)


def context(kind: int, vault_id: bytes, thing_id: bytes, revision: int) -> bytes:
    """Return the 59 bytes that bind a seal to vault, kind, thing and revision.

    `thing_id` is a record id, or `number_id(n)` for the root (epoch), a page or a pending row.
    Raises BadValueError when a width or the range of the revision (0 .. 2^64-1) is wrong.
    """
    if len(vault_id) != ID_BYTES or len(thing_id) != ID_BYTES:
        raise BadValueError(f"ids are {ID_BYTES} bytes, got {len(vault_id)} and {len(thing_id)}")
    try:
        return _FIELDS.pack(LABEL, vault_id, kind, thing_id, revision)
    except struct.error:
        raise BadValueError("revision or kind is out of its range") from None


def kind_of(number: int) -> Kind:
    """Return the kind of a number; raises UnsupportedFormatError for one of another release."""
    try:
        return _KINDS[number]
    except KeyError:
        raise UnsupportedFormatError(
            f"a record has kind {number}, which this program does not know",
            hint="Use a newer release.",
        ) from None


def id_bytes(text: str) -> bytes:
    """Return a record id's 16 bytes; raises BadValueError unless it has 32 hex digits."""
    if len(text) != 2 * ID_BYTES or not _is_hex(text):
        raise BadValueError("a record id has 32 hex digits")
    return bytes.fromhex(text)


def id_prefix(text: str) -> str:
    """Return the start of a record id in lower case.

    Raises BadValueError unless it has 4 to 32 hex digits.
    """
    if not _SHORTEST_PREFIX <= len(text) <= 2 * ID_BYTES or not _is_hex(text):
        raise BadValueError(f"an id starts with {_SHORTEST_PREFIX} to 32 hex digits")
    return text.lower()


def _is_hex(text: str) -> bool:
    return set(text) <= _HEX_DIGITS


def number_id(number: int) -> bytes:
    """Return a number as a 16-byte big-endian id: the root's epoch, a page's or a row's number."""
    return number.to_bytes(ID_BYTES, "big")
