"""Look at a whole vault: index, pages, rows, sealed files, and what else lies in the folder.

Nothing stops at the first fault: what does not open is listed, and the rest is looked at.
"""

import hmac
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Literal

from vault.blobs import SHARDS, FileNames, is_file_name
from vault.connection import translated
from vault.envelope import blob_size, open_envelope
from vault.errors import DamagedError, NotFoundError
from vault.keytree import open_root
from vault.layout import read_header
from vault.ledger import Ledger
from vault.page import UNREADABLE, Held, Problem, read_page
from vault.pending import open_pending
from vault.records import Metadata
from vault.sealing import PREFIX_BYTES
from vault.session import Session
from vault.slots import slots_digest

__all__ = [
    "FOLDER_NAMES",
    "Cancelled",
    "Examination",
    "Stage",
    "examine",
    "never",
    "unseen",
]

FOLDER_NAMES = frozenset(
    {"VAULT", "index.sqlite", "index.sqlite-journal", "blobs", "incoming", "lock"}
)
_RECORDS = 32  # whose files are looked at before others get their turn
_OUTSIDE_BYTES = 16 << 20  # of rows at places that no page has, before they are not read
_FIRST, _LAST = -(1 << 63), (1 << 63) - 1  # SQLite's integers

Stage = Callable[[str, float], None]  # what is done now, and the fraction of the whole, 0 to 1
Cancelled = Callable[[], bool]
Hold = Callable[[], AbstractContextManager[None]]


def unseen(_stage: str, _fraction: float) -> None:
    """Show progress to nobody."""


def never() -> bool:
    """Cancel never."""
    return False


@dataclass(kw_only=True, repr=False)
class Examination:
    """What `examine` has seen so far.

    problems: something is lost. beside: something is foreign, or a folder or VAULT is missing,
    and nothing is lost by that. blind: something did not open that may name files, so `orphans`
    may be some record's. whole: SQLite finds its own structure whole.
    """

    records: int = 0
    blobs: int = 0
    problems: list[Problem] = field(default_factory=list[Problem])
    beside: list[Problem] = field(default_factory=list[Problem])
    named: FileNames = field(default_factory=FileNames)
    orphans: dict[bytes, int] = field(default_factory=dict[bytes, int])  # sizes by name
    blind: bool = False
    whole: bool = True
    complete: bool = False

    def take(self, held: Sequence[Held], problems: Sequence[Problem]) -> None:
        """Add what `read_page` returned."""
        lost = [problem for problem in problems if problem.kind != "foreign"]
        self.problems += lost
        self.beside += [problem for problem in problems if problem.kind == "foreign"]
        self.records += len(held) + sum(problem.record_id is not None for problem in lost)
        self.blind = self.blind or bool(lost)
        for record in held:
            for seal in record.seals:
                self.named.add(seal.file, blob_size(seal))

    def add(self, kind: Literal["missing", "damaged"], text: str) -> None:
        """Add a problem that keeps files from being told apart from orphans."""
        self.problems.append(Problem(kind, None, text))
        self.blind = True


def examine(
    session: Session,
    *,
    deep: bool = False,
    hold: Hold,
    progress: Stage = unseen,
    cancelled: Cancelled = never,
) -> Examination:
    """Look at everything and return it, also when `cancelled` (then not `complete`).

    hold: how the vault is held for one batch: `session.shared`, or a null context for a caller
    that holds it alone. The vault may change between batches; a record that is deleted meanwhile
    is no problem.
    """
    seen = Examination()
    progress("checking the index", 0.0)
    with hold():
        _check_structure(session, seen)
    number = 0
    while True:
        with hold(), session.ledger.reading():
            pages = len(session.ledger.root.pages)
            if number >= pages:
                _check_rest(session.ledger, seen)
                break
            held, problems = read_page(session.ledger, number)
        seen.take(held, problems)
        for start in range(0, len(held), _RECORDS):
            if cancelled():
                return seen
            progress("checking records", (number + start / len(held)) / pages)
            with hold():
                _check_files(session, held[start : start + _RECORDS], seen, deep=deep)
        number += 1
    progress("looking at the folder", 1.0)
    with hold():
        _check_folder(session, seen)
    with hold(), session.ledger.reading():
        _forgive(session.ledger, max(0, number - 1), seen)
    seen.complete = True
    return seen


def _check_structure(session: Session, seen: Examination) -> None:
    """Compare what the disk holds of the index's head with what the session opened."""
    try:
        if read_header(session.layout.root) != session.ledger.vault_id:
            raise DamagedError("VAULT is another vault's than index.sqlite")
    except UNREADABLE as error:
        kind = "missing" if isinstance(error, NotFoundError) else "damaged"
        text = "VAULT is missing" if kind == "missing" else str(error)
        seen.beside.append(Problem(kind, None, f"{text}; `vault repair` writes it anew"))
    try:
        session.index.quick_check()
    except UNREADABLE as error:
        seen.whole = False
        seen.add("damaged", str(error))
    with session.ledger.reading():
        ledger = session.ledger
        try:
            open_root(bytes(ledger.root_key), ledger.vault_id, ledger.at, ledger.index.root())
            if slots_digest(ledger.index.slots()) != ledger.root.slots_digest:
                raise DamagedError("the key slots are not those that the vault knows")
        except UNREADABLE as error:
            seen.add("damaged", str(error))


