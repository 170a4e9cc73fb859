"""Compiled models on disk, found again by what they were made from.

A blob file is a magic of 16 bytes, 16 bytes of zeros, the sha256 of the rest, the rest. It holds
weights and never a prompt. What does not verify is deleted and made anew; a folder that others can
write is not used at all, since a compiled model is trusted like code.
"""

import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["BlobCache"]

MAGIC = b"safelight-blob-1"
HEADER = 64  # bytes; keeps what follows aligned for vector loads
LIMIT = 16 << 30  # bytes in the folder; SD 1.5 in fp32 takes 3.5 GiB a picture size


class BlobCache:
    """A folder of compiled models; it never raises, since without it one only waits longer."""

    def __init__(self, folder: Path, limit: int = LIMIT) -> None:
        """Use `folder` (made with mode 0700 when first written); at most `limit` bytes are kept."""
        self._folder = folder
        self._limit = limit

    def key(self, parts: Mapping[str, object]) -> str:
        """Hash everything that a compiled model depends on: hex sha256 of canonical JSON."""
        text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def get(self, key: str) -> NDArray[np.uint8] | None:
        """Give the blob u8[n], mapped from the disk, or None; a damaged one is removed."""
        path = self._path(key)
        try:
            if not self._private():
                return None
            mapped = np.memmap(path, dtype=np.uint8, mode="c")  # private pages: writable in name
            if mapped[:16].tobytes() != MAGIC or len(mapped) < HEADER:
                raise ValueError("not a blob")  # noqa: TRY301 - one way out for all damage
            blob: NDArray[np.uint8] = np.asarray(mapped[HEADER:])
            if hashlib.sha256(blob.data).digest() != mapped[32:HEADER].tobytes():
                raise ValueError("damaged")  # noqa: TRY301 - as above
            os.utime(path)  # what was used last is pruned last
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            self.drop(key)
            return None
        return blob

    def put(self, key: str, blob: bytes) -> None:
        """Write a blob so that it is there whole or not at all."""
        path = self._path(key)
        partial = path.with_name(f"{secrets.token_hex(8)}.partial")
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self._private():
                return
            handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(MAGIC + bytes(16) + hashlib.sha256(blob).digest())
                file.write(blob)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
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
        found = [(path, path.stat()) for path in self._folder.glob("*.blob")]
        found.sort(key=lambda each: each[1].st_mtime_ns)
        total = sum(state.st_size for _, state in found)
        for path, state in found:
            if total <= self._limit:
                return
            if path != keep:
                path.unlink(missing_ok=True)
                total -= state.st_size
