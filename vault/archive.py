"""Write all records of a vault into one sealed file, and read such a file (FORMAT.md, "Archive").

An archive has a passphrase of its own and hangs on no key of the vault. `archive_reader.py` beside
this file reads it with nothing else of this package, so the data outlives the program; each
archive is read back with that reader before it gets its name.
"""

import errno
import hashlib
import json
import os
import stat
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from vault import archive_reader
from vault.archive_reader import ReaderError
from vault.context import PUBLIC_KINDS, Kind
from vault.errors import (
    BadValueError,
    DamagedError,
    LockedError,
    NotFoundError,
    StorageError,
    UnsupportedFormatError,
    WrongPassphraseError,
)
from vault.frame import frame
from vault.passphrase import Argon2Parameters, derive
from vault.records import Blob, Record
from vault.secret import Secret

if TYPE_CHECKING:
    from vault.vault import Vault

__all__ = [
    "ArchiveReport",
    "ArchivedRecord",
    "all_records",
    "describe",
    "read_archive",
    "require_free",
    "write_archive",
]

_FORMAT = b"\0\1"  # the reader knows no other
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# What link() says where the file system knows no hard links (FAT, some network mounts).
_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS})


@dataclass(frozen=True)
class ArchiveReport:
    """What an archive holds: records, their blobs, and the blobs' plaintext bytes."""

    records: int
    blobs: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class ArchivedRecord:
    """One record of an archive, whole. `data` holds each blob's bytes by its name."""

    id: str
    kind: Kind
    created: str
    trashed: str | None
    metadata: dict[str, Any] = field(repr=False)
    blobs: Mapping[str, Blob]
    data: Mapping[str, bytes] = field(repr=False)


