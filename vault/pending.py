"""Seal the lists of files that a deletion still has to unlink (FORMAT.md, 6 and 8).

A list is committed with the deletion itself, so a crash forgets no file. It is sealed, since the
names of deleted files are nobody's business, and bound to its row number and epoch.
"""

from collections.abc import Sequence

from vault.context import ID_BYTES, Kind, context, number_id
from vault.errors import DamagedError
from vault.frame import frame, unframe
from vault.sealing import expand, open_small, seal_small

__all__ = ["FILES_A_ROW", "open_pending", "seal_pending"]

PENDING_LABEL = b"safelight/vault/1 pending"  # HKDF label: root key -> key of the pending rows
FILES_A_ROW = 10_000  # names of 16 bytes: 160 kB a cell


def seal_pending(
    root_key: bytes, vault_id: bytes, place: tuple[int, int], names: Sequence[bytes]
) -> bytes:
    """Return the sealed list for `place` = (epoch, row number)."""
    payload = frame(b"".join(names), metadata=True)
    return seal_small(expand(root_key, PENDING_LABEL), _context(vault_id, place), payload)


def open_pending(
    root_key: bytes, vault_id: bytes, place: tuple[int, int], sealed: bytes
) -> list[bytes]:
    """Return the file names; raises DamagedError for a row that this epoch did not write."""
    opened = open_small(expand(root_key, PENDING_LABEL), _context(vault_id, place), sealed)
    payload = unframe(opened, metadata=True)
    if len(payload) % ID_BYTES:
        raise DamagedError("a list of deleted files is cut short")
    return [payload[at : at + ID_BYTES] for at in range(0, len(payload), ID_BYTES)]


def _context(vault_id: bytes, place: tuple[int, int]) -> bytes:
    epoch, no = place
    return context(Kind.PENDING, vault_id, number_id(no), epoch)
