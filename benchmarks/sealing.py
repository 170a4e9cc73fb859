"""Sealing and durable writing of one picture, beside the same system calls without crypto.

"plain" is the bare system calls; "no cipher" the vault's own code with a cipher that copies and
keys that are zeros: what encryption costs is the difference to that. "1,024 a page" is a vault of
the first root version, whose pages are four times as large.

usage: python -m benchmarks.sealing [FOLDER]   (the folder decides which disk is measured)
"""

import fcntl
import itertools
import os
import secrets
import shutil
import sqlite3
import sys
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks.measure import interleave, save, summary
from vault import BlobDraft, Draft, Kind, MemoryKeyStore, Vault, create, creation, sealing
from vault.adding import DRAFTS_A_TRANSACTION
from vault.connection import connect
from vault.frame import LENGTH_BYTES, metadata_size
from vault.keytree import SLOT_BYTES, Root, slots_in
from vault.sealing import OVERHEAD_BYTES, TAG_BYTES, sealed_blob_size

__all__ = ["main"]

BLOCKS = 20  # each in folders of its own: where files come to lie decides how long they take
ROUNDS = 50  # a block
HELD = 896  # records that a vault holds before: jobs, without files
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


def plain(stack: ExitStack, folder: Path, size: int, held: int = 0) -> Callable[[], None]:
    """Give the system calls of `Vault.add` in the clear: the same looks at the index, lock, files,
    syncs, renames and rows, in the same schema and order.

    Per file: exclusive, fixed times, fsync; then renames into two of 256 folders, a sync of each,
    and one of where they came from: one after the other, where the vault waits for several at once.
    Then one SQLite transaction with the vault's settings: record (its id is indexed), page and root
    (as large as the vault's by then), state. held: records that the vault holds before. stack:
    closes what this opens.
    """
    for name in ("incoming", *(f"blobs/{shard:02x}" for shard in range(256))):
        (folder / name).mkdir(parents=True)
    incoming, blobs, lock = (_open(stack, folder / name) for name in ("incoming", "blobs", "."))
    (folder / "index.sqlite").touch(0o600)
    index = stack.enter_context(closing(connect(folder / "index.sqlite", fresh=True)))
    looks = [f"{folder}/index.sqlite{suffix}" for suffix in ("", "-wal", "-shm", "-journal")]
    # As long as what is sealed: prefix and tags, slots, sealed rows.
    files = [secrets.token_bytes(sealed_blob_size(length + 24)) for length in (size, THUMBNAIL)]
    a_page = Root().page_slots
    page = secrets.token_bytes(_row_bytes(a_page * SLOT_BYTES))
    root, meta = secrets.token_bytes(_row_bytes(350)), secrets.token_bytes(METADATA + 320)
    positions = itertools.count(held)
    _fill(index, held)

    def run() -> None:
        fcntl.flock(lock, fcntl.LOCK_SH)
        names = []
        for data in files:
            names.append(secrets.token_hex(16))
            file = os.open(names[-1], os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=incoming)
            os.write(file, data)
            os.utime(file, ns=(0, 0))
            os.fsync(file)
            os.close(file)
        shards = [os.open(name[:2], os.O_RDONLY | os.O_DIRECTORY, dir_fd=blobs) for name in names]
        for name, shard in zip(names, shards, strict=True):
            os.rename(name, name, src_dir_fd=incoming, dst_dir_fd=shard)
        for shard in shards:
            os.fsync(shard)
            os.close(shard)
        os.fsync(incoming)
        for look in looks:
            os.path.lexists(look)
        number = next(positions)
        index.execute("BEGIN IMMEDIATE")
        index.execute("INSERT INTO record VALUES (?, ?, ?)", (number, os.urandom(16), meta))
        slots = slots_in(number // a_page, a_page, number + 1)
        row = number // a_page, page[: _row_bytes(slots * SLOT_BYTES)]
        index.execute("INSERT OR REPLACE INTO page VALUES (?, ?)", row)
        index.execute("INSERT OR REPLACE INTO root VALUES (0, ?)", (root,))
        index.execute("INSERT OR REPLACE INTO state VALUES (0, ?, 0, ?)", (root[:16], number))
        index.execute("COMMIT")
        fcntl.flock(lock, fcntl.LOCK_UN)

    return run


def _fill(index: sqlite3.Connection, held: int) -> None:
    """Write as many rows as a vault of so many jobs has."""
    a_page, small = Root().page_slots, secrets.token_bytes(_row_bytes(100))
    page = secrets.token_bytes(_row_bytes(a_page * SLOT_BYTES))
    index.execute("BEGIN IMMEDIATE")
    rows = ((number, secrets.token_bytes(16), small) for number in range(held))
    index.executemany("INSERT INTO record VALUES (?, ?, ?)", rows)
    pages = ((number, page) for number in range(-(-held // a_page)))
    index.executemany("INSERT INTO page VALUES (?, ?)", pages)
    index.execute("COMMIT")


def _row_bytes(size: int) -> int:
    """Give the bytes of a sealed row of `size` bytes."""
    return OVERHEAD_BYTES + metadata_size(LENGTH_BYTES + size)


class NoCipher:
    """Stands for AESGCM: copies what it is given, and checks nothing."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def encrypt(self, _nonce: bytes, data: bytes, _aad: bytes | None) -> bytes:
        """Give data and a tag of zeros."""
        return data + bytes(TAG_BYTES)

    def decrypt(self, _nonce: bytes, data: bytes, _aad: bytes | None) -> bytes:
        """Give data without its tag."""
        return data[:-TAG_BYTES]

    def encrypt_into(self, _nonce: bytes, data: bytes, _aad: None, out: memoryview) -> None:
        """Copy data into `out`, and leave its tag as it is."""
        out[:-TAG_BYTES] = data

    def decrypt_into(self, _nonce: bytes, data: memoryview, _aad: None, out: memoryview) -> None:
        """Copy data without its tag into `out`."""
        out[:] = data[:-TAG_BYTES]


class NoKeys:
    """Stands for HKDFExpand."""

    def __init__(self, _hash: object, length: int, _info: bytes) -> None:
        self._length = length

    def derive(self, _key: bytes) -> bytes:
        """Give zeros."""
        return bytes(self._length)


def without_cipher(call: Callable[[], object]) -> Callable[[], object]:
    """Give a call during which `vault.sealing` neither encrypts nor derives."""

    def run() -> object:
        kept = sealing.AESGCM, sealing.HKDFExpand
        sealing.AESGCM, sealing.HKDFExpand = NoCipher, NoKeys  # type: ignore[misc,assignment]
        try:
            return call()
        finally:
            sealing.AESGCM, sealing.HKDFExpand = kept  # type: ignore[misc]

    return run


def _calls(stack: ExitStack, folder: Path, size: int) -> dict[str, Callable[[], object]]:
    """Give what is measured for pictures of a size, the vaults open until the stack ends."""

    def made(kind: str) -> Vault:
        return stack.enter_context(create(folder / kind, keystore=MemoryKeyStore(), confirm=_quiet))

    vaults = [made("vault"), made("bare")]
    creation.Root = partial(Root, version=1)  # type: ignore[misc,assignment]
    try:
        vaults.append(made("older"))
    finally:
        creation.Root = Root  # type: ignore[misc]
    for vault in vaults:
        for _ in range(HELD // DRAFTS_A_TRANSACTION):
            vault.add([Draft(Kind.JOB, {})] * DRAFTS_A_TRANSACTION)
    adds = [partial(vault.add, drafts(size)) for vault in vaults]
    return {
        "sealed": adds[0],
        "no cipher": without_cipher(adds[1]),
        "1,024 a page": adds[2],
        "plain": plain(stack, folder / "plain", size, HELD),
    }


def _open(stack: ExitStack, folder: Path) -> int:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    stack.callback(os.close, fd)
    return fd


def _quiet(_phrase: object) -> None:
    pass


def main() -> None:
    """Measure and save benchmarks/results/sealing.json."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "sealing-work").absolute()
    sizes = {"30 kB": PICTURE, "500 kB": LARGE}
    times: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in sizes}
    blocks: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in sizes}
    for _ in range(BLOCKS):
        for name, size in sizes.items():
            with ExitStack() as stack:
                took = interleave(_calls(stack, folder, size), rounds=ROUNDS)
            shutil.rmtree(folder)
            for key, seconds in took.items():
                times[name][key] += seconds
            middle = {key: median(seconds) for key, seconds in took.items()}
            sealed = middle.pop("sealed")
            for key, other in middle.items():
                blocks[name][f"sealed / {key}"].append(sealed / other)
    results = {
        name: {
            "seconds": {key: summary(seconds) for key, seconds in times[name].items()},
            **{key: round(median(ratios), 3) for key, ratios in blocks[name].items()},
            "of the blocks": {
                key: [round(ratio, 3) for ratio in sorted(ratios)]
                for key, ratios in blocks[name].items()
            },
        }
        for name in sizes
    }
    path = save(
        "sealing",
        "one picture and thumbnail, durable on disk, alone; ratios are medians of blocks",
        results,
    )
    for name, found in results.items():
        sys.stdout.write(f"{name}: {found['sealed / plain']} of plain calls\n")
    sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    main()
