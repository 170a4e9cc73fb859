"""Connect to the index with every switch set that keeps a hostile file from acting through SQLite.

The file may come from someone with write access to the folder: nothing is followed, nothing in
its schema runs, and a journal that would make SQLite delete a file outside the vault is refused
before SQLite sees it.
"""

import os
import sqlite3
import stat
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from vault.errors import (
    DamagedError,
    StorageError,
    UnsupportedFormatError,
    VaultError,
)
from vault.layout import unfinished

__all__ = [
    "APPLICATION_ID",
    "SCHEMA",
    "USER_VERSION",
    "Identity",
    "connect",
    "preflight",
    "translated",
]

APPLICATION_ID = 0x53464C54  # "SFLT"
USER_VERSION = 1
SCHEMA = (
    "CREATE TABLE state (no INTEGER PRIMARY KEY, vault_id BLOB, epoch INTEGER, generation INTEGER)",
    "CREATE TABLE creation (no INTEGER PRIMARY KEY, keystore INTEGER, entry BLOB)",
    "CREATE TABLE keyslot (no INTEGER PRIMARY KEY, type INTEGER, body BLOB)",
    "CREATE TABLE root (no INTEGER PRIMARY KEY, sealed BLOB)",
    "CREATE TABLE page (no INTEGER PRIMARY KEY, sealed BLOB)",
    "CREATE TABLE record (pos INTEGER PRIMARY KEY, id BLOB UNIQUE, meta BLOB)",
    "CREATE TABLE pending (no INTEGER PRIMARY KEY, sealed BLOB)",
)
_LENGTH_LIMIT = 8 * 1024 * 1024  # bytes a cell: a root of 140,000 pages, or 8 metadata limits
# (pragma, value to set, value to read back). Each is read back: SQLite ignores what it lacks.
_PRAGMAS = (
    ("trusted_schema", "OFF", 0),
    ("cell_size_check", "ON", 1),
    ("mmap_size", "0", 0),
    ("temp_store", "MEMORY", 2),
    ("secure_delete", "ON", 1),
    ("synchronous", "EXTRA", 3),
    ("fullfsync", "ON", 1),
    ("journal_mode", "DELETE", b"delete"),
)
_SUPER_JOURNAL = bytes.fromhex("d9d505f920a163d7")  # SQLite file format, 3: "rollback journal"
_STORAGE_CODES = {
    sqlite3.SQLITE_BUSY: "another program holds the index",
    sqlite3.SQLITE_LOCKED: "another program holds the index",
    sqlite3.SQLITE_PERM: "the index may not be accessed",
    sqlite3.SQLITE_NOMEM: "out of memory",
    sqlite3.SQLITE_READONLY: "the index is read-only",
    sqlite3.SQLITE_IOERR: "the disk reports an error",
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_CANTOPEN: "the index cannot be opened",
    sqlite3.SQLITE_AUTH: "the index may not be accessed",
}


Identity = tuple[int, int]  # device and inode of a file


def preflight(index: Path, known: Identity | None = None) -> tuple[bool, Identity]:
    """Look at index and journal without opening the index.

    Returns whether a journal lies there, and which file the index is; known: which it was before.
    A program that holds a replaced file would write its journal beside another's index.

    Raises DamagedError for a missing index, a link, a special file, `-wal`, `-shm` or a journal
    that names a super-journal (SQLite would delete the file it names); StorageError for files of
    another user. Opening the index here would drop SQLite's POSIX locks: it is only `lstat`ed.
    """
    try:
        status = _regular(str(index))
    except FileNotFoundError:
        raise DamagedError(
            "the vault's index is gone", hint="Restore index.sqlite from a backup."
        ) from None
    identity = (status.st_dev, status.st_ino)
    if known not in {None, identity}:
        raise StorageError(
            "the index was replaced while the vault was open", hint="Close the vault, open it anew."
        )
    with translated():
        for suffix in ("-wal", "-shm"):
            if os.path.lexists(f"{index}{suffix}"):
                raise DamagedError(
                    f"{index.name}{suffix} lies beside the index; this program never makes one",
                    hint="Move it away if you put it there.",
                )
        return _journal_lies_there(f"{index}-journal"), identity


