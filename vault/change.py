"""What one transaction does to the tree: records put and dropped, files to unlink, notes, keys."""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from vault.index import RecordRow, SlotRow
from vault.keytree import (
    DIRTY,
    PageEntry,
    RecordSlot,
    Root,
    SlotKey,
    seal_page,
    slots_in,
    with_slots,
)
from vault.notes import decode_notes, encode_notes
from vault.pending import FILES_A_ROW, seal_pending
from vault.sealed_record import SealedRecord
from vault.slots import slots_digest

if TYPE_CHECKING:
    from vault.ledger import Ledger

__all__ = ["Change", "Renewal"]

_ROWS_AT_ONCE = 1024  # record rows held before they go to SQLite


@dataclass(frozen=True, repr=False)
class Renewal:
    """The next epoch: its root key, and the slots that wrap it. all_pages: fresh keys for each."""

    root_key: bytes
    slots: Sequence[SlotRow]
    slot_keys: tuple[SlotKey, ...]
    all_pages: bool = False


@dataclass(repr=False)
class Change:
    """One transaction in the making; `Ledger.writing` seals and commits it."""

    ledger: "Ledger"
    renewal: Renewal | None = None
    _next: int = 0
    _slots: dict[int, dict[int, RecordSlot | None]] = field(default_factory=dict)
    _rows: list[RecordRow] = field(default_factory=list)
    _files: list[bytes] = field(default_factory=list)
    _done: list[int] = field(default_factory=list)
    _notes: dict[str, Any] = field(default_factory=dict)
    _empty: bool = True
    _first: Callable[[], object] | None = None

    def __post_init__(self) -> None:
        self._next = self.ledger.root.next_position

    def is_empty(self) -> bool:
        """Say whether nothing was asked: then nothing is sealed, and the generation stays."""
        return self._empty and self.renewal is None

    def after(self, call: Callable[[], object]) -> None:
        """Have a call return before this is committed; what it raises rolls this back."""
        self._first = call

    def await_first(self) -> None:
        """Make that call, if there is one."""
        if self._first is not None:
            self._first()

    def append(self, record: SealedRecord) -> int:
        """Give a new record the next position and return it."""
        position = self._next
        self._next += 1
        self.put(position, record)
        return position

    def put(self, position: int, record: SealedRecord) -> None:
        """Write a record's slot and row at a position."""
        self._set(position, record.slot)
        self._rows.append(RecordRow(position, record.slot.record_id, record.meta))
        if len(self._rows) >= _ROWS_AT_ONCE:
            self._write_rows()

    def drop(self, positions: Iterable[int]) -> None:
        """Empty the slots of records and delete their rows; their pages are dirty from now on."""
        positions = list(positions)
        for position in positions:
            self._set(position, None)
        self.ledger.index.drop_records(positions)

    def _set(self, position: int, slot: RecordSlot | None) -> None:
        self._empty = False
        number, index = divmod(position, self.ledger.root.page_slots)
        self._slots.setdefault(number, {})[index] = slot

    def unlink_later(self, names: Iterable[bytes]) -> None:
        """List sealed files that are to be unlinked once this is committed."""
        self._empty = False
        self._files += names

    def unlinked(self, numbers: Iterable[int]) -> None:
        """Drop lists of files that are gone."""
        self._empty = False
        self._done += numbers

    def note(self, name: str, value: Any) -> None:
        """Set one of the vault's notes (JSON); None removes it."""
        self._empty = False
        self._notes[name] = value

    def seal(self, at: tuple[int, int]) -> tuple[Root, dict[int, bytes]]:
        """Write rows, pages, pending and slots; return the root of `at` and its pages in clear."""
        self._write_rows()
        root = self._with_pending(self._with_notes(self.ledger.root), at[0])
        if self.renewal is not None:
            self.ledger.index.put_slots(self.renewal.slots)
            digest = slots_digest(self.renewal.slots)
            root = replace(root, slots_digest=digest, slot_keys=self.renewal.slot_keys)
        return self._with_pages(root)

    def _write_rows(self) -> None:
        self.ledger.index.put_records(self._rows)
        self._rows.clear()

    def _with_notes(self, root: Root) -> Root:
        if not self._notes:
            return root
        notes = decode_notes(root.settings) | self._notes
        kept = {name: value for name, value in notes.items() if value is not None}
        return replace(root, settings=encode_notes(kept))

    def _with_pending(self, root: Root, epoch: int) -> Root:
        """Write the lists of files; a new epoch has a new key, and takes over the old lists."""
        ledger, seals = self.ledger, root.pending_seals
        files, done, key = list(self._files), list(self._done), bytes(ledger.root_key)
        if self.renewal is not None:
            kept, numbers = ledger.pending()
            files, done, key = kept + files, done + numbers, self.renewal.root_key
        ledger.index.clear_pending(done)
        for start in range(0, len(files), FILES_A_ROW):
            seals += 1
            part = files[start : start + FILES_A_ROW]
            sealed = seal_pending(key, ledger.vault_id, (epoch, seals), part)
            ledger.index.put_pending(seals, sealed)
        return replace(root, pending_seals=seals)

    def _with_pages(self, root: Root) -> tuple[Root, dict[int, bytes]]:
        ledger = self.ledger
        entries: dict[int, PageEntry] = {}
        pages: dict[int, bytes] = {}
        for number in sorted(self._slots.keys() | self._stale_pages()):
            slots = self._slots.get(number, {})
            if number < len(ledger.root.pages):
                entry, page = ledger.root.pages[number], ledger.page(number)
            else:
                entry, page = _fresh_entry(), b""
            lost = any(slot is None for slot in slots.values())
            if self.renewal is not None and (self.renewal.all_pages or lost or entry.flags & DIRTY):
                entry = _fresh_entry()
            elif lost:
                entry = entry._replace(flags=entry.flags | DIRTY)
            page = with_slots(page, slots, slots_in(number, root.page_slots, self._next))
            sealed, entries[number] = seal_page(entry, ledger.vault_id, number, page)
            ledger.index.put_page(number, sealed)
            if self.renewal is None:  # a session keeps few pages, and a purge may touch thousands
                pages[number] = page
        return root.with_pages(entries, self._next), pages

    def _stale_pages(self) -> set[int]:
        """Return the pages that a new epoch puts under fresh keys."""
        if self.renewal is None:
            return set()
        every = self.renewal.all_pages
        pages = enumerate(self.ledger.root.pages)
        return {number for number, entry in pages if every or entry.flags & DIRTY}


def _fresh_entry() -> PageEntry:
    return PageEntry(os.urandom(32), bytes(16), 0, 0)
