"""Read the records of one page of the vault; what does not open is passed over, and said."""

from collections.abc import Callable, Iterator
from itertools import takewhile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vault import Record, Vault

__all__ = ["PAGE", "PageReading"]

PAGE = 1024  # positions that a mark of `Vault.marks` stands for
_AT_ONCE = 256  # records read before others get at the vault


class PageReading:
    """One pass over a page. damaged: some of its records did not open; `verify` says which."""

    def __init__(self, vault: "Vault", number: int) -> None:
        self._vault = vault
        self._first, self._end = number * PAGE, (number + 1) * PAGE
        self.damaged = False

    def records(self, stopped: Callable[[], bool]) -> Iterator["Record"]:
        """Yield the pictures of the page, newest first, those in the trash too."""
        from vault import DamagedError

        cursor = self._end
        while cursor > self._first and not stopped():
            try:
                batch = self._below(cursor, _AT_ONCE)
            except DamagedError:
                yield from self._one_by_one(cursor)
                return
            yield from batch
            if len(batch) < _AT_ONCE:
                return
            cursor = batch[-1].position

    def _below(self, before: int, count: int) -> "list[Record]":
        listed = self._vault.list(before=before, limit=count, trashed=None)
        return list(takewhile(lambda record: record.position >= self._first, listed))

    def _one_by_one(self, cursor: int) -> Iterator["Record"]:
        from vault import DamagedError

        self.damaged = True
        while cursor > self._first:
            try:
                found = self._below(cursor, 1)
            except DamagedError:  # the one right below, or one under an empty place
                cursor -= 1
                continue
            if not found:
                return
            yield from found
            cursor = found[0].position