def write_archive(
    vault: "Vault",
    target: Path,
    passphrase: Secret,
    *,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> ArchiveReport | None:
    """Write all records of an open vault into a new sealed file, durably, and read it back.

    The file gets its name only when all of it was read back; before that, and after any error,
    there is none. Records that another process deletes meanwhile are left out. progress(records
    written plus records read back, of twice their number). Returns None when `cancelled` said so.

    Raises BadValueError where a file exists, DamagedError for a record that does not open,
    StorageError when the disk refuses.
    """
    require_free(target)
    if target.parent.resolve().is_relative_to(vault.path.resolve()):
        raise BadValueError("an archive cannot lie inside the vault", hint="Choose another folder.")
    seal = _ArchiveSeal.generate(passphrase)
    status = vault.status()
    steps = _Steps(2 * (sum(status.records.values()) + status.trashed), progress, cancelled)
    partial = target.with_name(f".{target.name}.partial-{os.urandom(8).hex()}")
    try:
        report = _write(vault, partial, seal, steps)
        if report is None or not _reads_back(partial, seal, steps):
            return None
        _publish(partial, target)
    except FileExistsError:
        raise _occupied(target) from None
    except OSError as error:
        raise StorageError(
            f"the archive could not be written: {error.strerror}", hint="No part of it was left."
        ) from error
    finally:
        with suppress(OSError):  # it has its name now, or was never made
            partial.unlink()
    return report


def read_archive(path: Path, passphrase: Secret) -> Iterator[ArchivedRecord]:
    """Yield the records of an archive, one at a time.

    Only when the iterator ends is it known that none is missing. Raises WrongPassphraseError,
    DamagedError, UnsupportedFormatError, NotFoundError, StorageError.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO must not hang us
        with os.fdopen(fd, "rb") as stream:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise BadValueError(f"{path} is not a regular file")
            header = stream.read(archive_reader.HEADER.size)
            with _translated():
                key = archive_reader.unlock(header, passphrase.reveal())
            source = archive_reader.records(stream, header, key)
            while True:
                with _translated():
                    document, blobs = next(source, (None, ()))
                if document is None:
                    return
                yield _archived(document, blobs)
    except FileNotFoundError:
        raise NotFoundError(f"there is no archive at {path}") from None
    except OSError as error:
        raise StorageError(f"the archive cannot be read: {error.strerror}") from error


def all_records(vault: "Vault") -> Iterator[Record]:
    """Yield every record once, of every kind, in the trash or not.

    The trash is looked through before and after, so that a record which others move in or out of
    it meanwhile is not missed.
    """
    seen: set[int] = set()
    for trashed in (True, False, True):
        for record in vault.list(kinds=PUBLIC_KINDS, trashed=trashed):
            if record.position not in seen:
                seen.add(record.position)
                yield record


def describe(record: Record, data: Mapping[str, bytes | bytearray]) -> dict[str, Any]:
    """Return a record as plain JSON, with those of its blobs whose bytes are given."""
    return {
        "id": record.id,
        "kind": record.kind.name.lower(),
        "created": record.created,
        "trashed": record.trashed,
        "metadata": record.metadata,
        "blobs": [
            {
                "name": blob.name,
                "kind": blob.kind.name.lower(),
                "media_type": blob.media_type,
                "length": len(data[blob.name]),
                "sha256": hashlib.sha256(data[blob.name]).hexdigest(),
            }
            for blob in record.blobs.values()
            if blob.name in data
        ],
    }


def require_free(target: Path) -> None:
    """Raise BadValueError where something of that name exists: nothing is overwritten."""
    if os.path.lexists(target):
        raise _occupied(target)


@dataclass(frozen=True, repr=False)
class _ArchiveSeal:
    """The header of a new archive, and the key of its items, which are bound to that header."""

    header: bytes
    key: bytes

    @classmethod
    def generate(cls, passphrase: Secret) -> Self:
        """Derive from the passphrase, a tenth of a second."""
        from vault.sealing import expand

        parameters = Argon2Parameters.generate()
        root = derive(passphrase, parameters)
        start = archive_reader.MAGIC + _FORMAT + os.urandom(16) + parameters.encode()
        start += expand(root, archive_reader.CHECK_LABEL)
        key = expand(root, archive_reader.ITEMS_LABEL)
        return cls(start + hashlib.sha256(start).digest(), key)

    def seal(self, number: int, kind: int, payload: bytes) -> bytes:
        """Return a whole item: kind, length, and the payload, framed and sealed."""
        from vault.sealing import SEAL_LIMIT, seal_small

        if number >= SEAL_LIMIT:
            raise BadValueError(f"an archive holds at most {SEAL_LIMIT} items")
        place = self.header + number.to_bytes(8, "big") + bytes((kind,))
        framed = frame(payload, metadata=kind != archive_reader.PIECE)
        sealed = seal_small(self.key, place, framed)
        return archive_reader.ITEM.pack(kind, len(sealed)) + sealed


class _Steps:
    """How far the work is, and whether somebody asked to stop."""

    def __init__(
        self, total: int, progress: Callable[[int, int], None], cancelled: Callable[[], bool]
    ) -> None:
        self._total = total
        self._done = 0
        self._progress = progress
        self.cancelled = cancelled

    def next(self) -> None:
        """Count one record; others may have added some since the total was taken."""
        self._done = min(self._done + 1, self._total)
        self._progress(self._done, self._total)


def _write(
    vault: "Vault", partial: Path, seal: _ArchiveSeal, steps: _Steps
) -> ArchiveReport | None:
    from vault.files import sync

    numbers, step = count(), archive_reader.PIECE_BYTES
    found = Counter(records=0, pieces=0, bytes=0)  # the end's bytes, in this order
    blobs = 0
    with os.fdopen(os.open(partial, _NEW_FILE, 0o600), "wb") as stream:

        def put(kind: int, payload: bytes) -> None:
            stream.write(seal.seal(next(numbers), kind, payload))

        stream.write(seal.header)
        for record in all_records(vault):
            if steps.cancelled():
                return None
            data = _read(vault, record)
            if data is None:
                continue
            put(archive_reader.RECORD, _json(describe(record, data)))
            for blob in data.values():
                pieces = [blob[start : start + step] for start in range(0, len(blob), step)]
                for piece in pieces:
                    put(archive_reader.PIECE, bytes(piece))
                found.update(pieces=len(pieces), bytes=len(blob))
            found["records"] += 1
            blobs += len(data)
            steps.next()
        put(archive_reader.END, _json(found))
        stream.flush()
        sync(stream.fileno())
    return ArchiveReport(found["records"], blobs, found["bytes"])


def _read(vault: "Vault", record: Record) -> dict[str, bytearray] | None:
    """Return a record's blobs, or None when another process deleted it meanwhile."""
    try:
        return {name: vault.read(record.id, name) for name in record.blobs}
    except NotFoundError:
        return None
    except DamagedError as error:
        raise DamagedError(
            f"record {record.id} cannot be archived: {error}",
            hint="Restore it from a backup or delete it, then archive again.",
        ) from error


def _reads_back(partial: Path, seal: _ArchiveSeal, steps: _Steps) -> bool:
    """Open every item of the written file; False when `cancelled` said so."""
    with os.fdopen(os.open(partial, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as stream:
        if hasattr(os, "posix_fadvise"):  # read what the disk holds, not what memory remembers
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        header = stream.read(len(seal.header))
        try:
            for _ in archive_reader.records(stream, header, seal.key):
                steps.next()
                if steps.cancelled():
                    return False
        except ReaderError as error:
            raise StorageError(
                f"the archive does not read back as it was written: {error}",
                hint="No part of it was left. Test the disk and the memory.",
            ) from error
    return True


def _publish(partial: Path, target: Path) -> None:
    """Give the finished file its name; raises FileExistsError where that is taken."""
    from vault.files import sync

    try:
        os.link(partial, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        os.close(os.open(target, _NEW_FILE, 0o600))  # nobody else takes the name from here on
        try:
            partial.replace(target)
        except OSError:
            target.unlink()
            raise
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sync(folder)
    finally:
        os.close(folder)


def _archived(document: Any, data: tuple[bytes, ...] | list[bytes]) -> ArchivedRecord:
    try:
        blobs = [
            Blob(each["name"], _kind(each["kind"]), each["media_type"], each["length"])
            for each in document["blobs"]
        ]
        return ArchivedRecord(
            id=document["id"],
            kind=_kind(document["kind"]),
            created=document["created"],
            trashed=document["trashed"],
            metadata=document["metadata"],
            blobs={blob.name: blob for blob in blobs},
            data={blob.name: each for blob, each in zip(blobs, data, strict=True)},
        )
    except (KeyError, TypeError, AttributeError):
        raise DamagedError("the archive holds a record of a shape that nobody writes") from None


def _kind(name: str) -> Kind:
    kind = Kind.__members__.get(name.upper())
    if kind is None:
        raise UnsupportedFormatError(
            "the archive holds a record of a kind that this program does not know",
            hint="Use a newer release, or the reader that was written beside the archive.",
        )
    return kind


def _json(document: Mapping[str, Any]) -> bytes:
    text = json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode()


@contextmanager
def _translated() -> Generator[None]:
    """Turn the reader's errors into the vault's."""
    try:
        yield
    except ReaderError as error:
        if error.status == archive_reader.WRONG_PASSPHRASE:
            hint = "An archive has a passphrase of its own, chosen when it was made."
            raise WrongPassphraseError(str(error), hint=hint) from None
        raise DamagedError(str(error), hint="Take another copy of it, if there is one.") from None
    except MemoryError:
        raise LockedError("the archive's passphrase needs more memory than there is") from None


def _occupied(target: Path) -> BadValueError:
    return BadValueError(f"{target} exists already; it is not overwritten", hint="Name a new file.")
