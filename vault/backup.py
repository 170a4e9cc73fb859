"""Back a vault up into a folder that is a vault itself, and restore one from such a folder."""

import os
import time
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from vault.blobs import stranger_in
from vault.copying import Copying
from vault.errors import BadValueError, DamagedError, KeyStoreError, StorageError
from vault.examination import FOLDER_NAMES, Cancelled, Stage, examine, never, unseen
from vault.index import Index, RecordRow
from vault.keytree import read_slot, root_tag
from vault.layout import Layout, read_header
from vault.ledger import Ledger
from vault.page import Problem
from vault.records import timestamp
from vault.session import Session
from vault.unlock import Unlock, opener_for

__all__ = ["BackupReport", "RestoreReport", "back_up", "restore"]

_HALF_MADE = frozenset({"blobs", "incoming", "lock"})  # what a killed first copy leaves
_LAST = (1 << 63) - 1  # SQLite's largest integer
_ROWS = 64  # record rows looked at together, newest first
_CHECK_SHARE = 0.2  # of a restore's progress


@dataclass(frozen=True, kw_only=True)
class BackupReport:
    """What a backup holds, and what was done for it; bytes are of sealed files.

    copied: files that the folder did not have, or had damaged, which `healed` counts alone; deep:
    every file that it had was opened for that. removed: files of what the vault deleted since.
    complete: false when it was cancelled; then an earlier backup still stands.
    """

    target: Path
    when: str
    full: bool
    complete: bool
    records: int
    files: int
    copied: int
    copied_bytes: int
    healed: int
    deep: bool
    removed: int


@dataclass(frozen=True, kw_only=True)
class RestoreReport:
    """What was restored. problems: what of the source did not open, and was passed over.

    warning: why the key store still remembers another state of the vault, or empty. complete:
    false when it was cancelled; the same restore then goes on where it stopped.
    """

    vault_id: str
    path: Path
    complete: bool
    records: int
    files: int
    bytes: int
    problems: tuple[Problem, ...]
    warning: str


def back_up(
    session: Session,
    target: Path,
    *,
    index_only: bool = False,
    deep: bool = False,
    progress: Stage = unseen,
    cancelled: Cancelled = never,
) -> BackupReport:
    """Copy the vault to a new or empty folder, or bring an earlier backup of it up to date.

    index_only: the index alone, which holds all keys. deep: open every file that an earlier
    backup holds, and copy again what is damaged; else only sizes and heads are looked at.

    Raises BadValueError for a folder inside the vault, with other files, of another vault, or that
    went on by itself: then nothing is written. Raises DamagedError when something of
    the vault does not open, or StorageError: then an earlier backup is as it was.
    """
    root = _outside(session.layout.root, target)
    _check_target(session, root)
    copying = Copying(
        session=session,
        root=root,
        check=lambda: _check_target(session, root),
        index_only=index_only,
        deep=deep,
        as_backup=True,
        progress=progress,
        cancelled=cancelled,
    )
    with session.shared():
        session.index.quick_check()
    complete = copying.run()
    when = timestamp(session.clock())
    if complete and not session.read_only:
        with suppress(StorageError):  # the backup is there, whether or not the vault can note it
            with session.shared(), session.ledger.writing() as change:
                change.note("backup", {"when": when, "full": not index_only})
            session.anchor_in_time()
    return BackupReport(
        target=root,
        when=when,
        full=not index_only,
        complete=complete,
        records=copying.records,
        files=copying.files,
        copied=copying.copied,
        copied_bytes=copying.copied_bytes,
        healed=copying.healed,
        deep=deep,
        removed=copying.removed,
    )


def restore(
    source: Path,
    target: Path,
    unlock: Unlock,
    *,
    partial: bool = False,
    progress: Stage = unseen,
    cancelled: Cancelled = never,
) -> RestoreReport:
    """Copy a backup, or any vault's folder, to a new or empty folder; the source is not changed.

    Raises BadValueError when something lies at the target, LockedError and its kinds when the
    unlock does not fit, DamagedError when something of the source is missing or damaged: with
    `partial` that is passed over and reported. Then the key store takes the restored state for
    the vault's newest.
    """
    layout = Layout(Path(source))
    vault_id = read_header(layout.root)
    root = _outside(layout.root, target)
    _check_free(root)
    layout.require_index()
    session = Session(layout, vault_id, opener_for(unlock, vault_id), time.time)
    with closing(session):
        seen = examine(
            session,
            hold=session.shared,
            progress=lambda stage, share: progress(stage, share * _CHECK_SHARE),
            cancelled=cancelled,
        )
        problems = seen.problems
        if problems and not partial:
            raise _damaged(problems, files=seen.blobs)
        copying = Copying(
            session=session,
            root=root,
            check=lambda: _check_free(root),
            partial=partial,
            progress=lambda stage, share: progress(stage, _rest(share)),
            cancelled=cancelled,
        )
        complete = seen.complete and copying.run()
        warning = _reset_anchor(session, copying) if complete else ""
    known = {(problem.record_id, problem.text) for problem in problems}
    more = [each for each in copying.problems if (each.record_id, each.text) not in known]
    return RestoreReport(
        vault_id=vault_id.hex(),
        path=root,
        complete=complete,
        records=copying.records,
        files=copying.files,
        bytes=copying.copied_bytes,
        problems=(*problems, *more),
        warning=warning,
    )


