"""Open a vault and work with its records: the facade over the session and what works through it."""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from vault.adding import DRAFTS_A_TRANSACTION, add
from vault.care import Care
from vault.connection import translated
from vault.context import Kind, id_prefix
from vault.deletion import Progress, Receipt, delete, purge, resume
from vault.editing import Edit, edit, edit_all, mark
from vault.envelope import blob_size, open_envelope, record_of
from vault.errors import BadValueError, DamagedError, NotFoundError, VaultError
from vault.keys import Keys, Strict, strictly
from vault.layout import FORMAT, Layout, read_header, refuse_network
from vault.records import BlobSeal, Draft, Metadata, Record
from vault.retention import (
    Expiry,
    Retention,
    believe_clock,
    expire,
    retention_of,
    set_retention,
    trash_time,
)
from vault.sealed_record import Opened
from vault.search import Query
from vault.session import Session
from vault.status import VaultStatus, count_records, slot_statuses, slot_word
from vault.unlock import Unlock, opener_for

__all__ = ["DRAFTS_A_TRANSACTION", "Vault", "open_vault"]

Records = list[Record]  # `Vault.list` hides the builtin inside the class
T = TypeVar("T")
Blobs = list[bytearray | VaultError]
_BATCH = 1024  # rows a scan reads before it lets others in
_STRETCH = 1024  # positions a mark
_CANDIDATES = 64  # records that a search opens at least, as some may not match
_END = 1 << 63  # above every position


def _tried(call: Callable[..., T], *given: Any) -> T | VaultError:
    """Call, and give the vault's error as a value."""
    try:
        return call(*given)
    except VaultError as error:
        return error


def open_vault(
    path: str | PathLike[str],
    unlock: Unlock,
    *,
    clock: Callable[[], float] = time.time,
    allow_network: bool = False,
) -> "Vault":
    """Open an existing vault. clock: seconds since 1970.

    Raises NotFoundError when none is there or its creation was not finished, LockedError and its
    kinds when the unlock does not fit, DamagedError, UnsupportedFormatError, StorageError.
    """
    layout = Layout(Path(path))
    vault_id = read_header(layout.root)
    if not allow_network:
        refuse_network(layout.root)
    layout.require_index()
    session = Session(layout, vault_id, opener_for(unlock, vault_id), clock)
    try:
        return Vault(session, resume(session))
    except BaseException:
        session.close()
        raise


