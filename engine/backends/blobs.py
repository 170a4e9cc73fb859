"""Compiled models on disk, found again by what they were made from.

A blob file is a magic of 16 bytes, 16 bytes of zeros, the sha256 of the rest, the rest. It holds
weights and never a prompt. What does not verify is deleted and made anew; a folder that others can
write is not used at all, since a compiled model is trusted like code. A file is hashed only after
it changed since it was written, by its inode and times: SD 1.5's takes two seconds.
"""

import contextlib
import hashlib
import json
import mmap
import os
import secrets
import shutil
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.hashes import HashCache

__all__ = ["Blob", "BlobCache"]

MAGIC = b"safelight-blob-1"
HEADER = 64  # bytes; keeps what follows aligned for vector loads
LIMIT = 16 << 30  # bytes in the folder; SD 1.5 in fp32 takes 3.5 GiB a picture size
VERIFIED = "verified.json"
DAY = 86400.0  # seconds after which a use is noted: a file's times tell whether it changed
PACE = 0.1  # seconds between two times that memory is given back while a blob is read


@dataclass(frozen=True)
class Blob:
    """A compiled model u8[n], mapped from the disk."""

    data: NDArray[np.uint8]
    _pages: mmap.mmap

    def unload(self) -> None:
        """Give the memory of its pages back: whoever reads them gets them from the disk again.

        A page that was written to would be what it was; nobody writes to a compiled model.
        """
        if sys.platform == "linux":
            self._pages.madvise(mmap.MADV_DONTNEED)

    @contextlib.contextmanager
    def passing(self) -> Generator[None]:
        """Unload it now and then meanwhile, and at the end, while somebody reads it once: SD 1.5's
        has 3.5 GB beside what is made of it.
        """
        over = threading.Event()

        def unload() -> None:
            while not over.wait(PACE):
                self.unload()

        thread = threading.Thread(target=unload, name="blob", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            self.unload()


class BlobCache:
    """A folder of compiled models; it never raises, since without it one only waits longer."""

    def __init__(
        self, folder: Path, limit: int = LIMIT, now: Callable[[], float] = time.time
    ) -> None:
        """Use `folder` (made with mode 0700 when first written); at most `limit` bytes are kept.

        now: the clock that files' times are of, in seconds.
        """
        self._now = now
        self._folder = folder
        self._limit = limit

    def key(self, parts: Mapping[str, object]) -> str:
        """Hash everything that a compiled model depends on: hex sha256 of canonical JSON."""
        text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def get(self, key: str) -> Blob | None:
        """Give the blob, or None; a damaged one is removed."""
        path = self._path(key)
        try:
            if not self._private():
                return None
            with path.open("rb") as file:
                state = os.fstat(file.fileno())
                # private pages: writable in name
                pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            with HashCache.open(self._folder / VERIFIED, self._now) as seen:
                seen.verify(state, lambda: _check(pages))
            if self._now() - state.st_mtime > DAY:
                os.utime(path)  # what was used last is pruned last
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            self.drop(key)
            return None
        return Blob(np.frombuffer(pages, np.uint8, offset=HEADER), pages)

    @contextlib.contextmanager
    def workplace(self) -> Generator[Path | None]:
        """Give an empty private folder beside the blobs, which is removed at the end; None where
        nothing may be written.
        """
        made = self._folder / f"{secrets.token_hex(8)}.partial"
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            there = self._private()
            if there:
                made.mkdir(mode=0o700)
        except OSError:
            there = False
        try:
            yield made if there else None
        finally:
            shutil.rmtree(made, ignore_errors=True)

    def put(self, key: str, parts: Iterable[bytes]) -> None:
        """Write a blob, given in parts, so that it is there whole or not at all."""
        path = self._path(key)
        partial = path.with_name(f"{secrets.token_hex(8)}.partial")
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self._private():
                return
            handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "wb") as file:
                digest = hashlib.sha256()
                file.write(bytes(HEADER))
                for part in parts:
                    digest.update(part)
                    file.write(part)
                file.seek(0)
                file.write(MAGIC + bytes(16) + digest.digest())
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
            with HashCache.open(self._folder / VERIFIED, self._now) as seen:
                seen.wrote(path.stat())
            self._prune(keep=path)
        except OSError:  # a full disk, a read-only home
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)

    def drop(self, key: str) -> None:
        """Forget a blob that turned out to be of no use."""
        with contextlib.suppress(OSError):  # read-only: then it is only slow
            self._path(key).unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.blob"

    def _private(self) -> bool:
        state = self._folder.stat()
        if not hasattr(os, "getuid"):  # Windows: the folder lies in the user's profile
            return True
        return state.st_uid == os.getuid() and not state.st_mode & 0o022

    def _prune(self, keep: Path) -> None:
        for partial in self._folder.glob("*.partial"):  # of a process that was killed
            with contextlib.suppress(FileNotFoundError):
                if self._now() - partial.stat().st_mtime <= DAY:
                    continue
                if partial.is_dir():
                    shutil.rmtree(partial, ignore_errors=True)
                else:
                    partial.unlink()
        found = [(path, path.stat()) for path in self._folder.glob("*.blob")]
        found.sort(key=lambda each: each[1].st_mtime_ns)
        total = sum(state.st_size for _, state in found)
        for path, state in found:
            if total <= self._limit:
                return
            if path != keep:
                path.unlink(missing_ok=True)
                total -= state.st_size


def _check(pages: mmap.mmap) -> None:
    """Raise ValueError for what is no blob or a damaged one."""
    with memoryview(pages) as view, view[HEADER:] as blob:
        if len(view) < HEADER or bytes(view[:16]) != MAGIC:
            raise ValueError("not a blob")
        if hashlib.sha256(blob).digest() != bytes(view[32:HEADER]):
            raise ValueError("damaged")
