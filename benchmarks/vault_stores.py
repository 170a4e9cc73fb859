"""The stores of `benchmarks.vault_peers`: the vault, plain calls, files, SQLCipher; one interface.

Each has `draft`, `write`, `read`, `newest`, `search`, `forget`, `close`; `perform` times one act
and compares its answer with what was written.
"""

from __future__ import annotations  # the SQLCipher child has none of the vault's libraries

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from importlib import import_module
from pathlib import Path
from random import Random
from typing import IO, Any, NamedTuple

import vault
from benchmarks.vault_scale import FRAGMENT, hits, settings

__all__ = [
    "PICTURE",
    "THUMBNAIL",
    "Plain",
    "Sealed",
    "Sqlcipher",
    "age_files",
    "mounted_files",
    "perform",
]

PICTURE, THUMBNAIL = 450_000, 20_000  # bytes


class Item(NamedTuple):
    """One picture as every store gets it."""

    settings: dict[str, Any]
    picture: bytes
    thumbnail: bytes


def item(number: int) -> Item:
    """Give picture `number`, the same bytes in every process."""
    noise = Random(number)  # noqa: S311 - noise stands for a PNG, which does not compress either
    return Item(settings(number), noise.randbytes(PICTURE), noise.randbytes(THUMBNAIL))


class Sealed:
    """The vault. As in every store, pictures are numbered in the order of their writing."""

    def __init__(self, folder: Path) -> None:
        keystore = vault.MemoryKeyStore()
        self._unlock = vault.KeyStoreUnlock(keystore)
        self._vault = vault.create(folder, keystore=keystore, confirm=lambda _: None)
        self._ids: list[str] = []

    def close(self) -> None:
        self._vault.close()

    def forget(self) -> None:
        self._vault.close()
        self._vault = vault.open_vault(self._vault.path, self._unlock)

    def draft(self, number: int) -> vault.Draft:
        made = item(number)
        kinds = vault.Kind
        parts = (
            vault.BlobDraft("picture", kinds.PICTURE, "image/png", made.picture),
            vault.BlobDraft("thumbnail", kinds.THUMBNAIL, "image/png", made.thumbnail),
        )
        return vault.Draft(kinds.PICTURE, made.settings, parts)

    def write(self, drafts: Sequence[vault.Draft]) -> None:
        self._ids += [record.id for record in self._vault.add(drafts)]

    def read(self, number: int) -> bytearray:
        return self._vault.read(self._ids[number], "picture")

    def newest(self, count: int) -> list[dict[str, Any]]:
        return [record.metadata for record in self._vault.list(limit=count)]

    def search(self, text: str) -> list[dict[str, Any]]:
        return [record.metadata for record in self._vault.search(text)]


