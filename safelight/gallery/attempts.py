"""Slow down whoever guesses the passphrase."""

import threading
from collections.abc import Callable

__all__ = ["Attempts"]

FREE = 3  # tries before anybody waits
LONGEST = 60.0  # seconds


class Attempts:
    """Count tries until one succeeds: after three, each doubles the wait, up to a minute.

    A try counts when it begins, so that many at once gain nothing. clock: seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._guard = threading.Lock()
        self._tries = 0
        self._next = 0.0

    def begin(self) -> float:
        """Count a try and return 0, or return the seconds until the next one is allowed."""
        with self._guard:
            if (wait := self._next - self._clock()) > 0:
                return wait
            self._tries += 1
            if self._tries >= FREE:
                self._next = self._clock() + min(LONGEST, 2.0 ** (self._tries - FREE))
            return 0.0

    def succeeded(self) -> None:
        """Forget the tries."""
        with self._guard:
            self._tries, self._next = 0, 0.0