class Vault:
    """An open vault. Safe to use from several threads; `close` forgets the keys."""

    def __init__(self, session: Session, warning: str = "") -> None:
        """Stand before an open session; `open_vault` calls this. warning: of unfinished work."""
        self._s = session
        self._warning = warning

    @property
    def vault_id(self) -> str:
        """Return the vault's id, 32 hex digits."""
        return self._s.ledger.vault_id.hex()

    @property
    def path(self) -> Path:
        """Return the vault's folder."""
        return self._s.layout.root

    @property
    def read_only(self) -> bool:
        """Say whether the vault lies on read-only media: every change is then a StorageError."""
        return self._s.read_only

    @property
    def is_old_copy(self) -> bool:
        """Say whether the anchor says so; `accept_copy` takes this copy as right."""
        return self._s.anchor.is_old_copy

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return what a person should know, such as that this is an old copy."""
        return tuple(filter(None, (self._s.anchor.warning, self._warning)))

    def close(self) -> None:
        """Move the anchor, close the files, forget the keys. Closing twice is allowed."""
        self._s.close()

    def lock_after(self, seconds: float) -> None:
        """Close by itself after so many seconds of rest; then every call raises LockedError."""
        self._s.lock_after(seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Vault({self.vault_id}, {'open' if self._s.is_open else 'closed'})"

    def add(self, drafts: Sequence[Draft]) -> Records:
        """Seal and write up to 16 records in one transaction; durable when it returns.

        Raises BadValueError for drafts that cannot be sealed, StorageError when the disk refuses:
        then none of them is in the vault, and what was there before is untouched.
        """
        return add(self._s, drafts)

    def get(self, record_id: str) -> Record:
        """Return a record; raises NotFoundError, or DamagedError when it was tampered with."""
        with self._s.shared(), self._s.ledger.reading():
            return record_of(self._s.find(record_id))

    def read(self, record_id: str, blob_name: str) -> bytearray:
        """Return a blob's plaintext, in a buffer that the caller may overwrite after use.

        Raises NotFoundError when record or blob do not exist, DamagedError when its file is gone
        or is not what the record vouches for, and then no byte of it.
        """
        (found,) = self.read_each([(record_id, blob_name)])
        if isinstance(found, VaultError):
            raise found
        return found

    def read_each(self, wanted: Sequence[tuple[str, str]]) -> Blobs:
        """Return for each (record id, blob name) what `read` returns, or the error that it raises:
        one look at the vault for all of them.
        """
        with self._s.shared():
            with self._s.ledger.reading():
                opened = [_tried(self._s.find, record_id) for record_id, _ in wanted]
            sealed = [
                each if isinstance(each, VaultError) else _tried(self._sealed, *asked, each)
                for asked, each in zip(wanted, opened, strict=True)
            ]
        return [
            each if isinstance(each, VaultError) else _tried(self._opened, *each) for each in sealed
        ]

    def _sealed(
        self, record_id: str, blob_name: str, opened: Opened
    ) -> tuple[Opened, BlobSeal, bytearray]:
        """Read a blob's file as it lies there."""
        seal = Metadata.decode(opened.text).blob(blob_name)
        if seal is None:
            raise NotFoundError(f"the record has no blob of the name {blob_name!r}")
        try:
            return opened, seal, self._s.blobs.read(seal.file, blob_size(seal))
        except NotFoundError:
            with self._s.ledger.reading():
                self._s.find(record_id)  # deleted meanwhile: not found, and not damaged
            raise DamagedError(
                "a record's sealed file is gone", hint="Restore it from a backup."
            ) from None

    def _opened(self, opened: Opened, seal: BlobSeal, sealed: bytearray) -> bytearray:
        return open_envelope(self._s.ledger.vault_id, opened.slot, seal, sealed)

    def resolve(self, prefix: str) -> str:
        """Return the one record id that starts with 4 or more hex digits.

        Raises BadValueError for another text or when two records fit, NotFoundError for none.
        """
        prefix = id_prefix(prefix)
        with self._s.shared(), self._s.ledger.reading():
            found = self._s.ledger.ids_with_prefix(prefix)
        if not found:
            raise NotFoundError(f"no record's id starts with {prefix}")
        if len(found) > 1:
            raise BadValueError(f"more than one record's id starts with {prefix}; give more digits")
        return found[0].hex()

    def edit(self, record_id: str, change: Edit) -> Record:
        """Replace a record's metadata by what `change` makes of it; return the new revision.

        `change` may be called again when another program edits the same record meanwhile.
        """
        return edit(self._s, record_id, change)

    def edit_all(self, changes: Mapping[str, Edit]) -> Records:
        """Edit records, each by its own change, in one transaction: all of them or, when one
        fails, none. What a change leaves as it was is not sealed again.
        """
        return edit_all(self._s, changes)

    def list(
        self,
        *,
        kinds: Collection[Kind] = (Kind.PICTURE,),
        limit: int | None = None,
        before: int | None = None,
        trashed: bool | None = False,
    ) -> Iterator[Record]:
        """Yield records newest first, below position `before`, at most `limit`.

        trashed: those in the trash, instead of those that are not; None: both. Others may write
        meanwhile: each batch is read from the vault as it is then.
        """
        return self._scan(None, kinds, limit, before, trashed=trashed)

    def search(
        self,
        text: str,
        *,
        kinds: Collection[Kind] = (Kind.PICTURE,),
        limit: int | None = None,
        before: int | None = None,
        trashed: bool = False,
    ) -> Iterator[Record]:
        """Yield records that hold all words of `text` in their metadata's text values."""
        return self._scan(Query(text), kinds, limit, before, trashed=trashed)

    def marks(self) -> tuple[bytes, ...]:
        """Return a mark for each 1024 positions from 0: another one after each change there."""
        with self._s.shared(), self._s.ledger.reading():
            root = self._s.ledger.root
            tags, pages = [page.tag for page in root.pages], _STRETCH // root.page_slots
            return tuple(b"".join(tags[at : at + pages]) for at in range(0, len(tags), pages))

    def trash(self, ids: Sequence[str]) -> Records:
        """Hide records, restorably; those already in the trash stay as they are."""
        return mark(self._s, ids, trash_time(self._s))

    def untrash(self, ids: Sequence[str]) -> Records:
        """Take records out of the trash."""
        return mark(self._s, ids, None)

    def delete(self, ids: Sequence[str], progress: Progress = lambda _done, _total: None) -> int:
        """Delete records for good and return how many; `purge` shreds what the disk keeps of them.

        progress(records done, in all). Ids that no record has are passed over.
        """
        return len(delete(self._s, ids, progress))

    def purge(
        self,
        ids: Sequence[str] | None = None,
        *,
        strict: Strict | None = None,
        retire: bool | None = None,
    ) -> Receipt:
        """Shred records (None: the whole trash) and the residue of all that was deleted before.

        strict: replace phrase and passphrase too. retire: delete the old key from the key store;
        None: only if the key store opened the vault, for another copy may hang on that key.
        Raises KeyStoreError, StorageError, and then nothing has changed.
        """
        return purge(self._s, ids, strictly(self._s, strict), retire)

    @property
    def keys(self) -> Keys:
        """Return what changes who opens the vault: passphrase, phrase, key store, rotation."""
        return Keys(self._s)

    @property
    def care(self) -> Care:
        """Return what looks after the vault as a whole: backup, verify, inventory."""
        return Care(self._s)

    @property
    def retention(self) -> Retention:
        """Return what deletes itself, and when."""
        return retention_of(self._s)

    def set_retention(self, retention: Retention) -> None:
        """Say what deletes itself, and when."""
        set_retention(self._s, retention)

    def expire(
        self,
        keep: Callable[[Record], bool],
        *,
        dry: bool = False,
        policy: Retention | None = None,
    ) -> Expiry:
        """Do what the retention policy says, or with `dry` only say what it would do.

        keep: true for records that no limit touches. policy: another than the vault's own.
        Nothing happens, and `waiting` says why, while the clock is not to be believed;
        `believe_clock` takes it as it is.
        """
        return expire(self._s, policy or self.retention, keep, None if dry else self.trash)

    def believe_clock(self) -> None:
        """Take this machine's clock as right: a person looked at it."""
        believe_clock(self._s)

    def status(self) -> VaultStatus:
        """Return what is in the vault and what opens it; walks the folders of blobs."""
        with self._s.shared():
            with self._s.ledger.reading():
                records, trashed = count_records(self._s.ledger.slots())
                slots = slot_statuses(self._s.index.slots())
                epoch, generation = self._s.ledger.at
                notes, waiting = self._s.ledger.notes, len(self._s.ledger.pending()[0])
            with translated():
                files, size = self._s.blobs.size_on_disk()
                size += self._s.layout.index.lstat().st_size
        return VaultStatus(
            vault_id=self.vault_id,
            path=self.path,
            format=FORMAT,
            epoch=epoch,
            generation=generation,
            records=records,
            trashed=trashed,
            slots=slots,
            opened_by=slot_word(self._s.opener.slot_type),
            keystore=next((slot.name for slot in slots if slot.type == "keyring"), None),
            files=files,
            bytes_on_disk=size,
            waiting=waiting,
            backup=notes.get("backup", {}).get("when"),
            verified=notes.get("verified", {}).get("when"),
            read_only=self._s.read_only,
            warnings=self.warnings,
        )

    def accept_copy(self) -> None:
        """Take the vault as it is after a warning about an old copy: the person confirmed it."""
        with self._s.shared():
            self._s.anchor.reset(self._s.ledger.at, self._s.ledger.root_tag)

    def _scan(
        self,
        query: Query | None,
        kinds: Collection[Kind],
        limit: int | None,
        before: int | None,
        *,
        trashed: bool | None,
    ) -> Iterator[Record]:
        cursor = _END if before is None else before
        left = _END if limit is None else limit
        numbers = frozenset(int(kind) for kind in kinds)
        words = None if query is None else query.raw
        while left > 0 and cursor > 0:
            count = min(_BATCH, left if query is None else max(left, _CANDIDATES))
            with self._s.shared(), self._s.ledger.reading():
                batch, cursor = self._s.ledger.batch(
                    cursor, numbers, trashed=trashed, count=count, words=words
                )
            for record in batch:
                if query is None or query.matches(record.metadata):
                    yield record
                    left -= 1
                    if left == 0:
                        return
