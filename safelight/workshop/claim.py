"""Which process may go on with the jobs that lie in a vault: one that is alone with them."""

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from safelight.exits import UsageError

if TYPE_CHECKING:
    from vault import Vault

__all__ = ["Claim"]


class Claim:
    """A kernel lock on a vault's folder that open workshops share; the system drops it with the
    process, so that none is left behind.

    Any of the others may be at work on a job that is sealed. So a job that was found there is
    changed under the lock alone, and until it is closed the claim keeps others from that. Nothing
    is locked on Windows, and on file systems that lock no folders.
    """

    def __init__(self, vault: "Vault", found: Iterable[str]) -> None:
        """Share the lock; waits for as long as another takes over a job. found: ids of jobs."""
        self._vault = vault
        self._found = set(found)
        self._handle = -1
        if sys.platform != "win32":
            self._handle = os.open(vault.path, os.O_RDONLY | os.O_DIRECTORY)
            self._lock(alone=False)

    def take_over(self, job_id: str) -> bool:
        """Make a found job this process's own; false where another one has done it meanwhile.

        Raises UsageError while another process may be at work on it. Other jobs are own anyway.
        """
        from vault import NotFoundError

        if job_id not in self._found:
            return True
        with self._alone():
            try:
                self._vault.get(job_id)
                is_there = True
            except NotFoundError:
                is_there = False
            self._found.discard(job_id)
        return is_there

    @contextmanager
    def _alone(self) -> Iterator[None]:
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
