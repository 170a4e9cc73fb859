"""Copy a vault's folder while it is in use; what is there already is not copied again.

The order is the protocol. Sealed files first, each opened before it is copied; then the index, by
one rename, which is the moment when the new copy takes the old one's place; then, only then, the
files go that the new index does not name. Whoever is killed leaves the old copy or the new one.
"""

import hmac
import os
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from vault.blobs import SHARDS, BlobStore, FileNames, make_folders, write_beside
from vault.connection import translated
from vault.envelope import blob_size, open_envelope
from vault.errors import DamagedError, NotFoundError, StorageError
from vault.examination import Cancelled, Stage, never, unseen
from vault.files import FIXED_MTIME_NS, NAME_BYTES, sync
from vault.index import Index
from vault.keytree import RecordSlot
from vault.layout import Layout, encode_header, read_header
from vault.ledger import Ledger
from vault.lock import VaultLock
from vault.page import UNREADABLE, Held, Problem, read_page
from vault.records import BlobSeal
from vault.sealing import PREFIX_BYTES
from vault.session import Session

__all__ = ["Copying"]

_ROUNDS = 5  # snapshots, before a vault whose records are deleted all the time is given up
_FILES_AT_ONCE = 64  # read under one hold of the vault's lock, and flushed together
_BYTES_AT_ONCE = 64 << 20
_INDEX_SHARE = 0.1  # of the progress: the index is small beside the pictures


class _StopError(Exception):
    """Somebody asked to stop."""