def _journal_lies_there(journal: str) -> bool:
    try:
        size = _regular(journal).st_size
        if size == 0:
            return False
        fd = os.open(journal, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:  # the usual case, or another writer has just committed
        return False
    try:
        tail = os.pread(fd, 8, max(0, size - 8))
    finally:
        os.close(fd)
    if tail == _SUPER_JOURNAL:
        raise DamagedError(
            "the index's journal names a super-journal: SQLite would delete a foreign file",
            hint="The folder was tampered with; restore a backup.",
        )
    return True


def connect(
    index: Path, *, fresh: bool = False, patience: int = 30, read_only: bool = False
) -> sqlite3.Connection:
    """Return a hardened connection to an existing index file, schema compared byte for byte.

    fresh: accept a file without any schema, which a dead `create` left, and write ours.
    patience: seconds that one statement waits for another writer. read_only: change nothing; a
    journal that would have to be rolled back is then a StorageError.
    Raises DamagedError, UnsupportedFormatError or StorageError, and NotFoundError for an index
    without any schema that is not `fresh`.
    """
    uri = f"{index.absolute().as_uri()}?mode={'ro' if read_only else 'rw'}"
    with translated():
        connection = sqlite3.connect(
            uri, uri=True, isolation_level=None, check_same_thread=False, timeout=patience
        )
    try:
        with translated():
            connection.text_factory = bytes  # hostile text must not reach a decoder
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LENGTH_LIMIT)
            connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
            _set_pragmas(connection)
            if connection.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (0,):
                _write_schema(connection, fresh=fresh)
            _compare_schema(connection)
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def translated() -> Generator[None]:
    """Turn SQLite's and the system's errors into the vault's: storage, or damage."""
    try:
        yield
    except sqlite3.Error as error:
        raise _translate(error) from error
    except OSError as error:
        raise StorageError(f"the file system refused: {error.strerror}") from error


def _translate(error: sqlite3.Error) -> VaultError:
    code = getattr(error, "sqlite_errorcode", 0)
    text = _STORAGE_CODES.get(code & 0xFF)
    if text is not None:
        name = getattr(error, "sqlite_errorname", "SQLITE")
        return StorageError(f"{text} ({name})", hint="Nothing that was saved before is lost.")
    return DamagedError("the index is not readable as a database of this program")


def _regular(path: str) -> os.stat_result:
    """Return the status of a regular file of ours, by `lstat`; raises FileNotFoundError."""
    try:
        status = os.lstat(path)
    except PermissionError as error:
        raise StorageError(f"{Path(path).name} may not be looked at") from error
    if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid():
        return status
    name = Path(path).name
    if not stat.S_ISREG(status.st_mode):
        raise DamagedError(f"{name} is not a regular file", hint="The folder was changed.")
    raise StorageError(
        f"{name} belongs to another user", hint="Open the vault as the user who made it."
    )


def _set_pragmas(connection: sqlite3.Connection) -> None:
    for name, value, expected in _PRAGMAS:
        connection.execute(f"PRAGMA {name}={value}").fetchall()
        if connection.execute(f"PRAGMA {name}").fetchone() != (expected,):
            raise StorageError(f"SQLite {sqlite3.sqlite_version} refuses PRAGMA {name}={value}")


def _write_schema(connection: sqlite3.Connection, *, fresh: bool) -> None:
    if not fresh:
        raise unfinished()
    connection.execute("BEGIN IMMEDIATE")
    for statement in SCHEMA:
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version={USER_VERSION}")
    connection.execute("COMMIT")


def _compare_schema(connection: sqlite3.Connection) -> None:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION_ID:
        raise DamagedError("the index is a database of another program")
    if version != USER_VERSION:
        raise UnsupportedFormatError(
            f"the index has format {version}; this program knows {USER_VERSION}",
            hint="Use a newer release.",
        )
    expected: list[tuple[bytes, bytes, bytes, bytes | None]] = []
    for statement in SCHEMA:
        name = statement.split()[2].encode()
        expected.append((b"table", name, name, statement.encode()))
        if "UNIQUE" in statement:
            expected.append((b"index", b"sqlite_autoindex_%s_1" % name, name, None))
    rows = connection.execute(
        "SELECT type, name, tbl_name, CASE WHEN length(sql) < 400 THEN sql END"
        " FROM sqlite_schema ORDER BY rowid LIMIT 32"
    ).fetchall()
    if rows != expected:
        raise DamagedError(
            "the index has tables, views or triggers that this program did not make",
            hint="The folder was tampered with; restore a backup.",
        )
