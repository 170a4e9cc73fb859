"""Mend what can be mended without losing anything: VAULT, missing folders, files of nobody.

A sealed file is removed only when the whole index opened and does not name it, and nothing says
that this is not the index which the folder had last. What is damaged is reported, and stays: a
backup has it, or a later program.
"""

import os
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from time import time

from vault.blobs import make_folders, missing_folders, write_beside
from vault.errors import DamagedError, NotFoundError, UnsupportedFormatError
from vault.examination import Cancelled, Examination, Stage, examine, never, unseen
from vault.index import Index
from vault.layout import Layout, encode_header, read_header, unfinished
from vault.ledger import Ledger
from vault.page import Problem
from vault.session import Session
from vault.unlock import Opener, Unlock, opener_for

__all__ = ["RepairReport", "repair"]


@dataclass(frozen=True, kw_only=True)
class RepairReport:
    """What was mended, or with `dry_run` would be.

    header: VAULT was written anew. folders: how many were made. orphans: sealed files removed
    that no record names, and their bytes. kept: why such files were kept, or empty. problems:
    what stays damaged. complete: false when it was cancelled.
    """

    dry_run: bool
    header: bool
    folders: int
    orphans: int
    orphan_bytes: int
    kept: str
    problems: tuple[Problem, ...]
    complete: bool


def repair(
    path: str | PathLike[str],
    unlock: Unlock,
    *,
    dry_run: bool = False,
    progress: Stage = unseen,
    cancelled: Cancelled = never,
) -> RepairReport:
    """Mend a vault's folder; dry_run: only say what would be done.

    VAULT is written from the index, after the vault opened under the id that it names: the root
    proves it. Raises what opening a vault raises, except for a missing or damaged VAULT, and
    DamagedError where the index is another vault's than VAULT and the sealed files.
    """
    layout = Layout(Path(path))
    vault_id = _vault_id(layout)
    opener = opener_for(unlock, vault_id)
    named = _named_by_header(layout.root)
    header, foreign = named != vault_id, named not in (None, vault_id)
    folders = len(missing_folders(layout.root))
    if any(not os.path.lexists(layout.root / name) for name in ("blobs", "incoming")):
        _prove(layout, vault_id, opener)  # nothing is made in a folder that is not this vault's
        if dry_run:
            kept = "sealed files were not looked at, since their folder is missing"
            return _report(Examination(), (header, folders), kept=kept, dry_run=True)
        make_folders(layout.root)
    with closing(Session(layout, vault_id, opener, time)) as session, _held(session, dry_run):
        if foreign:  # VAULT denies the index: does it name the files that are here?
            seen = examine(session, hold=nullcontext, progress=progress, cancelled=cancelled)
            _require_files(seen)
            if not seen.complete:
                kept = _why_kept(seen, foreign=foreign, old=session.anchor.is_old_copy)
                return _report(seen, (False, 0), kept=kept, dry_run=dry_run)
        if not dry_run:
            if header:
                write_beside(layout.root, layout.header.name, encode_header(vault_id))
            make_folders(layout.root)
        seen = examine(session, hold=nullcontext, progress=progress, cancelled=cancelled)
        kept = _why_kept(seen, foreign=foreign, old=session.anchor.is_old_copy)
        if not kept and not dry_run:
            session.blobs.delete(seen.orphans)
    return _report(seen, (header, folders), kept=kept, dry_run=dry_run)


def _vault_id(layout: Layout) -> bytes:
    """Return the id that the index names; nothing proves it yet.

    Raises NotFoundError where no vault is, UnsupportedFormatError for one of a newer format.
    """
    try:
        read_header(layout.root)
    except UnsupportedFormatError:  # its index may mean something else
        raise
    except NotFoundError:
        if not os.path.lexists(layout.index):
            raise
    except DamagedError:
        pass
    read_only = not os.access(layout.index, os.W_OK)
    with closing(Index(layout.index, read_only=read_only)) as index:
        if index.is_unfinished():
            raise unfinished()
        with index.reading():
            state = index.state()
    if state is None:
        raise unfinished()
    return state.vault_id


def _held(session: Session, dry_run: bool) -> AbstractContextManager[None]:
    """Hold the vault alone: a file that is being written has no record yet."""
    return session.shared() if dry_run else session.exclusive()


def _named_by_header(root: Path) -> bytes | None:
    try:
        return read_header(root)
    except (NotFoundError, DamagedError):
        return None


def _require_files(seen: Examination) -> None:
    if any(problem.kind == "missing" for problem in seen.problems):
        raise DamagedError(
            "VAULT and index.sqlite are of two vaults, and files that this index names are missing",
            hint="Put back this vault's own index.sqlite, from a backup. No file was changed.",
        )


def _prove(layout: Layout, vault_id: bytes, opener: Opener) -> None:
    """Open the root, without the folders that a session needs; raises LockedError, DamagedError."""
    with closing(Index(layout.index)) as index:
        ledger = Ledger(index, vault_id, opener)
        with ledger.reading():
            ledger.forget()


def _why_kept(seen: Examination, *, foreign: bool, old: bool) -> str:
    """Say why sealed files that no record names are kept all the same, or nothing.

    foreign: VAULT was another vault's. old: the key store knows a newer state of this one.
    """
    if not seen.complete:
        return "not everything was looked at"
    missing = any(problem.kind == "missing" for problem in seen.problems)
    doubts = (
        (seen.blind, "something of the index does not open, and"),
        (old, "this index is older than the vault was: a newer one"),
        (foreign, "VAULT was another vault's, whose index"),
        (missing, "files that the index names are missing: another index"),
    )
    doubt = next((text for applies, text in doubts if applies), "")
    return f"{doubt} may name these {len(seen.orphans)} files" if doubt and seen.orphans else ""


def _report(
    seen: Examination, mended: tuple[bool, int], *, kept: str, dry_run: bool
) -> RepairReport:
    header, folders = mended
    orphans = {} if kept else seen.orphans
    return RepairReport(
        dry_run=dry_run,
        header=header,
        folders=folders,
        orphans=len(orphans),
        orphan_bytes=sum(orphans.values()),
        kept=kept,
        problems=(*seen.problems, *seen.beside),
        complete=seen.complete,
    )