@dataclass(kw_only=True, repr=False)
class Copying:
    """One run of the machine that backup and restore share; it counts as it goes.

    root: the folder that is written. check: raises when it may not be, called once nobody else
    can write there. partial: pass over what does not open, instead of raising DamagedError.
    deep: open what the copy holds already, instead of looking at its size and head. as_backup:
    give its index a fixed time, by which the next run knows that nobody wrote to it since.
    """

    session: Session
    root: Path
    check: Callable[[], None]
    index_only: bool = False
    partial: bool = False
    deep: bool = False
    as_backup: bool = False
    progress: Stage = unseen
    cancelled: Cancelled = never
    records: int = 0
    files: int = 0  # that the copy holds
    copied: int = 0
    copied_bytes: int = 0
    healed: int = 0  # of those copied: what lay there under their names was damaged
    removed: int = 0
    at: tuple[int, int] = (0, 0)  # epoch and generation of the copy
    root_tag: bytes = b""
    problems: list[Problem] = field(default_factory=list[Problem])  # what was passed over
    _names: FileNames = field(default_factory=FileNames)
    _skipped: set[bytes] = field(default_factory=set[bytes])
    _spoiled: set[bytes] = field(default_factory=set[bytes])

    def run(self) -> bool:
        """Copy; return whether it was finished, rather than cancelled.

        Raises DamagedError, StorageError, and what `check` raises; an earlier copy then stands.
        """
        with _alone(self.root):
            self.check()
            make_folders(self.root)
            with closing(BlobStore(self.root)) as store:
                store.sweep_incoming()  # nothing in it belongs to an index
                try:
                    self._copy(store)
                except _StopError:
                    return False
        return True

    def _copy(self, store: BlobStore) -> None:
        gone: set[bytes] = set()
        for _ in range(_ROUNDS):
            with self._snapshot() as (path, ledger):
                missing = self._copy_files(ledger, store)
                if missing & gone:  # this snapshot was taken after they were seen to be gone
                    raise _incomplete("a record's sealed file is gone")
                gone = missing
                if not gone:
                    self._check_all_there(store)
                    ledger.index.close()
                    self._commit(path)
            if not gone:
                self._remove_unnamed(store)
                return
        raise StorageError(
            f"records were deleted during each of {_ROUNDS} attempts to copy the vault",
            hint="Try again when less is being deleted. An earlier copy is as it was.",
        )

    @contextmanager
    def _snapshot(self) -> Generator[tuple[Path, Ledger]]:
        """Copy the index as it is now, and open the copy; it goes again unless it was renamed."""
        path = self.root / "incoming" / os.urandom(NAME_BYTES).hex()
        session, source = self.session, self.session.ledger
        try:
            with session.shared(), source.reading():
                self._say("copying the index", 0.0)
                session.index.copy_to(path, self._index_copied)
                self.at, self.root_tag = source.at, source.root_tag
                root_key = bytearray(source.root_key)
            index = Index(path, read_only=True)
            ledger = Ledger(index, source.vault_id, session.opener)
            # The key that opened the source opens its copy: nobody is asked again.
            ledger.root_key, ledger.at = root_key, (self.at[0], 0)
            try:
                yield path, ledger
            finally:
                ledger.forget()
                index.close()
        finally:
            with suppress(OSError):
                path.unlink(missing_ok=True)

    def _index_copied(self, done: int, total: int) -> None:
        self._say("copying the index", _INDEX_SHARE * done / max(total, 1))

    def _files_copied(self, pages: float, total: int) -> None:
        share = min(1.0, pages / max(total, 1))
        self._say("copying files", _INDEX_SHARE + (1 - _INDEX_SHARE) * share)

    def _say(self, stage: str, fraction: float) -> None:
        if self.cancelled():
            raise _StopError
        self.progress(stage, fraction)

    def _copy_files(self, ledger: Ledger, store: BlobStore) -> set[bytes]:
        """Copy a snapshot's sealed files that are not there yet; return those that were gone."""
        self._names, self.records, self.files = FileNames(), 0, 0
        gone: set[bytes] = set()
        waiting: list[tuple[RecordSlot, BlobSeal]] = []
        size = 0
        with ledger.reading():
            pages = len(ledger.root.pages)
        for number in range(pages):
            held = self._page(ledger, number)
            for done, record in enumerate(held):
                if self.deep:  # a page of pictures takes seconds
                    self._files_copied(number + done / len(held), pages)
                for seal in record.seals:
                    if self._is_there(store, record.slot, seal):
                        continue
                    waiting.append((record.slot, seal))
                    size += blob_size(seal)
                    if len(waiting) >= _FILES_AT_ONCE or size >= _BYTES_AT_ONCE:
                        self._files_copied(number + done / len(held), pages)
                        gone |= self._copy_batch(waiting, store)
                        waiting, size = [], 0
            self._files_copied(number + 1, pages)
        return gone | self._copy_batch(waiting, store)

    def _page(self, ledger: Ledger, number: int) -> list[Held]:
        with ledger.reading():
            held, problems = read_page(ledger, number)
        lost = [problem for problem in problems if problem.kind != "foreign"]
        if lost and not self.partial:
            raise _incomplete(lost[0].text)
        self.records += len(held)
        return held

    def _is_there(self, store: BlobStore, slot: RecordSlot, seal: BlobSeal) -> bool:
        """Say whether there is nothing to do for a file: each name is given once, to one file."""
        if self.index_only:
            return True
        size = blob_size(seal)
        self._names.add(seal.file, size)
        self.files += 1
        try:
            found = store.read(seal.file, size, None if self.deep else PREFIX_BYTES)
            if self.deep:
                open_envelope(self.session.ledger.vault_id, slot, seal, found)
        except NotFoundError:
            return False
        except UNREADABLE:
            self._spoiled.add(seal.file)
            return False
        if not hmac.compare_digest(found[:PREFIX_BYTES], seal.prefix):
            self._spoiled.add(seal.file)
            return False
        return True

    def _copy_batch(self, batch: list[tuple[RecordSlot, BlobSeal]], store: BlobStore) -> set[bytes]:
        gone: set[bytes] = set()
        found: list[tuple[bytes, bytearray]] = []
        with self.session.shared():
            for slot, seal in batch:
                try:
                    sealed = self.session.blobs.read(seal.file, blob_size(seal))
                    open_envelope(self.session.ledger.vault_id, slot, seal, sealed)
                except UNREADABLE as error:
                    text = f"{seal.blob.name}: {error}"
                    record_id = slot.record_id.hex()
                    if self.partial:
                        self._skip(seal.file, Problem("damaged", record_id, text))
                    elif isinstance(error, NotFoundError):
                        gone.add(seal.file)
                    else:
                        raise _incomplete(f"record {record_id}, {text}") from error
                else:
                    found.append((seal.file, sealed))
        if found:
            store.write(found)
        self.copied += len(found)
        self.healed += sum(name in self._spoiled for name, _ in found)
        self.copied_bytes += sum(len(sealed) for _, sealed in found)
        return gone

    def _skip(self, file: bytes, problem: Problem) -> None:
        self._skipped.add(file)
        self.problems.append(problem)
        self.files -= 1

    def _check_all_there(self, store: BlobStore) -> None:
        """See every file of the snapshot in the copy, and flush the folders that name them."""
        if self.index_only:
            return
        for shard in range(SHARDS):
            names = self._names.shard(shard)
            if not names:
                continue
            lying = {found.name: found for found in store.listing(shard)}
            for name, size in names.items():
                found = lying.get(name.hex())
                there = found is not None and found.regular and found.size == size
                if not there and name not in self._skipped:
                    raise StorageError(
                        "a sealed file that was copied is not there",
                        hint="Does another program change that folder, or is the disk failing?",
                    )
            store.sync_shard(shard)

    def _commit(self, snapshot: Path) -> None:
        """Give the index its name: before, the old copy stands, and after it the new one."""
        layout = Layout(self.root)
        try:
            read_header(self.root)
        except NotFoundError:
            header = encode_header(self.session.ledger.vault_id)
            write_beside(self.root, layout.header.name, header)
        with translated():
            if self.as_backup:
                os.utime(snapshot, ns=(FIXED_MTIME_NS, FIXED_MTIME_NS))
            _flush(snapshot)
            snapshot.rename(layout.index)
            for folder in (self.root, snapshot.parent):
                _flush(folder)

    def _remove_unnamed(self, store: BlobStore) -> None:
        """Forget what the vault deleted: the new index does not name it."""
        if self.index_only:
            return
        for shard in range(SHARDS):
            named = self._names.shard(shard)
            files = [found.file(shard) for found in store.listing(shard) if found.regular]
            unnamed = [name for name in files if name is not None and name not in named]
            try:
                store.delete(unnamed)
            except StorageError as error:
                raise StorageError(
                    "a file of what the vault deleted could not be removed from the copy",
                    hint="All else of the copy is complete. Run it again.",
                ) from error
            self.removed += len(unnamed)


@contextmanager
def _alone(root: Path) -> Generator[None]:
    """Make the folder if need be, and keep every other program of ours out of it."""
    with translated():
        made = [each for each in (root, *root.parents) if not each.exists()]
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for each in made:  # their names must outlast a power cut, as what is in them does
            _flush(each.parent)
    lock = VaultLock(root / "lock")
    try:
        with lock.exclusive():
            yield
    finally:
        lock.close()


def _flush(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        sync(fd)
    finally:
        os.close(fd)


def _incomplete(what: str) -> DamagedError:
    return DamagedError(
        f"the vault cannot be copied whole: {what}",
        hint="`vault verify` lists the damage, `vault restore --partial` copies what still opens.",
    )
