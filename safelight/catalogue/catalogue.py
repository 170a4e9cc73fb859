"""The catalogue of one opened vault: filled in the background, asked while it fills.

The vault says which of its pages changed (`Vault.marks`); those are read again, by one thread,
newest first. What is read is never changed, only replaced, so who asks needs no lock for it.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, tzinfo
from typing import TYPE_CHECKING

import numpy as np

from safelight.catalogue.chunk import Chunk, Row
from safelight.catalogue.query import Query
from safelight.catalogue.reading import PageReading
from safelight.catalogue.stock import Page, Stock
from safelight.exits import place_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vault import Vault

__all__ = ["FACETS", "Catalogue", "Group", "Loading"]

FACETS = ("model", "sampler", "tags", "albums")
_KEPT = 8  # results of queries
_GLANCE = 1.0  # seconds between two looks at what other processes changed
_WAY = 0.05  # seconds after the last picture that was opened until reading goes on
_MOST_WAY = 0.3  # seconds that reading waits at most before it goes on for a while


@dataclass(frozen=True, slots=True)
class Loading:
    """How far it is filled, in pages of up to 1024 records.

    damaged: some records did not open; `vault verify` says which. stopped: why nothing is read any
    more, or nothing.
    """

    done: int
    total: int
    damaged: bool
    stopped: str

    @property
    def finished(self) -> bool:
        """Say whether all that the vault held at the last look is here."""
        return self.done == self.total


@dataclass(frozen=True, slots=True)
class Group:
    """The pictures of one day in a query's order: the first one's place, and how many."""

    day: date
    first: int
    count: int


class Catalogue:
    """Pictures of a vault, searchable by everything that is sealed with them.

    Every method may be called from any thread. After `forget` it is empty for good.
    """

    def __init__(
        self,
        vault: "Vault",
        *,
        zone: tzinfo | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Stand before an open vault; `start` begins to read it.

        zone: whose days and dates count; None: this machine's. clock: seconds since 1970.
        """
        self._vault = vault
        self._zone, self._clock = zone, clock
        self._stock, self._total = Stock(), 1
        self._found: OrderedDict[Query, tuple[int, NDArray[np.int32]]] = OrderedDict()
        self._turn = threading.Condition()
        self._asked, self._done = 1, 0  # looks at the vault
        self._looked, self._way = 0.0, 0.0
        self._stopped = ""
        self._thread = threading.Thread(target=self._run, name="catalogue", daemon=True)

    def start(self) -> None:
        """Begin to read the vault, in a thread of its own."""
        self._thread.start()

    def forget(self) -> None:
        """Stop reading and drop everything; do it before the vault is closed."""
        self._stop("the vault is locked")
        if self._thread.is_alive():
            self._thread.join()
        with self._turn:
            self._stock = Stock(self._stock.version + 1)
            self._found.clear()

    def make_way(self) -> None:
        """Let reading wait a moment: somebody opens a picture now, and the vault opens one thing at
        a time.
        """
        self._way = time.monotonic() + _WAY

    def refresh(self, patience: float = 2.0) -> bool:
        """Read what changed; return whether that was done within `patience` seconds.

        For who just wrote. What other processes write is noticed while somebody asks.
        """
        with self._turn:
            self._asked += 1
            mine = self._asked
            self._turn.notify_all()
            self._turn.wait_for(lambda: self._done >= mine or self._stopped != "", patience)
            return self._done >= mine

    @property
    def version(self) -> int:
        """Return a number that grows with every change of what is here."""
        self._glance()
        return self._stock.version

    @property
    def loading(self) -> Loading:
        """Say how far it is filled."""
        pages = self._stock.pages
        damaged = any(page.damaged for page in pages.values())
        return Loading(len(pages), self._total, damaged, self._stopped)

    def count(self, query: str = "") -> int:
        """Return how many pictures fit. Raises QueryError, as all do that take a query."""
        return len(self._places(query)[1])

    def window(self, query: str, start: int, count: int) -> list[Row]:
        """Return up to `count` rows from place `start` of what fits, in the query's order."""
        stock, places = self._places(query)
        return stock.rows(places[max(0, start) : max(0, start) + count])

    def groups(self, query: str = "") -> list[Group]:
        """Return the days of what fits, in order, with how many; none where days do not sort it."""
        parsed = self._parse(query)
        stock, places = self._places(query)
        if parsed.sort not in ("newest", "oldest") or not len(places):
            return []
        days = stock.values("day", places)
        starts = np.flatnonzero(np.diff(days, prepend=days[0] - 1))
        return [
            Group(date.fromordinal(int(days[first])), int(first), int(end - first))
            for first, end in zip(starts, [*starts[1:], len(days)], strict=True)
        ]

    def place(self, query: str, record_id: str) -> int | None:
        """Return a picture's place in what fits, or None."""
        stock, places = self._places(query)
        at = stock.find(record_id)
        found = [] if at is None else np.flatnonzero(places == at).tolist()
        return found[0] if found else None

    def row(self, record_id: str) -> Row | None:
        """Return a picture's row, one in the trash too, or None while it is not known."""
        stock = self._stock
        at = stock.find(record_id)
        return None if at is None else stock.row(at)

    def parent(self, record_id: str) -> str:
        """Return the id of what a picture was made of, or nothing."""
        return self._stock.parent(record_id)

    def children(self, record_id: str) -> list[Row]:
        """Return what was made of a picture, oldest first, without the trash."""
        return self._stock.children(record_id)

    def facet(self, name: str) -> list[tuple[str, int]]:
        """Return the values of one of FACETS and how many pictures outside the trash have each, the
        most frequent first.
        """
        if name not in FACETS:
            raise ValueError(f"facets are {', '.join(FACETS)}; got {name!r}")
        self._glance()
        return self._stock.facet(name)

    def _parse(self, query: str) -> Query:
        today = datetime.fromtimestamp(self._clock(), self._zone).date()
        return Query.parse(query, today)

    def _places(self, text: str) -> "tuple[Stock, NDArray[np.int32]]":
        """Return the places of what fits, int32[n], and the stock that they point into."""
        query = self._parse(text)
        self._glance()
        stock = self._stock
        with self._turn:
            kept = self._found.get(query)
            if kept is not None and kept[0] == stock.version:
                self._found.move_to_end(query)
                return stock, kept[1]
        places = stock.places(query)
        with self._turn:
            if not self._stopped:
                self._found[query] = stock.version, places
                self._found.move_to_end(query)
                if len(self._found) > _KEPT:
                    self._found.popitem(last=False)
        return stock, places

    def _glance(self) -> None:
        """Let the thread look at what others changed, once a second."""
        now = time.monotonic()
        with self._turn:
            if now - self._looked > _GLANCE and self._asked == self._done:
                self._looked = now
                self._asked += 1
                self._turn.notify_all()

    def _run(self) -> None:
        from vault import VaultError

        try:
            while asked := self._next():
                while self._read_changed():
                    pass
                with self._turn:
                    self._done, self._looked = asked, time.monotonic()
                    self._turn.notify_all()
        except VaultError as error:
            self._stop(str(error))
        except Exception as error:  # noqa: BLE001 - its text could hold a prompt: only the place is said
            self._stop(f"a fault of safelight: {type(error).__name__} in {place_of(error)}")

    def _stop(self, why: str) -> None:
        with self._turn:
            self._stopped = self._stopped or why
            self._turn.notify_all()

    def _halted(self) -> bool:
        """Make way for those who open pictures, and say whether it is over."""
        end = time.monotonic() + _MOST_WAY
        with self._turn:
            while not self._stopped and (left := min(self._way, end) - time.monotonic()) > 0:
                self._turn.wait(left)
            return self._stopped != ""

    def _next(self) -> int:
        """Wait for the next look at the vault and return its number; 0: it is over."""
        with self._turn:
            self._turn.wait_for(lambda: self._asked > self._done or self._stopped != "")
            return 0 if self._stopped else self._asked

    def _read_changed(self) -> bool:
        """Read the pages that changed, newest first; return whether there were any."""
        marks = self._vault.marks()
        self._total = len(marks)
        pages = self._stock.pages
        stale = [n for n, mark in enumerate(marks) if n not in pages or pages[n].mark != mark]
        for number in reversed(stale):
            reading = PageReading(self._vault, number)
            chunk = Chunk(reading.records(self._halted), self._zone)
            with self._turn:
                if self._stopped:
                    return False
                page = Page(marks[number], chunk, reading.damaged)
                self._stock = self._stock.with_page(number, page)
        return bool(stale)
