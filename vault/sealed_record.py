"""A record's row, sealed and opened: metadata under the key that its page's slot holds."""

from typing import NamedTuple

from vault.context import Kind, context
from vault.frame import frame, unframe
from vault.keytree import REVISION_MASK, RecordSlot, slot_word
from vault.sealing import open_small, seal_small

__all__ = ["Opened", "SealedRecord", "new_slot", "open_metadata", "seal_metadata"]


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
    record_id, _, key, word = slot
    aad = context(word >> 56, vault_id, record_id, word & REVISION_MASK)
    return unframe(open_small(key, aad, sealed), metadata=True)


def new_slot(kind: Kind, entropy: bytes) -> RecordSlot:
    """Return the slot of a new record from 80 random bytes: id and keys, revision 1."""
    return RecordSlot(entropy[:16], entropy[16:48], entropy[48:80], slot_word(kind, 0, 1))
