"""sha256 of files, remembered by device, inode, size and times: large ones are read once."""

import hashlib
import json
import os
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from engine.errors import BundleError
from engine.jsonfile import parse_json

__all__ = ["HashCache"]

CACHE_LIMIT = 1 << 20  # bytes of the cache file
ENTRIES_LIMIT = 4096  # remembered files; two hundred bundles
# A file changed within the clock's tick of its hashing keeps its times: only older ones are kept.
SETTLED = 2.0  # seconds


class HashCache:
    """Computes sha256 as hex, and remembers it while the file stays as it is."""

    def __init__(self, known: dict[str, str], now: Callable[[], float]) -> None:
        self._known = known
        self._now = now
        self._changed = False

    @classmethod
    @contextmanager
    def open(
        cls, path: Path | None, now: Callable[[], float] = time.time
    ) -> "Generator[HashCache]":
        """Read the cache file (None: remember nothing) and write it back when something is new.

        now: the clock that files' times are of, in seconds. A cache that is missing or spoilt is
        an empty one; one that cannot be written is let be.
        """
        cache = cls(_read(path) if path is not None else {}, now)
        yield cache
        if path is not None and cache._changed:
            _write(path, cache._known)

    def sha256(self, path: Path) -> str:
        """Give the sha256 of a file, streaming. Raises BundleError where it cannot be read."""
        try:
            with path.open("rb") as file:
                state = os.fstat(file.fileno())
                key = _identity(state)
                if key in self._known:
                    return self._known[key]
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise BundleError(f"{path.name} cannot be read: {error.strerror}") from error
        if self._is_settled(state):
            self._known[key] = digest
            self._changed = True
        return digest

    def verify(self, state: os.stat_result, check: Callable[[], None]) -> None:
        """Call `check` unless it went well before for the file of this state, as it is now."""
        key = _identity(state)
        if key in self._known:
            return
        check()
        if self._is_settled(state):
            self._known[key] = "good"
            self._changed = True

    def wrote(self, state: os.stat_result) -> None:
        """Remember a file that this process has written whole, under a name that nobody knew."""
        self._known[_identity(state)] = "good"
        self._changed = True

    def _is_settled(self, state: os.stat_result) -> bool:
        return self._now() - max(state.st_mtime, state.st_ctime) > SETTLED

    def once(self, key: str, check: Callable[[], None]) -> None:
        """Call `check` unless it went well before for the same `key`, which names all it reads."""
        if key not in self._known:
            check()
            self._known[key] = "good"
            self._changed = True


def _identity(state: os.stat_result) -> str:
    times = (state.st_mtime_ns, state.st_ctime_ns)
    return ":".join(map(str, (state.st_dev, state.st_ino, state.st_size, *times)))


def _read(path: Path) -> dict[str, str]:
    try:
        with path.open("rb") as file:
            data = file.read(CACHE_LIMIT)
        found = parse_json(data, path.name)
    except (OSError, BundleError):
        return {}
    return {key: value for key, value in found.items() if isinstance(value, str)}


def _write(path: Path, known: dict[str, str]) -> None:
    kept = dict(list(known.items())[-ENTRIES_LIMIT:])
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(kept, file)
        beside.replace(path)
    except OSError:
        with suppress(OSError):
            beside.unlink()
