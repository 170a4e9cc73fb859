"""What happens in the workshop, told to whoever listens: bounded, and never waited for."""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

__all__ = ["Feed", "Listener", "News"]

MOST: Final = 256  # news that wait for a listener; one that is slower than that starts anew
STEP: Final = "step"
QUEUE: Final = "queue"


@dataclass(frozen=True, slots=True)
class News:
    """One thing that happened. name: queue, step, sealed, failed or closed. data: plain JSON."""

    name: str
    data: Mapping[str, Any] = field(default_factory=dict, repr=False)


class Listener:
    """News for one who listens. wake: called, from any thread, when there is something to take."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._news: deque[News] = deque()
        self._guard = threading.Lock()

    def put(self, news: News) -> None:
        """Keep news until they are taken. Of steps in a row only the last one is of interest."""
        with self._guard:
            if news.name == STEP and self._news and self._news[-1].name == STEP:
                self._news.pop()
            if len(self._news) >= MOST:  # the state of the whole queue says what was missed
                self._news.clear()
                self._news.append(News(QUEUE))
            self._news.append(news)
        self._wake()

    def take(self) -> list[News]:
        """Take what there is, oldest first."""
        with self._guard:
            found = list(self._news)
            self._news.clear()
        return found


class Feed:
    """Tells news to all who listen. Safe to use from several threads."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []
        self._guard = threading.Lock()

    @property
    def is_heard(self) -> bool:
        """Say whether anybody listens: else nobody needs to make previews."""
        return bool(self._listeners)

    @property
    def listeners(self) -> int:
        """Count those who listen."""
        return len(self._listeners)

    @contextmanager
    def listen(self, wake: Callable[[], None]) -> Iterator[Listener]:
        """Listen until the block ends."""
        listener = Listener(wake)
        with self._guard:
            self._listeners.append(listener)
        try:
            yield listener
        finally:
            with self._guard:
                self._listeners.remove(listener)

    def tell(self, name: str, **data: Any) -> None:
        """Tell everybody."""
        with self._guard:
            listeners = list(self._listeners)
        for listener in listeners:
            listener.put(News(name, data))
