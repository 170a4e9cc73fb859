"""Find the pictures in a folder and read them: no link followed, nothing larger than it may be."""

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from safelight.exits import UsageError
from safelight.importing.importer import Source
from safelight.picturefile import MAX_BYTES

__all__ = ["Found", "find_pictures", "read_sources"]

SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".webp")
MAX_ENTRIES: Final = 2_000_000  # files and folders looked at


@dataclass(frozen=True, slots=True)
class Found:
    """What lies in a folder: pictures, relative and sorted; how many other files there are."""

    pictures: tuple[str, ...]
    others: int


def find_pictures(folder: Path, *, most: int = MAX_ENTRIES) -> Found:
    """Look through a folder and those in it; links and hidden entries are passed over.

    most: entries that are looked at. Raises FileNotFoundError, NotADirectoryError, and UsageError
    for too many entries.
    """
    pictures: list[str] = []
    others = seen = 0
    waiting = [folder]
    while waiting:
        for entry in _entries(waiting.pop(), top=folder):
            seen += 1
            if seen > most:
                raise UsageError(
                    f"{folder} has more than {most} entries", hint="import it in parts"
                )
            if entry.name.startswith(".") or entry.is_symlink():
                continue
            if entry.is_dir(follow_symlinks=False):
                waiting.append(Path(entry.path))
            elif entry.name.lower().endswith(SUFFIXES):
                pictures.append(str(Path(entry.path).relative_to(folder)))
            else:
                others += 1
    return Found(tuple(sorted(pictures)), others)


def read_sources(folder: Path, pictures: Iterable[str]) -> Iterator[Source]:
    """Read the pictures one by one; a file that cannot be read yields a source that says why."""
    for name in pictures:
        try:
            data, seconds = read_whole(folder / name)
        except OSError as error:
            yield Source(name=name, error=f"it cannot be read: {os.strerror(error.errno or 0)}")
        except UsageError as error:
            yield Source(name=name, error=str(error))
        else:
            when = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
            yield Source(name=name, modified=when, data=data)


def read_whole(path: Path) -> tuple[bytes, float]:
    """Give a regular file's bytes and the time of its last change; raises OSError, UsageError."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    flags |= getattr(os, "O_NONBLOCK", 0)  # a pipe in place of a file must not hold everything up
    with os.fdopen(os.open(path, flags), "rb") as stream:
        state = os.fstat(stream.fileno())
        if not stat.S_ISREG(state.st_mode):
            raise UsageError("it is no ordinary file")
        if state.st_size > MAX_BYTES:
            raise UsageError(f"it has {state.st_size} bytes, more than {MAX_BYTES}")
        data = stream.read(MAX_BYTES + 1)
    return data, max(0.0, state.st_mtime)


def _entries(folder: Path, *, top: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError:
        if folder == top:
            raise
        return []  # a folder inside that cannot be read: its files are not there for us