def _rest(share: float) -> float:
    return _CHECK_SHARE + share * (1 - _CHECK_SHARE)


def _damaged(problems: list[Problem], *, files: int) -> DamagedError:
    if files and sum(problem.kind == "missing" for problem in problems) == files:
        return DamagedError(
            "this is a backup of the index alone: it holds the keys, and no sealed file",
            hint="Copy its index.sqlite into the folder of the vault that lost it.",
        )
    return DamagedError(
        f"{len(problems)} things of this vault are missing or damaged, the first: "
        f"{problems[0].text}",
        hint="`vault verify` lists them. With --partial all the rest is restored.",
    )


def _reset_anchor(session: Session, copying: Copying) -> str:
    try:
        session.anchor.reset(copying.at, copying.root_tag)
    except KeyStoreError as error:
        return f"the key store still takes the restored vault for an old copy: {error}"
    return ""


def _outside(vault: Path, target: Path) -> Path:
    """Return the target's real path; raises BadValueError where it is the vault or lies in it."""
    root, inside = Path(target).resolve(), Path(vault).resolve()
    same = root.exists() and root.samefile(inside)  # by another way, such as a bind mount
    if same or root.is_relative_to(inside) or inside.is_relative_to(root):
        raise BadValueError(
            f"{root} and the vault at {inside} lie in each other",
            hint="Choose a folder outside, best on another disk.",
        )
    return root


def _names_in(root: Path) -> set[str]:
    try:
        return set(os.listdir(root))  # noqa: PTH208 - names are enough
    except FileNotFoundError:
        return set()
    except NotADirectoryError:
        raise BadValueError(f"{root} is a file, not a folder") from None
    except OSError as error:
        raise StorageError(f"{root} cannot be looked at: {error.strerror}") from error


def _check_free(root: Path) -> None:
    """Raise BadValueError unless the folder is new, empty, or what a stopped restore left."""
    names = _names_in(root)
    if "VAULT" in names or "index.sqlite" in names:
        raise BadValueError(
            f"a vault lies at {root}; it is never overwritten",
            hint="Restore to a new folder, or move the old one aside with --replace.",
        )
    if not names <= _HALF_MADE:
        raise BadValueError(f"{root} holds other files", hint="Choose a new or an empty folder.")
    _refuse_stranger(root)


def _refuse_stranger(root: Path) -> None:
    """Raise BadValueError where `blobs` or `incoming` hold what no copy of ours left there."""
    strange = stranger_in(root)
    if strange is not None:
        raise BadValueError(
            f"{root} holds other files, such as {strange!a}",
            hint="Choose a new or an empty folder.",
        )


def _check_target(session: Session, root: Path) -> None:
    """Raise BadValueError unless the folder is new, empty, or an older backup of this vault."""
    names = _names_in(root)
    if names <= _HALF_MADE:
        _refuse_stranger(root)
        return
    if "VAULT" not in names or not names <= FOLDER_NAMES:
        raise BadValueError(
            f"{root} holds other files",
            hint="Choose a new or an empty folder, or an earlier backup of this vault.",
        )
    if read_header(root) != session.ledger.vault_id:
        raise BadValueError(
            f"{root} holds another vault, or a backup of another vault",
            hint="Choose a new or an empty folder.",
        )
    if "index.sqlite" in names:
        _refuse_parted(session, Layout(root))


def _refuse_parted(session: Session, copy: Layout) -> None:
    """Raise BadValueError when the target has what the vault does not: it would be lost.

    Opening the target's index also rolls back a journal, which the new index must not inherit.
    """
    with session.shared(), session.ledger.reading():
        end = session.ledger.root.next_position
    try:
        untouched = copy.is_untouched_backup()  # before SQLite rolls anything back
        with closing(Index(copy.index)) as index, index.reading():
            state, tag = index.state(), root_tag(index.root())
            newer = index.meta_bytes(end, _LAST) > 0
            newest = _newest_rows(index, end)
    except DamagedError as error:
        raise DamagedError(
            f"the earlier backup is damaged: {error}",
            hint="Move it away, or choose another folder.",
        ) from error
    if state is None or state.vault_id != session.ledger.vault_id:
        raise BadValueError(f"{copy.root} belongs to another vault")
    at = (state.epoch, state.generation)
    with session.shared(), session.ledger.reading():
        ledger = session.ledger
        older = at < ledger.at or (at == ledger.at and tag == ledger.root_tag)
        newer = newer or any(_is_another(ledger, row, untouched=untouched) for row in newest)
    if newer or not older:
        raise BadValueError(
            f"{copy.root} went on by itself: it is newer than the vault, or was used as one",
            hint="Choose a new folder, so that nothing of it is lost.",
        )


def _newest_rows(index: Index, end: int) -> list[RecordRow]:
    """Return some of the newest record rows below position `end`, or none if there is none."""
    while end > 0:
        start = max(0, end - _ROWS)
        rows = index.records(start, end - 1)
        if rows:
            return rows
        end = start
    return []


def _is_another(ledger: Ledger, row: RecordRow, *, untouched: bool) -> bool:
    """Say whether the vault never had the record at a row's position, as far as can be known.

    Positions are never given twice: a record that the vault deleted has left an empty slot. So
    has one that took the place of what was added to a copy (untouched: nothing was).
    """
    position, record_id, _meta = row
    number, index = divmod(position, ledger.root.page_slots)
    slot = read_slot(ledger.page(number), index)
    return not untouched if slot is None else slot.record_id != record_id