def _check_rest(ledger: Ledger, seen: Examination) -> None:
    """Look for rows at places that no page has, and open the lists of deleted files."""
    for first, last in ((_FIRST, -1), (ledger.root.next_position, _LAST)):
        try:
            planted = ledger.index.meta_bytes(first, last) > _OUTSIDE_BYTES
        except UNREADABLE as error:
            seen.add("damaged", str(error))
            continue
        if not planted:
            try:
                planted = bool(ledger.index.records(first, last))
            except UNREADABLE:  # rows of a wrong shape
                planted = True
        if planted:
            text = "rows of the index lie where no record is"
            seen.beside.append(Problem("foreign", None, text))
    _name_pending(ledger, seen, problems=True)


def _name_pending(ledger: Ledger, seen: Examination, *, problems: bool) -> None:
    """Remember the files that a deletion still has to unlink: they are no orphans."""
    try:
        lists = ledger.index.pending()
    except UNREADABLE as error:
        seen.add("damaged", str(error))
        return
    for no, sealed in lists:
        place = (ledger.at[0], no)
        try:
            names = open_pending(bytes(ledger.root_key), ledger.vault_id, place, sealed)
        except DamagedError as error:
            if problems:
                seen.add("damaged", f"list {no} of deleted files does not open: {error}")
            continue
        for name in names:
            seen.named.add(name, 0)
            seen.orphans.pop(name, None)


def _check_files(
    session: Session, records: Sequence[Held], seen: Examination, *, deep: bool
) -> None:
    for slot, seals in records:
        for seal in seals:
            seen.blobs += 1
            try:
                size = blob_size(seal)
                if deep:
                    sealed = session.blobs.read(seal.file, size)
                    open_envelope(session.ledger.vault_id, slot, seal, sealed)
                    continue
                prefix = session.blobs.read(seal.file, size, PREFIX_BYTES)
                if not hmac.compare_digest(prefix, seal.prefix):
                    raise DamagedError("a sealed file is not the one that its record names")
            except UNREADABLE as error:
                if _is_named(session, slot.record_id, seal.file):
                    kind = "missing" if isinstance(error, NotFoundError) else "damaged"
                    text = f"{seal.blob.name}: {error}"
                    seen.problems.append(Problem(kind, slot.record_id.hex(), text))


def _is_named(session: Session, record_id: bytes, file: bytes) -> bool:
    """Say whether a record is still there and names the file: else it was deleted meanwhile."""
    with session.ledger.reading():
        try:
            opened = session.ledger.find(record_id)
            seals = () if opened is None else Metadata.decode(opened.text).blobs
        except DamagedError:
            return True
    return any(seal.file == file for seal in seals)


def _check_folder(session: Session, seen: Examination) -> None:
    """List all folders: sealed files that no record names, and what nobody of this format makes."""
    root = session.layout.root
    shards = {f"{number:02x}" for number in range(SHARDS)}
    with translated():
        strange = [name for name in os.listdir(root) if name not in FOLDER_NAMES]  # noqa: PTH208
        strange += [f"blobs/{name}" for name in os.listdir(root / "blobs") if name not in shards]  # noqa: PTH208
        with os.scandir(root / "incoming") as entries:
            strange += [
                f"incoming/{entry.name}"
                for entry in entries
                if not (entry.is_file(follow_symlinks=False) and is_file_name(entry.name))
            ]
    for number in range(SHARDS):
        try:
            listing = session.blobs.listing(number)
        except UNREADABLE as error:
            kind = "missing" if isinstance(error, NotFoundError) else "damaged"
            seen.beside.append(Problem(kind, None, str(error)))
            continue
        named = seen.named.shard(number)
        for found in listing:
            name = found.file(number)
            if name is not None and name in named:
                continue  # looked at with its record
            if name is None or not found.regular:
                strange.append(f"blobs/{number:02x}/{found.name}")
            else:
                seen.orphans[name] = found.size
    for name in sorted(strange):  # in ASCII: a name may be made to drive a terminal
        seen.beside.append(Problem("foreign", None, f"{name!a} is nothing of this vault"))


def _forgive(ledger: Ledger, page: int, seen: Examination) -> None:
    """Take off the list what records name that were written since that page was read."""
    for number in range(page, len(ledger.root.pages)) if seen.orphans else ():
        held, _problems = read_page(ledger, number)
        for record in held:
            for seal in record.seals:
                seen.orphans.pop(seal.file, None)
    _name_pending(ledger, seen, problems=False)
