"""Seal files of other programs: each is opened again from the disk and compared, byte by byte."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from safelight.exits import ApplicationError, UsageError
from safelight.importing.original import Original, mark_of, read_original

if TYPE_CHECKING:
    from vault import Vault

__all__ = ["Duplicate", "Importer", "Refused", "Source", "Taken", "known_marks"]

BATCH: Final = 16  # records a transaction, as the vault takes them
BATCH_BYTES: Final = 64 << 20  # held in memory at most, beside one more file


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A file to take: its name, when it was changed (ISO 8601 or ''), and its bytes, or why it
    cannot be read.
    """

    name: str
    modified: str = ""
    data: bytes = b""
    error: str = ""


@dataclass(frozen=True, slots=True)
class Taken:
    """A file is sealed, and what the disk holds was compared with it."""

    name: str
    record_id: str
    program: str
    mark: int


@dataclass(frozen=True, slots=True)
class Duplicate:
    """The vault has these bytes already."""

    name: str
    record_id: str
    mark: int


@dataclass(frozen=True, slots=True)
class Refused:
    """A file is left where it is, and why."""

    name: str
    reason: str


class Importer:
    """Take files into a vault, and none of them twice.

    vault: None only reads them, and says what would be taken (record id ''). known: marks of files
    that are there; None asks the vault. batch_bytes: held before they are sealed.
    """

    def __init__(
        self,
        vault: "Vault | None",
        known: dict[int, str] | None = None,
        *,
        batch_bytes: int = BATCH_BYTES,
    ) -> None:
        self._batch_bytes = batch_bytes
        self._vault = vault
        self._known = dict(known or {})
        if vault is not None and known is None:
            self._known = known_marks(vault)
        self._waiting: list[tuple[str, Original]] = []
        self._bytes = 0

    def take(self, sources: Iterable[Source]) -> Iterator[Taken | Duplicate | Refused]:
        """Yield what became of each file. Taken is said only once it is on the disk and compared.

        However it ends, what was read is sealed first; a file that cannot be read ends nothing.
        Raises what the vault raises.
        """
        for source in sources:
            yield from self._one(source)
            if len(self._waiting) == BATCH or self._bytes >= self._batch_bytes:
                yield from self._flush()
        yield from self._flush()

    def _one(self, source: Source) -> Iterator[Taken | Duplicate | Refused]:
        if source.error:
            yield Refused(source.name, source.error)
            return
        mark = mark_of(source.data)
        if any(original.mark == mark for _, original in self._waiting):
            yield from self._flush()  # its twin must be sealed first
        if self._is_there(mark):
            yield Duplicate(source.name, self._known[mark], mark)
            return
        try:
            original = read_original(source.data, source.name, source.modified)
        except UsageError as error:
            yield Refused(source.name, str(error))
            return
        self._waiting.append((source.name, original))
        self._bytes += len(source.data)

    def _is_there(self, mark: int) -> bool:
        """Say whether the vault has the file still: it may have been trashed or deleted since."""
        from vault import NotFoundError

        record_id = self._known.get(mark)
        if not record_id or self._vault is None:
            return record_id is not None
        try:
            return self._vault.get(record_id).trashed is None
        except NotFoundError:
            return False

    def _flush(self) -> Iterator[Taken]:
        waiting, self._waiting, self._bytes = self._waiting, [], 0
        if not waiting:
            return
        if self._vault is None:
            for name, original in waiting:
                self._known[original.mark] = ""
                yield Taken(name, "", original.program, original.mark)
            return
        records = self._vault.add([original.draft() for _, original in waiting])
        for (name, original), record in zip(waiting, records, strict=True):
            if self._vault.read(record.id, "picture") != original.data:
                raise ApplicationError(
                    f"record {record.id[:8]} does not read back as the file that was imported",
                    hint="the original is untouched; `safelight vault verify --deep` looks further",
                )
            self._known[original.mark] = record.id
            yield Taken(name, record.id, original.program, original.mark)


def known_marks(vault: "Vault") -> dict[int, str]:
    """Find which files are in the vault, those in the trash not counted: mark -> record id."""
    found: dict[int, str] = {}
    for record in vault.list():
        imported = record.metadata.get("imported")
        if isinstance(imported, dict) and "mark" in imported:
            found[imported["mark"]] = record.id
    return found
