"""What a search opened, kept in memory for the next, so that searching while typing is quick.

A text counts only for the very slot under which it was opened, and only an authenticated page
says what a position's slot is now. Closing forgets all of it, and so does a new epoch, for what a
purge shreds shall not live on here.
"""

from collections.abc import Iterable, Sequence

from vault.keytree import RecordSlot
from vault.sealed_record import Opened

__all__ = ["KeptTexts"]

_MOST_BYTES = 64 << 20  # of metadata: about 130,000 records; beyond, a record is opened each time


class KeptTexts:
    """Opened records by position, up to 64 MiB of metadata."""

    def __init__(self) -> None:
        self._kept: dict[int, Opened] = {}
        self._room = _MOST_BYTES

    def forget(self) -> None:
        """Drop everything."""
        self._kept.clear()
        self._room = _MOST_BYTES

    def known(self, wanted: Sequence[tuple[int, RecordSlot]]) -> list[Opened | None]:
        """Return the record of each (position, slot), or None where this slot's is not kept."""
        kept = self._kept.get
        found = [kept(position) for position, _ in wanted]
        return [
            opened if opened is not None and opened.slot == slot else None
            for opened, (_, slot) in zip(found, wanted, strict=True)
        ]

    def keep(self, records: Iterable[Opened]) -> None:
        """Keep records while there is room."""
        for opened in records:
            old = self._kept.get(opened.position)
            needed = len(opened.text) - (len(old.text) if old is not None else 0)
            if needed <= self._room:
                self._room -= needed
                self._kept[opened.position] = opened
