"""Read and write the rows of `index.sqlite`: opaque cells whose types and lengths are checked.

Nothing here is trusted: the ledger opens what these functions fetch. `state` is in clear and is
believed only after the root opened under it.
"""

import os
import sqlite3
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from vault.connection import connect, preflight, translated
from vault.context import ID_BYTES
from vault.errors import DamagedError

__all__ = ["META_LIMIT", "Index", "RecordRow", "SlotRow", "StateRow"]

META_LIMIT = 1_200_000  # bytes of a sealed metadata cell: 1 MiB of JSON after Padmé, and its tag
_SLOTS_LIMIT = 16
_PENDING_LIMIT = 10_000  # rows; a purge of a million records needs 200
_BYTE = frozenset(range(256))
_BUSY_RETRIES = 3  # of 30 s each, before a save gives up on another writer or reader


class StateRow(NamedTuple):
    """The clear row; epoch 1, generation 0 is a creation that was not finished."""

    vault_id: bytes
    epoch: int
    generation: int


class SlotRow(NamedTuple):
    """One key slot as it lies in the table."""

    no: int
    type: int
    body: bytes


class RecordRow(NamedTuple):
    """One record as it lies in the table."""

    position: int
    record_id: bytes
    meta: bytes


class Index:
    """One hardened connection; every read and write happens inside `reading` or `writing`."""

    def __init__(
        self, path: Path, *, fresh: bool = False, patience: int = 30, read_only: bool = False
    ) -> None:
        """Check the files, connect, compare the schema; `hot` says whether a journal lay there.

        patience: seconds that a statement waits for others; BEGIN and COMMIT are tried three times.
        """
        self._path = path
        self.unsure = False
        self.hot, self._identity = preflight(path)
        self._connection = connect(path, fresh=fresh, patience=patience, read_only=read_only)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    @contextmanager
    def reading(self) -> Generator[None]:
        """Run the block on one snapshot of the file."""
        preflight(self._path, self._identity)
        with translated():
            self._connection.execute("BEGIN")
        try:
            yield
        finally:
            self._rollback()

    @contextmanager
    def writing(self) -> Generator[None]:
        """Run the block as the only writer, then commit; durable when it returns.

        Raises StorageError when others hold the index for 90 s or the disk refuses.
        When anything is raised, `unsure` says whether the change may be there all the same.
        """
        self.unsure = False
        preflight(self._path, self._identity)
        self._patiently("BEGIN IMMEDIATE")
        try:
            yield
            self.unsure = True  # an interrupt right after COMMIT is raised here as well
            self._patiently("COMMIT")  # which waits for whoever reads
        except BaseException:
            if self._connection.in_transaction:
                self._rollback()
                self.unsure = False
            raise

    def _patiently(self, statement: str) -> None:
        for attempt in range(1, _BUSY_RETRIES + 1):
            try:
                self._connection.execute(statement)
            except sqlite3.OperationalError as error:
                busy = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
                if busy and attempt < _BUSY_RETRIES:
                    continue
                with translated():
                    raise
            else:
                return

    def _rollback(self) -> None:
        if self._connection.in_transaction:
            with translated():
                self._connection.execute("ROLLBACK")

    def _all(self, sql: str, values: Sequence[object] = ()) -> list[tuple[object, ...]]:
        with translated():
            return self._connection.execute(sql, values).fetchall()

    def _run(self, sql: str, rows: Iterable[Sequence[object]]) -> None:
        with translated():
            self._connection.executemany(sql, rows)

    def quick_check(self) -> None:
        """Raise DamagedError unless SQLite finds its own structure whole (after a hot journal)."""
        if self._all("PRAGMA quick_check(1)") != [(b"ok",)]:
            raise DamagedError("the index's structure is damaged", hint="Restore a backup.")

    def state(self) -> StateRow | None:
        """Return the state row, or None when `create` has not written it yet."""
        rows = self._all(
            "SELECT no, CASE WHEN typeof(vault_id) = 'blob' AND length(vault_id) = 16"
            " THEN vault_id END, epoch, generation FROM state LIMIT 2"
        )
        match rows:
            case []:
                return None
            case [(0, bytes() as vault_id, int() as epoch, int() as generation)]:
                if epoch > 0 and generation >= 0:
                    return StateRow(vault_id, epoch, generation)
            case _:
                pass
        raise DamagedError("the index's state row is damaged")

    def is_unfinished(self) -> bool:
        """Say whether `create` has not got as far as slots and root here."""
        with self.reading():
            state = self.state()
            return state is None or (state.generation == 0 and not self.slots())

    def put_state(self, state: StateRow) -> None:
        """Write the state row."""
        self._run("INSERT OR REPLACE INTO state VALUES (0, ?, ?, ?)", [state])

    def creation_entry(self) -> bytes | None:
        """Return the 8 bytes that name the KEK's entry of an unfinished creation."""
        rows = self._all(
            "SELECT CASE WHEN typeof(entry) = 'blob' AND length(entry) = 8 THEN entry END"
            " FROM creation WHERE no = 0"
        )
        match rows:
            case [(bytes() as entry,)]:
                return entry
            case _:
                return None

    def put_creation(self, keystore: int | None, entry: bytes) -> None:
        """Note, before any key is kept, where the KEK of this creation goes."""
        self._run("INSERT OR REPLACE INTO creation VALUES (0, ?, ?)", [(keystore, entry)])

    def clear_creation(self) -> None:
        """Drop that note: the vault exists."""
        self._all("DELETE FROM creation")

    def slots(self) -> list[SlotRow]:
        """Return the key slots in order of their numbers."""
        rows = self._all(
            "SELECT no, type, CASE WHEN typeof(body) = 'blob' AND length(body) <= 4096"
            " THEN body END FROM keyslot ORDER BY no LIMIT ?",
            (_SLOTS_LIMIT + 1,),
        )
        slots: list[SlotRow] = []
        for row in rows:
            match row:
                case (int() as no, int() as type_, bytes() as body) if {no, type_} <= _BYTE:
                    slots.append(SlotRow(no, type_, body))
                case _:
                    raise DamagedError("a key slot is damaged")
        if len(slots) > _SLOTS_LIMIT:
            raise DamagedError(f"the index has more than {_SLOTS_LIMIT} key slots")
        return slots

    def put_slots(self, slots: Iterable[SlotRow]) -> None:
        """Replace the whole keyslot table."""
        self._all("DELETE FROM keyslot")
        self._run("INSERT INTO keyslot VALUES (?, ?, ?)", slots)

    def root(self) -> bytes:
        """Return the sealed root."""
        return self._sealed("root", 0)

    def put_root(self, sealed: bytes) -> None:
        """Write the sealed root."""
        self._run("INSERT OR REPLACE INTO root VALUES (0, ?)", [(sealed,)])

    def page(self, number: int) -> bytes:
        """Return a sealed page."""
        return self._sealed("page", number)

    def put_page(self, number: int, sealed: bytes) -> None:
        """Write a sealed page."""
        self._run("INSERT OR REPLACE INTO page VALUES (?, ?)", [(number, sealed)])

    def _sealed(self, table: str, number: int) -> bytes:
        # The table's name is one of ours; LIMIT_LENGTH bounds the cell at 8 MiB.
        sql = f"SELECT CASE WHEN typeof(sealed) = 'blob' THEN sealed END FROM {table} WHERE no = ?"  # noqa: S608
        rows = self._all(sql, (number,))
        if not rows or not isinstance(rows[0][0], bytes):
            raise DamagedError(f"the index's {table} {number} is missing or no blob")
        return rows[0][0]

    def position_of(self, record_id: bytes) -> int | None:
        """Return where a record says it lies, or None."""
        rows = self._all("SELECT pos FROM record WHERE id = ?", (record_id,))
        return rows[0][0] if rows and isinstance(rows[0][0], int) else None

    def meta_bytes(self, first: int, last: int) -> int:
        """Return how many bytes of metadata the rows of positions first..last hold together."""
        rows = self._all(
            "SELECT sum(length(meta)) FROM record WHERE pos BETWEEN ? AND ?", (first, last)
        )
        match rows:
            case [(int() as size,)]:
                return size
            case _:
                return 0

    def records(self, first: int, last: int) -> list[RecordRow]:
        """Return the rows of positions first..last, in ascending order.

        Raises DamagedError for a cell of a wrong type or length.
        """
        rows = self._all(
            "SELECT pos, id, CASE WHEN typeof(meta) = 'blob' AND length(meta) <= ? THEN meta END"
            " FROM record WHERE pos BETWEEN ? AND ? ORDER BY pos",
            (META_LIMIT, first, last),
        )
        for _position, record_id, meta in rows:
            if type(record_id) is not bytes or len(record_id) != ID_BYTES or meta is None:
                raise DamagedError("a record row has a cell of a wrong type or length")
        return rows  # pyright: ignore[reportReturnType] - (int, bytes, bytes), checked above

    def drop_records(self, positions: Iterable[int]) -> None:
        """Delete the record rows of these positions."""
        self._run("DELETE FROM record WHERE pos = ?", ((position,) for position in positions))

    def pending(self) -> list[tuple[int, bytes]]:
        """Return (number, sealed) of the deletions that were not finished."""
        rows = self._all(
            "SELECT no, CASE WHEN typeof(sealed) = 'blob' THEN sealed END FROM pending"
            " ORDER BY no LIMIT ?",
            (_PENDING_LIMIT + 1,),
        )
        if len(rows) > _PENDING_LIMIT:
            raise DamagedError("the index lists more unfinished deletions than anybody writes")
        found: list[tuple[int, bytes]] = []
        for row in rows:
            match row:
                case (int() as no, bytes() as sealed):
                    found.append((no, sealed))
                case _:
                    raise DamagedError("an unfinished deletion's row is damaged")
        return found

    def put_pending(self, no: int, sealed: bytes) -> None:
        """Write one sealed list of files that are to be unlinked."""
        self._run("INSERT INTO pending VALUES (?, ?)", [(no, sealed)])

    def clear_pending(self, numbers: Iterable[int]) -> None:
        """Drop lists of files that are unlinked."""
        self._run("DELETE FROM pending WHERE no = ?", ((no,) for no in numbers))

    def put_records(self, rows: Iterable[RecordRow]) -> None:
        """Insert or replace record rows."""
        self._run("INSERT OR REPLACE INTO record VALUES (?, ?, ?)", rows)

    def copy_to(self, path: Path, progress: Callable[[int, int], None]) -> None:
        """Write a consistent copy of the snapshot that is being read to a new file, durably.

        progress(pages done, pages in all). Call it inside `reading`. The file must not exist.
        """
        fd = os.open(
            path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
        os.close(fd)
        with translated(), closing(sqlite3.connect(path, isolation_level=None)) as copy:
            copy.execute("PRAGMA journal_mode=MEMORY")
            copy.execute("PRAGMA synchronous=FULL")
            self._connection.backup(
                copy, pages=1024, progress=lambda _, left, total: progress(total - left, total)
            )