class Plain:
    """What the vault asks of the system for a write, in the clear and by its own threads."""

    def __init__(self, folder: Path) -> None:
        from vault.blobs import BlobStore
        from vault.index import Index
        from vault.lock import VaultLock

        for number in range(256):
            (folder / "blobs" / f"{number:02x}").mkdir(parents=True)
        (folder / "incoming").mkdir()
        (folder / "index.sqlite").touch(0o600)
        with ExitStack() as stack:
            self._lock = stack.enter_context(closing(VaultLock(folder / "lock")))
            self._blobs = stack.enter_context(closing(BlobStore(folder)))
            self._index = stack.enter_context(closing(Index(folder / "index.sqlite", fresh=True)))
            self.close = stack.pop_all().close
        self._count = 0
        self._noise = os.urandom(1 << 17)  # what pages and root are cut from

    def draft(self, number: int) -> tuple[list[tuple[bytes, bytes]], bytes]:
        from vault.envelope import blob_size
        from vault.records import Blob, BlobSeal, Metadata, timestamp
        from vault.sealing import PREFIX_BYTES

        made = item(number)
        seals: list[BlobSeal] = []
        files: list[tuple[bytes, bytes]] = []
        for name, data in (("picture", made.picture), ("thumbnail", made.thumbnail)):
            blob = Blob(name, vault.Kind.PICTURE, "image/png", len(data))
            seals.append(BlobSeal(blob, os.urandom(16), bytes(PREFIX_BYTES), 1))
            files.append((seals[-1].file, data.ljust(blob_size(seals[-1]))))
        text = Metadata(timestamp(0), None, tuple(seals), made.settings).encode()
        return files, text.ljust(_row_bytes(len(text)))

    def write(self, drafts: Sequence[tuple[list[tuple[bytes, bytes]], bytes]]) -> None:
        from vault.index import RecordRow, StateRow
        from vault.keytree import SLOT_BYTES, Root, slots_in

        first, self._count = self._count, self._count + len(drafts)
        slots = Root().page_slots
        with self._lock.shared():
            writing = self._blobs.writing()
            for files, _ in drafts:
                for name, data in files:
                    writing.put(name, data)
            with self._index.writing():
                self._index.state()
                texts = (text for _, text in drafts)
                rows = [RecordRow(p, os.urandom(16), text) for p, text in enumerate(texts, first)]
                self._index.put_records(rows)
                pages = range(first // slots, (self._count - 1) // slots + 1)
                for page in pages:
                    size = slots_in(page, slots, self._count) * SLOT_BYTES
                    self._index.put_page(page, self._noise[: _row_bytes(size)])
                self._index.put_root(self._noise[: _row_bytes(100 + 57 * pages.stop)])
                self._index.put_state(StateRow(bytes(16), 1, self._count))
                writing.finish()


def _row_bytes(size: int) -> int:
    """Give the bytes that the vault writes of a page, root or metadata of `size` bytes."""
    from vault.frame import LENGTH_BYTES, metadata_size
    from vault.sealing import OVERHEAD_BYTES

    return OVERHEAD_BYTES + metadata_size(LENGTH_BYTES + size)


class Files:
    """NUMBER.picture, NUMBER.thumbnail, NUMBER.json in one folder, each durable by itself.

    seal: writes bytes sealed into an open file. unseal: gives a file's bytes.
    """

    def __init__(
        self,
        folder: Path,
        seal: Callable[[bytes, IO[bytes]], object],
        unseal: Callable[[Path], bytes],
    ) -> None:
        self._folder, self._seal, self._unseal = folder, seal, unseal

    def draft(self, number: int) -> dict[str, bytes]:
        made = item(number)
        return {
            f"{number}.picture": made.picture,
            f"{number}.thumbnail": made.thumbnail,
            f"{number}.json": json.dumps(made.settings).encode(),
        }

    def write(self, drafts: Sequence[Mapping[str, bytes]]) -> None:
        for name, data in (file for draft in drafts for file in draft.items()):
            part = self._folder / f"{name}.part"
            with part.open("xb") as file:
                self._seal(data, file)
                file.flush()
                os.fsync(file.fileno())
            part.rename(self._folder / name)
        folder = os.open(self._folder, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)

    def read(self, number: int) -> bytes:
        return self._unseal(self._folder / f"{number}.picture")

    def newest(self, count: int) -> list[dict[str, Any]]:
        files = sorted(self._folder.glob("*.json"), key=lambda path: -int(path.stem))
        return [json.loads(self._unseal(path)) for path in files[:count]]

    def search(self, text: str) -> list[dict[str, Any]]:
        return [each for each in self.newest(sys.maxsize) if text in each["prompt"].lower()]

    def forget(self) -> None:
        """Do nothing: it keeps nothing itself."""

    def close(self) -> None:
        """Do nothing, likewise."""


def age_files(folder: Path, age: str, keygen: str) -> Files:
    """Give files of the `age` command, a process each."""
    place, key = folder / "files", folder / "identity"
    place.mkdir(parents=True)
    subprocess.run([keygen, "-o", key], check=True, capture_output=True)
    recipient = subprocess.check_output([keygen, "-y", key], text=True).strip()

    def seal(data: bytes, file: IO[bytes]) -> None:
        subprocess.run([age, "-r", recipient], input=data, stdout=file, check=True)

    return Files(place, seal, lambda path: subprocess.check_output([age, "-d", "-i", key, path]))


@contextmanager
def mounted_files(folder: Path, gocryptfs: str, unmount: str) -> Iterator[Files]:
    """Give files in a folder that gocryptfs keeps sealed, mounted by FUSE until the block ends.

    The passphrase is random and goes through a pipe. Raises CalledProcessError where FUSE refuses.
    """
    sealed, clear = folder / "sealed", folder / "clear"
    sealed.mkdir(parents=True)
    clear.mkdir()
    passphrase = os.urandom(16).hex().encode() + b"\n"
    for words in (["-init", "-scryptn", "10", sealed], ["-nosyslog", sealed, clear]):
        # Not captured: the process that serves the mount would hold the pipes open.
        quiet = subprocess.DEVNULL
        command = [gocryptfs, "-q", *words]
        subprocess.run(command, input=passphrase, check=True, stdout=quiet, stderr=quiet)
    try:
        yield Files(clear, lambda data, file: file.write(data), Path.read_bytes)
    finally:
        subprocess.run([unmount, "-u", clear], check=True, capture_output=True)


class Sqlcipher:
    """One table of SQLCipher in this process, whose Python has sqlcipher3."""

    def __init__(self, folder: Path, journal: str) -> None:
        folder.mkdir(parents=True)
        driver = import_module("sqlcipher3.dbapi2")
        self._db = driver.connect(str(folder / "pictures.sqlite"), isolation_level=None)
        pragmas = [f"key = \"x'{os.urandom(32).hex()}'\"", f"journal_mode = {journal}"]
        for pragma in [*pragmas, "synchronous = EXTRA", "fullfsync = ON", "temp_store = MEMORY"]:
            self._db.execute(f"PRAGMA {pragma}")
        self._db.execute(
            "CREATE TABLE picture (no INTEGER PRIMARY KEY, meta TEXT, thumbnail BLOB, data BLOB)"
        )
        names = ("cipher_version", "journal_mode", "synchronous", "page_size", "cache_size")
        self.about = {name: self._db.execute(f"PRAGMA {name}").fetchone()[0] for name in names}
        self.about["sqlite"] = driver.sqlite_version
        self.close = self._db.close

    def forget(self) -> None:
        self._db.execute("PRAGMA shrink_memory")  # gives up the cache of opened pages

    def draft(self, number: int) -> tuple[int, str, bytes, bytes]:
        made = item(number)
        return number, json.dumps(made.settings), made.thumbnail, made.picture

    def write(self, drafts: Sequence[tuple[int, str, bytes, bytes]]) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        self._db.executemany("INSERT INTO picture VALUES (?, ?, ?, ?)", drafts)
        self._db.execute("COMMIT")

    def read(self, number: int) -> bytes:
        query = "SELECT data FROM picture WHERE no = ?"
        return self._db.execute(query, (number,)).fetchone()[0]

    def newest(self, count: int) -> list[dict[str, Any]]:
        query = "SELECT meta FROM picture ORDER BY no DESC LIMIT ?"
        return [json.loads(meta) for (meta,) in self._db.execute(query, (count,))]

    def search(self, text: str) -> list[dict[str, Any]]:
        query = "SELECT meta FROM picture WHERE meta LIKE ? ORDER BY no DESC"  # folds ASCII's case
        return [json.loads(meta) for (meta,) in self._db.execute(query, (f"%{text}%",))]


def perform(store: Any, what: str, number: int, count: int) -> float:
    """Do one act and give its seconds; raises ValueError for another answer than was written."""
    drafts = [store.draft(n) for n in range(number, number + count)] if what == "write" else []
    acts: dict[str, Callable[[], Any]] = {
        "write": lambda: store.write(drafts),
        "read": lambda: store.read(number),
        "list": lambda: store.newest(count),
        "search": lambda: store.search(FRAGMENT),
    }
    what, _, state = what.partition(", ")
    if state == "fresh":
        store.forget()
    start = time.perf_counter()
    found = acts[what]()
    took = time.perf_counter() - start
    if what == "read":
        right = found == item(number).picture
    else:
        wanted = {"list": list(range(number, number - count, -1)), "search": hits(count)[::-1]}
        right = what == "write" or [each["number"] for each in found] == wanted[what]
    if not right:
        raise ValueError(f"{type(store).__name__} gave another answer to {what} than was written")
    return took
