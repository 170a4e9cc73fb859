"""Files and folders by descriptor: opened through no link, written whole, flushed, unlinked."""

import os
import sys
from collections.abc import Generator
from contextlib import contextmanager

__all__ = [
    "FIXED_MTIME_NS",
    "FOLDER",
    "NAME_BYTES",
    "fill_file",
    "has_fixed_time",
    "make_file",
    "open_folder",
    "sync",
    "unlink",
]

NAME_BYTES = 16  # a file's name is 128 random bits in hex
# 2000-01-01T00:00:00Z: modification times tell nothing (ctime still does).
FIXED_MTIME_NS = 946_684_800 * 10**9
_MTIME_SLACK_NS = 26 * 3600 * 10**9  # FAT keeps local time, of the time zone that it is read in
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def sync(fd: int) -> None:
    """Flush a file or folder to the medium itself (F_FULLFSYNC where the system has it)."""
    if sys.platform == "darwin":
        import fcntl

        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
    else:
        os.fsync(fd)


@contextmanager
def open_folder(name: str, parent: int) -> Generator[int]:
    """Open a folder by its name in `parent`, following no link."""
    fd = os.open(name, FOLDER, dir_fd=parent)
    try:
        yield fd
    finally:
        os.close(fd)


def has_fixed_time(status: os.stat_result) -> bool:
    """Say whether a file carries the time that this program gives to files."""
    return abs(status.st_mtime_ns - FIXED_MTIME_NS) <= _MTIME_SLACK_NS


def make_file(name: str, folder: int) -> int:
    """Make an empty private file in a folder, and return its descriptor."""
    return os.open(name, _NEW_FILE, 0o600, dir_fd=folder)


def fill_file(fd: int, data: bytes | bytearray) -> None:
    """Write a file, flush it and close it."""
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(fd, rest) :]
        os.utime(fd, ns=(FIXED_MTIME_NS, FIXED_MTIME_NS))
        sync(fd)
    finally:
        os.close(fd)


def unlink(name: str, folder: int) -> bool:
    """Unlink a file of a folder if possible, and say whether it was."""
    try:
        os.unlink(name, dir_fd=folder)
    except OSError:  # best effort, as its callers say
        return False
    return True
