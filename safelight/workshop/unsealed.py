"""Incognito pictures: in memory alone, few, and gone with the lock."""

import secrets
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from safelight.exits import UsageError

if TYPE_CHECKING:
    from vault import Draft

__all__ = ["Name", "Unsealed"]

MOST: Final = 64  # pictures; the oldest make room
MAX_BYTES: Final = 256 << 20  # of all encoded pictures


@dataclass(frozen=True, slots=True)
class Name:
    """What an incognito picture is asked for by: looks like a record's id, and is none."""

    id: str


class Unsealed:
    """Stands where the vault does while pictures are made, and writes nothing anywhere.

    Safe to use from several threads.
    """

    def __init__(self) -> None:
        self._drafts: OrderedDict[str, Draft] = OrderedDict()
        self._is_closed = False
        self._guard = threading.Lock()

    def add(self, drafts: "Sequence[Draft]") -> list[Name]:
        """Keep pictures by random names; attempts get a name too, and are forgotten at once."""
        from vault import Kind

        names: list[Name] = []
        with self._guard:
            for draft in drafts:
                name = Name(secrets.token_hex(16))
                names.append(name)
                if draft.kind is Kind.PICTURE and not self._is_closed:
                    self._drafts[name.id] = draft
            while len(self._drafts) > MOST or self._size() > MAX_BYTES:
                self._drafts.popitem(last=False)
        return names

    def find(self, name: str) -> "Draft | None":
        """Give a picture with all that would be sealed of it, or None."""
        with self._guard:
            return self._drafts.get(name)

    def take(self, name: str) -> "Draft":
        """Give a picture and forget it. Raises UsageError where it is no longer."""
        with self._guard:
            draft = self._drafts.pop(name, None)
        if draft is None:
            raise UsageError("this picture was not kept, and is no longer in memory")
        return draft

    def put_back(self, name: str, draft: "Draft") -> None:
        """Keep a picture that was taken under its old name: what was to be done with it failed."""
        with self._guard:
            if not self._is_closed:
                self._drafts[name] = draft

    def close(self) -> None:
        """Forget them all, and what a step that is slower than the lock still brings."""
        with self._guard:
            self._is_closed = True
            self._drafts.clear()

    def _size(self) -> int:
        kept = list(self._drafts.values())[:-1]  # the newest stays whatever its size
        return sum(len(blob.data) for draft in kept for blob in draft.blobs)
