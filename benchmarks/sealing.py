"""Sealing and durable writing of one picture, beside the same system calls without crypto.

usage: python -m benchmarks.sealing [FOLDER]   (the folder decides which disk is measured)
"""

import os
import secrets
import shutil
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.measure import interleave, save, summary
from vault import BlobDraft, Draft, Kind, MemoryKeyStore, create

__all__ = ["main"]

ROUNDS = 60
PICTURE = 30_000  # bytes; a 128-pixel PNG
LARGE = 500_000  # bytes; a 512-pixel PNG
THUMBNAIL = 3_000
METADATA = 900  # bytes of JSON in an ordinary record


def drafts(size: int) -> list[Draft]:
    """Give one draft with a picture of `size` random bytes and a thumbnail."""
    parts = (("picture", Kind.PICTURE, size), ("thumbnail", Kind.THUMBNAIL, THUMBNAIL))
    blobs = tuple(
        BlobDraft(name=name, kind=kind, media_type="image/png", data=secrets.token_bytes(length))
        for name, kind, length in parts
    )
    return [Draft(kind=Kind.PICTURE, metadata={"prompt": "x" * METADATA}, blobs=blobs)]


def plain(folder: Path, size: int) -> Callable[[], None]:
    """Give the same durable writes in the clear: the same files, syncs, renames and transaction.

    Per blob: exclusive file, fsync, rename, fsync of both folders. Then one SQLite transaction
    with the vault's settings that changes three rows: page (6 kB), root, record.
    """
    for name in ("incoming", "blobs"):
        (folder / name).mkdir(parents=True)
    index = sqlite3.connect(folder / "index.sqlite", isolation_level=None)
    for pragma in ("journal_mode=DELETE", "synchronous=EXTRA", "secure_delete=ON"):
        index.execute(f"PRAGMA {pragma}")
    index.execute("CREATE TABLE page (no INTEGER PRIMARY KEY, sealed BLOB)")
    index.execute("CREATE TABLE root (no INTEGER PRIMARY KEY, sealed BLOB)")
    index.execute("CREATE TABLE record (pos INTEGER PRIMARY KEY, meta BLOB)")
    payload = {length: secrets.token_bytes(length) for length in (size, THUMBNAIL)}
    page = secrets.token_bytes(64 * 88 + 28)  # as many slots as the vault writes here

    def write(data: bytes) -> None:
        name = secrets.token_hex(16)
        draft = folder / "incoming" / name
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        os.write(descriptor, data)
        os.fsync(descriptor)
        os.close(descriptor)
        draft.rename(folder / "blobs" / name)
        for parent in ("incoming", "blobs"):
            descriptor = os.open(folder / parent, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)

    def run() -> None:
        for data in payload.values():
            write(data)
        index.execute("BEGIN IMMEDIATE")
        index.execute("INSERT OR REPLACE INTO page VALUES (0, ?)", (page,))
        index.execute("INSERT OR REPLACE INTO root VALUES (0, ?)", (page[:512],))
        index.execute("INSERT INTO record (meta) VALUES (?)", (page[:METADATA],))
        index.execute("COMMIT")

    return run


def main() -> None:
    """Measure and save benchmarks/results/sealing.json."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "sealing-work").absolute()
    results: dict[str, Any] = {}
    for name, size in (("30 kB", PICTURE), ("500 kB", LARGE)):
        with create(
            folder / f"vault-{size}", keystore=MemoryKeyStore(), confirm=lambda _: None
        ) as vault:
            batch = drafts(size)
            calls: dict[str, Callable[[], object]] = {
                "sealed": lambda vault=vault, batch=batch: vault.add(batch),
                "plain": plain(folder / f"plain-{size}", size),
            }
            times = interleave(calls, rounds=ROUNDS)
        medians = {key: summary(value) for key, value in times.items()}
        ratio = float(medians["sealed"]["median"]) / float(medians["plain"]["median"])
        results[name] = {"seconds": medians, "sealed / plain": round(ratio, 3)}
    shutil.rmtree(folder)
    path = save("sealing", "one picture and thumbnail, durable on disk, alone", results)
    sys.stdout.write(f"{path}\n{results}\n")


if __name__ == "__main__":
    main()
