"""What a search read, kept in memory a page at a time, so that searching while typing is quick.

It only says where words may be: what is found is opened again from the disk. A page's texts count
for the very entry that the root has of it. Closing forgets all of them, and so does a new epoch,
for what a purge shreds shall not live on here: at once where the purge runs, in another process
when it next looks at the vault.
"""

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Sequence

from vault.frame import LENGTH_BYTES
from vault.keytree import PageEntry
from vault.search import fold_json

__all__ = ["FoldedPage", "FoldedPages"]

_MOST_BYTES = 64 << 20  # of text: about 160,000 records; beyond, a page is read each time


class FoldedPage:
    """The folded texts of a page's records, one after the other.

    records: (index in the page, frame of its JSON); without one a record may hold anything. Length
    and padding of a frame are not compared: what is found is opened again, and they are then.
    """

    def __init__(self, records: Iterable[tuple[int, bytes | None]]) -> None:
        parts: list[bytes] = []
        self._ends, self._indices, self._open = array("Q"), array("H"), set[int]()
        self.size = 0
        for index, framed in records:
            folded = None
            if framed is not None and self.size <= _MOST_BYTES:
                # What words are looked for in lies behind this key; before it is half the text,
                # names and beginnings of files. Where it is not found, all of it counts.
                start = max(LENGTH_BYTES, framed.find(b'"data":', LENGTH_BYTES))
                folded = fold_json(framed[start:].rstrip(b"\0"))
            if folded is None:
                self._open.add(index)
                continue
            parts.append(folded)
            self.size += len(folded) + 1
            self._ends.append(self.size)
            self._indices.append(index)
        parts.append(b"")
        self._text = b"\0".join(parts)  # JSON escapes a zero, so no word reaches over one

    def holding(self, words: Sequence[bytes]) -> list[int]:
        """Return the indices of the records that may hold all words, descending."""
        found: set[int] | None = None
        for word in words:
            having = self._with(word)
            found = having if found is None else found & having
            if not found:
                break
        if found is None:
            found = set(self._indices)
        return sorted(found | self._open, reverse=True)

    def _with(self, word: bytes) -> set[int]:
        found: set[int] = set()
        at = self._text.find(word)
        while at >= 0:
            record = bisect_right(self._ends, at)
            found.add(self._indices[record])
            at = self._text.find(word, self._ends[record])
        return found


class FoldedPages:
    """Folded pages by number, up to 64 MiB of text."""

    def __init__(self) -> None:
        self._pages: dict[int, tuple[PageEntry, FoldedPage]] = {}
        self._room = _MOST_BYTES

    def forget(self) -> None:
        """Drop everything."""
        self._pages.clear()
        self._room = _MOST_BYTES

    def get(self, number: int, entry: PageEntry) -> FoldedPage | None:
        """Return a page as `entry` of the root has it, or None when that is not kept."""
        kept = self._pages.get(number)
        return kept[1] if kept is not None and kept[0] == entry else None

    def keep(self, number: int, entry: PageEntry, page: FoldedPage) -> None:
        """Keep a page if there is room; an older one of its number goes."""
        old = self._pages.pop(number, None)
        self._room += old[1].size if old is not None else 0
        if page.size <= self._room:
            self._room -= page.size
            self._pages[number] = entry, page
