"""What can be taken back: the last changes of a person, in memory only."""

import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable

from safelight.exits import ApplicationError, ExitStatus

__all__ = ["Undo", "UndoneError"]

MOST = 20  # changes; the oldest makes room
TOKEN_BYTES = 12


class UndoneError(ApplicationError):
    """A change that is too long ago, or was taken back already."""

    status = ExitStatus.USAGE


class Undo:
    """Keep how each change is taken back. Safe from several threads."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._backs: OrderedDict[str, Callable[[], object]] = OrderedDict()

    def keep(self, back: Callable[[], object]) -> str:
        """Keep what takes a change back; return the name that `take_back` wants."""
        token = secrets.token_urlsafe(TOKEN_BYTES)
        with self._guard:
            self._backs[token] = back
            if len(self._backs) > MOST:
                self._backs.popitem(last=False)
        return token

    def take_back(self, token: str) -> None:
        """Take a change back, once. Raises UndoneError when it is not known any more."""
        with self._guard:
            back = self._backs.pop(token, None)
        if back is None:
            raise UndoneError("this cannot be undone any more")
        back()

    def forget(self) -> None:
        """Drop everything: what is kept names tags and notes."""
        with self._guard:
            self._backs.clear()
