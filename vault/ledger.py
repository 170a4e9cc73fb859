"""Open the index as an authenticated tree: root, pages, record rows, one transaction a change.

Every read starts by comparing (epoch, generation); a changed root is opened again, and an older
one than this session saw is refused.
"""

from collections import OrderedDict
from collections.abc import Collection, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from vault.change import Change
from vault.context import ID_BYTES
from vault.envelope import record_of
from vault.errors import DamagedError
from vault.folded import FoldedPage, FoldedPages
from vault.index import Index, RecordRow, StateRow
from vault.keytree import (
    DIRTY,
    SLOT_BYTES,
    RecordSlot,
    Root,
    open_page,
    open_root,
    read_slot,
    read_slots,
    root_tag,
    seal_root,
    select_slots,
    slots_in,
)
from vault.notes import decode_notes
from vault.opened import OpenedPages, copied
from vault.pending import open_pending
from vault.records import Record
from vault.sealed_record import Opened, open_frames, open_rows
from vault.secret import wipe
from vault.slots import slots_digest
from vault.unlock import Opener

__all__ = ["Ledger"]

_CACHED_PAGES = 64  # of 22 kB each, or 90 kB in older vaults
_BATCH_BYTES = 64 << 20  # of metadata
_GAP = 8  # positions: rows so near are fetched together, and those between with them
_SLOTS_A_BATCH = 1 << 16  # looked through before a scan lets others in


