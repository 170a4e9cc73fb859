"""Folders that one process alone works in."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safelight.exits import UsageError

__all__ = ["locked"]


@contextmanager
def locked(folder: Path, busy: str) -> Iterator[None]:
    """Keep other processes out of a folder until the block ends or this process does.

    Raises UsageError with the sentence `busy` where another one is in it. Nothing on Windows.
    """
    if sys.platform == "win32":
        yield
        return
    import fcntl

    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(busy, hint="wait for it to end") from None
        yield
    finally:
        os.close(handle)
