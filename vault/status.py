"""Say what a vault holds and what opens it, with its key or without any."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Literal

from vault.context import Kind, kind_of
from vault.errors import NotFoundError, UnsupportedFormatError
from vault.index import Index, SlotRow
from vault.keystore import keystore_name
from vault.keytree import TRASHED, RecordSlot
from vault.layout import FORMAT, Layout, read_header
from vault.slots import SlotType, keyring_fields

__all__ = [
    "SlotStatus",
    "VaultStatus",
    "VaultSummary",
    "count_records",
    "inspect",
    "slot_statuses",
    "slot_word",
]


@dataclass(frozen=True)
class SlotStatus:
    """One opener: its number, type (keyring, phrase, passphrase, both) and name for people."""

    no: int
    type: str
    name: str
    keystore: int | None = None


@dataclass(frozen=True, kw_only=True)
class VaultStatus:
    """What an open vault is like; counts are of records, bytes of files.

    waiting: deleted files that are still to be unlinked. backup, verified: when that was done
    last, ISO 8601, or None.
    """

    vault_id: str
    path: Path
    format: int
    epoch: int
    generation: int
    records: Mapping[Kind, int]
    trashed: int
    slots: tuple[SlotStatus, ...]
    opened_by: str
    keystore: str | None
    files: int
    bytes_on_disk: int
    waiting: int
    backup: str | None
    verified: str | None
    read_only: bool
    warnings: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class VaultSummary:
    """What a folder says without any key. Nothing of it is proven before the vault opens."""

    state: Literal["absent", "unfinished", "ready"]
    path: Path
    vault_id: str | None = None
    format: int | None = None
    slots: tuple[SlotStatus, ...] = ()
    keystore: int | None = None


def inspect(path: str | PathLike[str]) -> VaultSummary:
    """Look at a folder without any key: is a vault there, and what opens it?

    Raises DamagedError, UnsupportedFormatError or StorageError.
    """
    layout = Layout(Path(path))
    try:
        vault_id = read_header(layout.root).hex()
    except NotFoundError:
        return VaultSummary(state="absent", path=layout.root)
    unfinished = VaultSummary(
        state="unfinished", path=layout.root, vault_id=vault_id, format=FORMAT
    )
    try:
        layout.require_index()
        index = Index(layout.index)
    except NotFoundError:
        return unfinished
    try:
        if index.is_unfinished():
            return unfinished
        with index.reading():
            slots = slot_statuses(index.slots())
    finally:
        index.close()
    return VaultSummary(
        state="ready",
        path=layout.root,
        vault_id=vault_id,
        format=FORMAT,
        slots=slots,
        keystore=next((slot.keystore for slot in slots if slot.keystore is not None), None),
    )


def slot_statuses(rows: Sequence[SlotRow]) -> tuple[SlotStatus, ...]:
    """Return the key slots in words; raises UnsupportedFormatError for a type of later releases."""
    return tuple(_slot_status(row) for row in rows)


def slot_word(slot_type: SlotType) -> str:
    """Return the word for what opens a vault: keyring, phrase, passphrase, both."""
    return "both" if slot_type is SlotType.KEYRING_AND_PASSPHRASE else slot_type.name.lower()


def count_records(slots: Iterable[RecordSlot]) -> tuple[dict[Kind, int], int]:
    """Return the records by kind, without the trash, and how many lie in the trash."""
    counts = Counter(slot.word >> 48 for slot in slots)  # kind and flags
    records: Counter[Kind] = Counter()
    trashed = 0
    for word, number in counts.items():
        if word & TRASHED:
            trashed += number
        else:
            records[kind_of(word >> 8)] += number
    return dict(sorted(records.items())), trashed


def _slot_status(row: SlotRow) -> SlotStatus:
    match row.type:
        case SlotType.KEYRING:
            number, _entry = keyring_fields(row)
            return SlotStatus(row.no, "keyring", keystore_name(number), number)
        case SlotType.PHRASE:
            return SlotStatus(row.no, "phrase", "recovery phrase")
        case SlotType.PASSPHRASE:
            return SlotStatus(row.no, "passphrase", "passphrase")
        case SlotType.KEYRING_AND_PASSPHRASE:
            number, _entry = keyring_fields(row)
            name = f"{keystore_name(number)} and passphrase together"
            return SlotStatus(row.no, "both", name, number)
        case _:
            raise UnsupportedFormatError(
                f"key slot {row.no} has type {row.type}, which this program does not know",
                hint="Use a newer release.",
            )