class Ledger:
    """The tree over one index; `opener` gives the root key, now and after an epoch change."""

    def __init__(self, index: Index, vault_id: bytes, opener: Opener) -> None:
        self.vault_id = vault_id
        self.root = Root()
        self.root_tag = bytes(16)
        self.at = (0, 0)  # epoch, generation
        self.index = index
        self._opener = opener
        self.root_key = bytearray()
        self._folded, self._opened = FoldedPages(), OpenedPages()
        self._pages: OrderedDict[int, tuple[bytes, bytes]] = OrderedDict()  # number: tag, slots

    def forget(self) -> None:
        """Overwrite the root key, and drop the keys that hang on it: the next read opens anew."""
        self._take(b"", Root(), bytes(16), (0, 0))
        self._pages.clear()
        self._forget_texts()

    def _forget_texts(self) -> None:
        self._folded.forget()
        self._opened.forget()

    @contextmanager
    def reading(self) -> Generator[None]:
        """Run the block on one authenticated snapshot."""
        with self.index.reading():
            self._refresh()
            yield

    @contextmanager
    def writing(self) -> Generator["Change"]:
        """Yield a change; seal and commit it when the block ends, durable when this returns."""
        with self.index.writing():
            self._refresh()
            change = Change(self)
            yield change
            if change.is_empty():
                return
            epoch, generation = self.at
            at, root_key = (epoch, generation + 1), bytes(self.root_key)
            if change.renewal is not None:
                at, root_key = (epoch + 1, 1), change.renewal.root_key
            root, pages = change.seal(at)
            sealed = seal_root(root_key, self.vault_id, at, root)
            self.index.put_root(sealed)
            self.index.put_state(StateRow(self.vault_id, *at))
            change.await_first()
        if change.renewal is not None:
            self._forget_texts()
        self._take(root_key, root, root_tag(sealed), at)
        for number, page in pages.items():
            self._remember(number, root.pages[number].tag, page)

    def _refresh(self) -> None:
        state = self.index.state()
        if state is None or state.vault_id != self.vault_id:
            raise DamagedError("the index belongs to another vault")
        at = (state.epoch, state.generation)
        if at == self.at:
            return
        if at < self.at:
            raise DamagedError("the index went back in time while it was open: an old copy")
        slots = self.index.slots()
        root_key, own = bytes(self.root_key), None
        if state.epoch != self.at[0]:
            self._forget_texts()
            root_key, own = self._opener.root_key(slots, state.epoch)
        sealed = self.index.root()
        root = open_root(root_key, self.vault_id, at, sealed)
        if slots_digest(slots) != root.slots_digest:
            raise DamagedError(
                "the key slots are not those that the vault knows",
                hint="A slot was removed, planted or damaged. Restore a backup.",
            )
        if own is not None:
            self._check_public(root, own.no)
        self._take(root_key, root, root_tag(sealed), at)

    def _take(self, root_key: bytes, root: Root, tag: bytes, at: tuple[int, int]) -> None:
        """Go over to a root: its time last, so that after an interrupt in between all is read anew.

        The old key is overwritten when it is no longer ours: nothing may be sealed under zeros.
        """
        old, self.root_key = self.root_key, bytearray(root_key)
        wipe(old)
        self.root, self.root_tag = root, tag
        self.at = at

    def _check_public(self, root: Root, no: int) -> None:
        public = self._opener.public()
        named = next((key.public for key in root.slot_keys if key.no == no), None)
        if public != named:
            raise DamagedError("the root does not know the slot that opened it: a forged vault")

    @property
    def notes(self) -> dict[str, Any]:
        """Return the vault's notes (`vault.notes`), a fresh dictionary."""
        return decode_notes(self.root.settings)

    def pending_lists(self) -> list[tuple[int, list[bytes]]]:
        """Return (number, file names) of each list of files that are still to be unlinked.

        A row that does not open is nobody's: its list is empty.
        """
        lists: list[tuple[int, list[bytes]]] = []
        for no, sealed in self.index.pending():
            files: list[bytes] = []
            with suppress(DamagedError):
                files = open_pending(bytes(self.root_key), self.vault_id, (self.at[0], no), sealed)
            lists.append((no, files))
        return lists

    def pending(self) -> tuple[list[bytes], list[int]]:
        """Return the files that are still to be unlinked, and the numbers of their lists."""
        lists = self.pending_lists()
        return [name for _, files in lists for name in files], [no for no, _ in lists]

    def page(self, number: int) -> bytes:
        """Return the slots of a page of the current root."""
        entry = self.root.pages[number]
        cached = self._pages.get(number)
        if cached is not None and cached[0] == entry.tag:
            self._pages.move_to_end(number)
            return cached[1]
        page = open_page(entry, self.vault_id, number, self.index.page(number))
        root = self.root
        if len(page) != slots_in(number, root.page_slots, root.next_position) * SLOT_BYTES:
            raise DamagedError(f"page {number} has another size than the root says")
        self._remember(number, entry.tag, page)
        return page

    def _remember(self, number: int, tag: bytes, page: bytes) -> None:
        self._pages[number] = (tag, page)
        self._pages.move_to_end(number)
        while len(self._pages) > _CACHED_PAGES:
            self._pages.popitem(last=False)

    def slots(self) -> Iterator[RecordSlot]:
        """Yield the slots of all records, oldest first."""
        return (slot for _, slot in self.placed_slots())

    def placed_slots(self) -> Iterator[tuple[int, RecordSlot]]:
        """Yield (position, slot) of all records, oldest first."""
        for number in range(len(self.root.pages)):
            for index, slot in enumerate(read_slots(self.page(number))):
                if slot.word:
                    yield number * self.root.page_slots + index, slot

    def dirty_pages(self) -> set[int]:
        """Return the numbers of the pages that lost a record in this epoch."""
        return {no for no, entry in enumerate(self.root.pages) if entry.flags & DIRTY}

    def pages_of(self, positions: Iterable[int]) -> set[int]:
        """Return the numbers of the pages that hold these positions."""
        return {position // self.root.page_slots for position in positions}

    def find(self, record_id: bytes) -> Opened | None:
        """Return a record, or None when the vault has none of that id.

        Raises DamagedError when its row was deleted, moved or changed.
        """
        position = self.position_of(record_id)
        return None if position is None else self.at_position(position)

    def position_of(self, record_id: bytes) -> int | None:
        """Return a record's position, or None; raises DamagedError unless row and page agree."""
        position = self.index.position_of(record_id)
        if position is None:
            if self.ids_with_prefix(record_id.hex()):
                raise DamagedError("a record's row is gone from the index")
            return None
        slot = None
        if 0 <= position < self.root.next_position:
            slot = self._slot(position)
        if slot is None or slot.record_id != record_id:
            raise DamagedError("a record's row lies where the vault did not put it")
        return position

    def at_position(self, position: int) -> Opened:
        """Return the record at a position; raises DamagedError where none is, or another."""
        slot = self._slot(position)
        if slot is None:
            raise DamagedError("a record's slot is empty")
        return self._open([(position, slot)])[0]

    def _slot(self, position: int) -> RecordSlot | None:
        number, index = divmod(position, self.root.page_slots)
        return read_slot(self.page(number), index)

    def ids_with_prefix(self, prefix: str) -> list[bytes]:
        """Return up to two record ids that start with some hex digits, as the pages know them."""
        raw = bytes.fromhex(prefix[: len(prefix) // 2 * 2])  # an odd digit is compared below
        found: list[bytes] = []
        for number in range(len(self.root.pages)):
            page = self.page(number)
            at = page.find(raw)
            while at >= 0 and len(found) < 2:
                record_id = page[at : at + ID_BYTES]
                if at % SLOT_BYTES == 0 and record_id.hex().startswith(prefix) and any(record_id):
                    found.append(record_id)
                at = page.find(raw, at + 1)
        return found

    def batch(
        self,
        before: int,
        kinds: Collection[int],
        *,
        trashed: bool | None,
        count: int,
        words: Sequence[bytes] | None = None,
    ) -> tuple[list[Record], int]:
        """Return up to `count` records below position `before`, newest first, and where to go on.

        Looks through at most 65,536 slots, so the list may be short, or empty with more to come;
        the end is position 0. words: only records that may hold them all (`Query.raw`).
        """
        before = min(before, self.root.next_position)
        wanted: list[tuple[int, RecordSlot]] = []
        size = self.root.page_slots
        number = last_page = (before - 1) // size
        for number in range(last_page, max(-1, last_page - _SLOTS_A_BATCH // size), -1):
            start = number * size
            among, read = (None, False) if words is None else self._holding(number, words)
            if among != []:
                page, below = self.page(number), before - start
                most = count - len(wanted)
                found = select_slots(page, below, kinds, trashed=trashed, among=among, most=most)
                wanted += [(start + index, slot) for index, slot in found]
            if len(wanted) == count or read:
                break
        records = self._records(wanted)
        ended = len(records) == len(wanted) < count
        return records, max(0, number) * size if ended else records[-1].position

    def _records(self, wanted: Sequence[tuple[int, RecordSlot]]) -> list[Record]:
        """Return the first of the wanted records, as many as fit into memory."""
        entries, records = self.root.pages, dict[int, Record]()
        for number in self.pages_of(position for position, _ in wanted):
            records.update(self._opened.get(number, entries[number]))
        missing = [each for each in wanted if each[0] not in records]
        if missing:
            fitting = self._fitting(missing)
            opened = [(record_of(each), len(each.text)) for each in self._open(fitting)]
            self._opened.keep(opened, self.root)
            records.update((record.position, record) for record, _ in opened)
            if len(fitting) < len(missing):
                wanted = [each for each in wanted if each[0] > missing[len(fitting)][0]]
        return [copied(records[position]) for position, _ in wanted]

    def _holding(self, number: int, words: Sequence[bytes]) -> tuple[list[int], bool]:
        """Return the indices that may hold all words, and whether the page had to be read."""
        entry = self.root.pages[number]
        folded = self._folded.get(number, entry)
        if folded is not None:
            return folded.holding(words), False
        folded = FoldedPage(self._frames(number))
        self._folded.keep(number, entry, folded)
        return folded.holding(words), True

    def _frames(self, number: int) -> Iterator[tuple[int, bytes | None]]:
        """Yield (index, frame) of a page's records; None where it does not open: others may."""
        start = number * self.root.page_slots
        slots = enumerate(read_slots(self.page(number)), start)
        left = [(position, slot) for position, slot in slots if slot.word][::-1]
        while left:
            part = self._fitting(left)
            left = left[len(part) :]
            frames: Sequence[bytes | None] = [None] * len(part)
            with suppress(DamagedError):
                frames = open_frames(self.vault_id, part, self._rows(part))
            for (position, _), framed in zip(part, frames, strict=True):
                yield position - start, framed

    def _fitting(self, wanted: list[tuple[int, RecordSlot]]) -> list[tuple[int, RecordSlot]]:
        """Return the first of `wanted` whose metadata fits into memory, whatever the rows hold."""
        while (
            len(wanted) > 1
            and sum(self.index.meta_bytes(*run) for run in _runs(wanted)) > _BATCH_BYTES
        ):
            wanted = wanted[: len(wanted) // 2]
        return wanted

    def _open(self, wanted: Sequence[tuple[int, RecordSlot]]) -> list[Opened]:
        """Return wanted records (descending positions) with their metadata opened."""
        return open_rows(self.vault_id, wanted, self._rows(wanted))

    def _rows(self, wanted: Sequence[tuple[int, RecordSlot]]) -> dict[int, RecordRow]:
        return {row[0]: row for run in _runs(wanted) for row in self.index.records(*run)}


def _runs(wanted: Sequence[tuple[int, RecordSlot]]) -> list[tuple[int, int]]:
    """Return (first, last) of the stretches that hold these descending positions."""
    runs: list[tuple[int, int]] = []
    for position, _ in wanted:
        if runs and runs[-1][0] - position <= _GAP:
            runs[-1] = position, runs[-1][1]
        else:
            runs.append((position, position))
    return runs
