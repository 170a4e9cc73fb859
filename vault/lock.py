"""Lock a vault between processes: a kernel lock on the file `lock`, held for one operation.

Writers and readers share it, `create` and (later) purge take it alone. The kernel drops it when a
process dies, so there is no stale lock.
"""

import os
import stat
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from vault.errors import StorageError

__all__ = ["VaultLock"]

_FIRST_NAP, _LONGEST_NAP = 0.001, 0.05  # seconds between tries


class VaultLock:
    """The lock of one vault folder. Two objects exclude each other within a process as well."""

    def __init__(self, path: Path, *, patience: float = 60.0, read_only: bool = False) -> None:
        """Open the lock file, or make it; raises StorageError where that is refused.

        patience: seconds to wait for others, longer than most operations here take. read_only: the
        file must be there, as on read-only media.
        """
        self._patience = patience
        flags = os.O_RDONLY if read_only else os.O_RDWR | os.O_CREAT
        flags |= os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            self._fd = os.open(path, flags, 0o600)
        except OSError as error:
            raise StorageError(f"the lock file cannot be opened: {error.strerror}") from error
        if not stat.S_ISREG(os.fstat(self._fd).st_mode):
            os.close(self._fd)
            raise StorageError("the lock file is not a regular file")

    def close(self) -> None:
        """Close the file, and with it any lock."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    @contextmanager
    def shared(self) -> Generator[None]:
        """Hold the lock with others; waits with patience, then raises StorageError."""
        self._wait(exclusive=False)
        try:
            yield
        finally:
            self._release()

    @contextmanager
    def exclusive(self) -> Generator[None]:
        """Hold the lock alone; waits with patience, then raises StorageError."""
        self._wait(exclusive=True)
        try:
            yield
        finally:
            self._release()

    @contextmanager
    def exclusive_if_free(self) -> Generator[bool]:
        """Hold the lock alone if nobody holds it; yields whether that is so."""
        got = self._try(exclusive=True)
        try:
            yield got
        finally:
            if got:
                self._release()

    def _wait(self, *, exclusive: bool) -> None:
        if self._try(exclusive=exclusive):
            return
        end, nap = time.monotonic() + self._patience, _FIRST_NAP
        while not self._try(exclusive=exclusive):
            if time.monotonic() > end:
                raise StorageError(
                    "another program holds this vault's lock",
                    hint="Wait until it is done, or close it.",
                )
            time.sleep(nap)
            nap = min(2 * nap, _LONGEST_NAP)

    def _try(self, *, exclusive: bool) -> bool:
        import fcntl

        mode = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
        try:
            fcntl.flock(self._fd, mode | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            raise StorageError(f"this file system has no locks: {error.strerror}") from error
        return True

    def _release(self) -> None:
        import fcntl

        fcntl.flock(self._fd, fcntl.LOCK_UN)
