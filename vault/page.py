"""Read a page of records from the index itself, and say what of it does not open."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from vault.errors import DamagedError, NotFoundError, StorageError, VaultError
from vault.index import Index, RecordRow
from vault.keytree import (
    SLOT_BYTES,
    RecordSlot,
    open_page,
    read_slots,
    slots_in,
)
from vault.ledger import Ledger
from vault.records import BlobSeal, Metadata
from vault.sealed_record import open_metadata

__all__ = ["UNREADABLE", "Held", "Problem", "read_page"]

# A bad sector is damage to whoever looks for damage.
UNREADABLE = (DamagedError, NotFoundError, StorageError)
_ROWS = 64  # record rows read at once: up to 75 MB where somebody planted large ones


@dataclass(frozen=True)
class Problem:
    """One fault: what kind, in which record (or None), and what it is, in words for people.

    foreign: something lies there that this program did not make; nothing is lost by it.
    """

    kind: Literal["missing", "damaged", "foreign"]
    record_id: str | None
    text: str


class Held(NamedTuple):
    """A record that opened: its keys, and what it says of its files."""

    slot: RecordSlot
    seals: tuple[BlobSeal, ...]

    def __repr__(self) -> str:
        return f"Held({self.slot.record_id.hex()}, ***)"


def read_page(ledger: Ledger, number: int) -> tuple[list[Held], list[Problem]]:
    """Return the records of a page and what of it does not open; call it inside `reading`.

    Reads the index itself, not the pages that the session keeps: what the disk holds counts.
    """
    root, vault_id = ledger.root, ledger.vault_id
    try:
        page = open_page(root.pages[number], vault_id, number, ledger.index.page(number))
        if len(page) != slots_in(number, root.page_slots, root.next_position) * SLOT_BYTES:
            raise DamagedError("it has another size than the root says")
    except UNREADABLE as error:
        text = f"page {number} of up to {root.page_slots} records does not open: {error}"
        return [], [Problem("damaged", None, text)]
    held: list[Held] = []
    problems: list[Problem] = []
    first = number * root.page_slots
    slots = list(read_slots(page))[: root.next_position - first]
    for start in range(0, len(slots), _ROWS):
        part = slots[start : start + _ROWS]
        rows = _rows(ledger.index, first + start, first + start + len(part) - 1)
        for position, slot in enumerate(part, start=first + start):
            row = rows.get(position)
            if not slot.word:
                if row is not None:
                    text = f"row {position} of the index is no record's"
                    problems.append(Problem("foreign", None, text))
                continue
            record = _held(vault_id, slot, row)
            if isinstance(record, Held):
                held.append(record)
            else:
                problems.append(record)
    return held, problems


def _rows(index: Index, first: int, last: int) -> dict[int, RecordRow | VaultError]:
    """Return the rows by position; where one cannot be read, the error in its place."""
    rows: dict[int, RecordRow | VaultError] = {}
    try:
        rows.update({row[0]: row for row in index.records(first, last)})
    except UNREADABLE as error:
        if first == last:
            return {first: error}
        for position in range(first, last + 1):
            rows.update(_rows(index, position, position))
    return rows


def _held(vault_id: bytes, slot: RecordSlot, row: RecordRow | VaultError | None) -> Held | Problem:
    record_id = slot.record_id.hex()
    if row is None:
        return Problem("missing", record_id, "the record's row is gone from the index")
    if isinstance(row, VaultError):
        return Problem("damaged", record_id, f"the record's row cannot be read: {row}")
    if row[1] != slot.record_id:
        return Problem("damaged", record_id, "another row lies where the record's was")
    try:
        metadata = Metadata.decode(open_metadata(vault_id, slot, row[2]))
    except DamagedError as error:
        return Problem("damaged", record_id, f"the record's metadata does not open: {error}")
    return Held(slot, metadata.blobs)
