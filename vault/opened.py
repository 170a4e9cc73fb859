"""What lists opened, kept in memory, so that a list asked for again is quick.

A record counts for the very entry that the root has of its page: whoever changes a row changes
that. So a list may show what the disk no longer holds whole; reading a record or its files, and
`verify`, always ask the disk. Closing forgets all, and so does a new epoch, as in `vault.folded`.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from vault.keytree import PageEntry, Root
from vault.records import Record

__all__ = ["OpenedPages", "copied"]

_HOLDERS = frozenset((dict, list))
_MOST_BYTES = 16 << 20  # of metadata as JSON: about 16,000 records, five times that in memory


class OpenedPages:
    """Opened records by page; when there are too many, those of the oldest pages go."""

    def __init__(self) -> None:
        self._pages: dict[int, tuple[PageEntry, dict[int, Record]]] = {}
        self._sizes: dict[int, int] = {}  # of the pages, in bytes

    def forget(self) -> None:
        """Drop everything."""
        self._pages.clear()
        self._sizes.clear()

    def get(self, number: int, entry: PageEntry) -> Mapping[int, Record]:
        """Return what is kept of a page, by position, as `entry` of the root has it.

        The records are for `copied` only: whoever gets one may change its metadata.
        """
        kept = self._pages.get(number)
        if kept is None:
            return {}
        if kept[0] != entry:
            self._drop(number)
            return {}
        return kept[1]

    def keep(self, opened: Iterable[tuple[Record, int]], root: Root) -> None:
        """Keep records as `root` has them, each with the bytes of its JSON."""
        for record, size in opened:
            number = record.position // root.page_slots
            _, records = self._pages.setdefault(number, (root.pages[number], {}))
            records[record.position] = record
            self._sizes[number] = self._sizes.get(number, 0) + size
        while sum(self._sizes.values()) > _MOST_BYTES:
            self._drop(min(self._pages))

    def _drop(self, number: int) -> None:
        del self._pages[number], self._sizes[number]


def copied(record: Record) -> Record:
    """Return a record with metadata of its own."""
    record_id, position, kind, revision, created, trashed, metadata, blobs = record
    own = _copied(metadata)
    return Record(record_id, position, kind, revision, created, trashed, own, blobs)


def _copied(value: Any) -> Any:
    """Return a copy of a JSON object or array: `copy.deepcopy` takes twenty times as long."""
    own = value.copy()
    for key, each in own.items() if type(value) is dict else enumerate(own):
        if type(each) in _HOLDERS:
            own[key] = _copied(each)
    return own
