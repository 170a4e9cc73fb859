"""Which process may go on with a vault's jobs: one that is alone with them."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safelight.exits import UsageError

__all__ = ["Claim"]


class Claim:
    """A kernel lock on a vault's folder that open workshops share; the system drops it with the
    process, so that none is left behind.

    Any of the others may be at work on a job that is sealed. So a job that was found there is
    changed under the lock alone, and until it is closed the claim keeps others from that. Nothing
    is locked on Windows, and on file systems that lock no folders.
    """

    def __init__(self, folder: Path) -> None:
        """Share the lock; waits for as long as another takes over a job."""
        self._handle = -1
        if sys.platform != "win32":
            self._handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            self._lock(alone=False)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the lock alone; raises UsageError where another process shares it."""
        if not self._lock(alone=True):
            self._lock(alone=False)  # the kernel drops the shared lock before it tries
            raise UsageError(
                "another gallery has this vault's queue open, and may be at work on this job",
                hint="lock or end the other one first, or change the job there",
            )
        try:
            yield
        finally:
            self._lock(alone=False)

    def close(self) -> None:
        """Let others be alone. Closing twice is allowed."""
        handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)

    def _lock(self, *, alone: bool) -> bool:
        if sys.platform == "win32" or self._handle < 0:
            return True
        import fcntl

        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB if alone else fcntl.LOCK_SH)
        except BlockingIOError:
            return False
        except OSError:  # a network's folder
            return True
        return True
