"""Slow down whoever guesses the passphrase."""

import threading
from collections.abc import Callable

__all__ = ["Attempts"]

FREE = 3  # wrong tries before anybody waits
LONGEST = 60.0  # seconds


class Attempts:
    """Count wrong tries: after three, each doubles the wait, up to a minute. clock: seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._guard = threading.Lock()
        self._wrong = 0
        self._next = 0.0

    def wait(self) -> float:
        """Return the seconds until the next try is allowed; 0 when it is now."""
        with self._guard:
            return max(0.0, self._next - self._clock())

    def failed(self) -> None:
        """Count a wrong try."""
        with self._guard:
            self._wrong += 1
            if self._wrong >= FREE:
                self._next = self._clock() + min(LONGEST, 2.0 ** (self._wrong - FREE))

    def succeeded(self) -> None:
        """Forget the wrong tries."""
        with self._guard:
            self._wrong, self._next = 0, 0.0
