"""All chunks that are known, newest first: an immutable whole that readers keep while they ask."""

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from safelight.catalogue.chunk import Chunk, Row, id_words
from safelight.catalogue.matching import matching
from safelight.catalogue.query import Query

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Page", "Stock"]

_BITS = 10  # of a row's place in its chunk; a place in the stock is chunk << 10 | row
_ROW = (1 << _BITS) - 1


@dataclass(frozen=True, slots=True)
class Page:
    """A page of the vault as it was read. damaged: some of its records did not open."""

    mark: bytes
    chunk: Chunk
    damaged: bool


@dataclass(frozen=True, slots=True)
class Stock:
    """Pages by number, the highest first, and a version that grows with each change."""

    version: int = 0
    pages: dict[int, Page] = field(default_factory=dict[int, Page])

    def with_page(self, number: int, page: Page) -> "Stock":
        """Return the stock with a page put in or replaced."""
        pages = self.pages | {number: page}
        if number not in self.pages:
            pages = {each: pages[each] for each in sorted(pages, reverse=True)}
        return Stock(self.version + 1, pages)

    @property
    def chunks(self) -> tuple[Chunk, ...]:
        """Return the chunks, newest first."""
        return tuple(page.chunk for page in self.pages.values())

    def places(self, query: Query) -> "NDArray[np.int32]":
        """Return the places of the pictures that fit, int32[n], in the query's order."""
        parts = [
            np.flatnonzero(matching(chunk, query)).astype(np.int32) + (at << _BITS)
            for at, chunk in enumerate(self.chunks)
        ]
        places = np.concatenate([np.empty(0, np.int32), *parts]).astype(np.int32)
        created = self.values("created", places)
        # Positions follow the clock but for a clock that was set back.
        if np.any(np.diff(created) > 0):
            places = places[np.argsort(-created, kind="stable")]
        if query.sort == "oldest":
            return places[::-1]
        if query.sort == "newest":
            return places
        keys = np.nan_to_num(self.values(query.sort, places).astype(float), nan=-np.inf)
        return places[np.argsort(-keys, kind="stable")]

    def values(self, column: str, places: "NDArray[np.int32]") -> "NDArray[Any]":
        """Return a column's values at these places."""
        chunks = self.chunks
        if not chunks:
            return np.empty(0)
        starts = np.cumsum([0, *map(len, chunks[:-1])])
        whole = np.concatenate([chunk.columns[column] for chunk in chunks])
        return whole[starts[places >> _BITS] + (places & _ROW)]

    def row(self, place: int) -> Row:
        """Return the row at a place."""
        return self.chunks[place >> _BITS].row(place & _ROW)

    def rows(self, places: "NDArray[np.int32]") -> list[Row]:
        """Return the rows at these places."""
        chunks = self.chunks
        return [chunks[place >> _BITS].row(place & _ROW) for place in places.tolist()]

    def find(self, record_id: str) -> int | None:
        """Return the place of a picture, one in the trash too."""
        wanted = id_words(record_id)
        for at, chunk in enumerate(self.chunks):
            found = chunk.places_of(wanted)
            if len(found):
                return at << _BITS | int(found[0])
        return None

    def parent(self, record_id: str) -> str:
        """Return the id of what a picture was made of, or nothing."""
        at = self.find(record_id)
        if at is None:
            return ""
        high, low = self.chunks[at >> _BITS].columns["parent"][at & _ROW].tolist()
        return f"{high:016x}{low:016x}" if high or low else ""

    def children(self, record_id: str) -> list[Row]:
        """Return what was made of a picture, oldest first, without the trash."""
        wanted = id_words(record_id)
        if wanted == (0, 0):
            return []
        found = [
            chunk.row(int(index))
            for chunk in self.chunks
            for index in chunk.places_of(wanted, "parent")
            if not chunk.columns["trashed"][index]
        ]
        return found[::-1]

    def facet(self, name: str) -> list[tuple[str, int]]:
        """Return a table's values and how many pictures outside the trash have each, the most
        frequent first.
        """
        counts: Counter[str] = Counter()
        for chunk in self.chunks:
            kept = chunk.columns[name][chunk.columns["trashed"] == 0]
            for value, number in zip(chunk.tables[name], np.bincount(kept), strict=False):
                for each in (value,) if isinstance(value, str) else value:
                    counts[each] += int(number)
        return sorted(
            ((value, number) for value, number in counts.items() if value and number),
            key=lambda pair: (-pair[1], pair[0]),
        )
