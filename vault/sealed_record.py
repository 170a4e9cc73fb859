"""A record's row, sealed and opened: metadata under the key that its page's slot holds."""

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from vault.context import LABEL, Kind, context
from vault.errors import DamagedError
from vault.frame import frame, unframe
from vault.keytree import REVISION_MASK, RecordSlot, slot_word
from vault.sealing import seal_small

__all__ = [
    "Opened",
    "SealedRecord",
    "new_slot",
    "open_frames",
    "open_metadata",
    "open_rows",
    "seal_metadata",
]

_CONTEXT = struct.Struct(">B16sQ")  # kind, record id, revision: what follows label and vault id


class SealedRecord(NamedTuple):
    """A record ready for a transaction: its slot, and its metadata sealed under the slot's key."""

    slot: RecordSlot
    meta: bytes


class Opened(NamedTuple):
    """A record's place, keys and opened metadata (JSON bytes)."""

    position: int
    slot: RecordSlot
    text: bytes

    def __repr__(self) -> str:
        return f"Opened({self.position}, ***)"


def seal_metadata(vault_id: bytes, slot: RecordSlot, text: bytes) -> SealedRecord:
    """Return a record whose metadata is sealed for its slot's kind, id and revision."""
    aad = context(slot.kind, vault_id, slot.record_id, slot.revision)
    return SealedRecord(slot, seal_small(slot.metadata_key, aad, frame(text, metadata=True)))


def open_metadata(vault_id: bytes, slot: RecordSlot, sealed: bytes) -> bytes:
    """Return the JSON that `seal_metadata` sealed; raises DamagedError for anything else."""
    (opened,) = open_rows(vault_id, [(0, slot)], {0: (0, slot.record_id, sealed)})
    return opened.text


def open_rows(
    vault_id: bytes,
    wanted: Sequence[tuple[int, RecordSlot]],
    rows: Mapping[int, tuple[int, bytes, bytes]],
) -> list[Opened]:
    """Return the wanted records of `rows`, (position, record id, sealed metadata) by position.

    Raises DamagedError when a row is gone or another's.
    """
    return [
        Opened(position, slot, unframe(framed, metadata=True))
        for (position, slot), framed in zip(
            wanted, open_frames(vault_id, wanted, rows), strict=True
        )
    ]


def open_frames(
    vault_id: bytes,
    wanted: Iterable[tuple[int, RecordSlot]],
    rows: Mapping[int, tuple[int, bytes, bytes]],
) -> list[bytes]:
    """Return the frames of `open_rows`, not looked into: the hot loop of every list and search."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    head = LABEL + vault_id
    frames: list[bytes] = []
    for position, (record_id, _, key, word) in wanted:
        row = rows.get(position)
        if row is None or row[1] != record_id:
            raise DamagedError("a record's row is gone from the index, or another is there")
        sealed = row[2]
        # `context` and `open_small`, written out: a call costs as much as the cipher.
        aad = head + _CONTEXT.pack(word >> 56, record_id, word & REVISION_MASK)
        try:
            frames.append(AESGCM(key).decrypt(sealed[:12], sealed[12:], aad))
        except (InvalidTag, ValueError):  # ValueError: too short for a nonce
            raise DamagedError("a sealed row does not open: damaged, swapped or replayed") from None
    return frames


def new_slot(kind: Kind, entropy: bytes) -> RecordSlot:
    """Return the slot of a new record from 80 random bytes: id and keys, revision 1."""
    return RecordSlot(entropy[:16], entropy[16:48], entropy[48:80], slot_word(kind, 0, 1))
