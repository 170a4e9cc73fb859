"""Turn a draft into sealed files and a sealed record, and open a record's blob again."""

import hmac
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from vault.context import Kind, context, kind_of
from vault.errors import BadValueError, DamagedError
from vault.frame import LENGTH_BYTES, Framed, padme, strip_frame
from vault.keytree import RecordSlot
from vault.records import Blob, BlobSeal, Draft, Metadata, Record, decode_record
from vault.sealed_record import Opened, SealedRecord, new_slot, seal_metadata
from vault.sealing import (
    PREFIX_BYTES,
    check_blob,
    encrypt_blob,
    expand,
    open_blob,
    sealed_blob_size,
)

__all__ = ["Envelope", "blob_size", "open_envelope", "record_of", "seal_draft"]

BLOB_LABEL = b"safelight/vault/1 blob"  # HKDF label: record's blob key -> key of one file
BLOB_LIMIT = 1 << 30  # bytes: a blob is sealed in memory
_ENTROPY = 80  # bytes: id 16, blob key 32, metadata key 32


@dataclass(frozen=True, repr=False)
class Envelope:
    """A draft, sealed: what the transaction writes.

    text: the metadata's JSON, so that the record shown is the one stored. files: what `check_blob`
    takes, for each.
    """

    sealed: SealedRecord
    text: bytes
    files: Sequence[tuple[bytes, bytes, Framed, bytearray]]

    def check(self) -> None:
        """Open each file again and compare it, before anything relies on it.

        Raises StorageError where one does not open to its plaintext.
        """
        for each in self.files:
            check_blob(*each)


def seal_draft(
    vault_id: bytes, draft: Draft, created: str, put: Callable[[bytes, bytearray], object]
) -> Envelope:
    """Seal a draft under fresh keys. put: takes name and bytes of each file as it is sealed.

    The files are not looked at again yet: the caller does that (`Envelope.check`) while the disk
    is at work. Raises BadValueError for metadata that is no JSON object.
    """
    if not isinstance(draft.metadata, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise BadValueError("a record's metadata is a dictionary of plain JSON")
    slot = new_slot(draft.kind, os.urandom(_ENTROPY))
    seals: list[BlobSeal] = []
    files: list[tuple[bytes, bytes, Framed, bytearray]] = []
    for blob in draft.blobs:
        if len(blob.data) > BLOB_LIMIT:
            raise BadValueError(
                f"a blob has {len(blob.data)} bytes; up to {BLOB_LIMIT} are accepted"
            )
        name = os.urandom(16)
        about = context(blob.kind, vault_id, slot.record_id, slot.revision)
        key, framed = _file_key(slot, blob.kind, name), Framed(blob.data)
        sealed = encrypt_blob(key, about, framed)
        put(name, sealed)
        files.append((key, about, framed, sealed))
        known = Blob(blob.name, blob.kind, blob.media_type, len(blob.data))
        seals.append(BlobSeal(known, name, bytes(sealed[:PREFIX_BYTES]), slot.revision))
    text = Metadata(created, None, tuple(seals), dict(draft.metadata)).encode()
    return Envelope(seal_metadata(vault_id, slot, text), text, files)


def blob_size(seal: BlobSeal) -> int:
    """Return the exact bytes of a blob's sealed file."""
    return sealed_blob_size(padme(LENGTH_BYTES + seal.blob.length))


def open_envelope(
    vault_id: bytes, slot: RecordSlot, seal: BlobSeal, sealed: bytearray
) -> bytearray:
    """Return a blob's plaintext.

    Raises DamagedError unless file and record vouch for each other: prefix, key, context, length.
    """
    if not hmac.compare_digest(sealed[:PREFIX_BYTES], seal.prefix):
        raise DamagedError("a sealed file is not the one that its record names")
    about = context(seal.blob.kind, vault_id, slot.record_id, seal.revision)
    key = _file_key(slot, seal.blob.kind, seal.file)
    plaintext = strip_frame(open_blob(key, about, sealed))
    if len(plaintext) != seal.blob.length:
        raise DamagedError("a sealed file has another length than its record says")
    return plaintext


def record_of(opened: Opened) -> Record:
    """Return the record that an application sees; raises DamagedError for bent metadata."""
    created, trashed, data, blobs = decode_record(opened.text)
    slot = opened.slot
    kind, record_id = kind_of(slot.kind), slot.record_id.hex()
    revision, place = slot.revision, opened.position
    return Record(record_id, place, kind, revision, created, trashed, data, blobs)


def _file_key(slot: RecordSlot, kind: Kind, name: bytes) -> bytes:
    return expand(slot.blob_key, BLOB_LABEL + bytes((kind,)) + name)
