"""Delete records, purge what is left of them, rotate keys, and say what is gone and what is not."""

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from vault.change import Change
from vault.epoch import Ending, begin_epoch, finish, openers_of
from vault.errors import BadValueError, DamagedError, StorageError
from vault.keystore import keystore_name
from vault.keytree import TRASHED
from vault.layout import snapshots_of
from vault.openers import Openers
from vault.records import Metadata, timestamp
from vault.sealed_record import SealedRecord, seal_metadata
from vault.session import Session

__all__ = ["Progress", "Receipt", "delete", "purge", "resume", "rotate", "with_openers"]

_AT_ONCE = 1000  # records a transaction of `delete`
_METADATA_KEY_BYTES = 32
Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What a new epoch has shredded, and what could still open residue of the old one.

    records: those shredded now; those deleted before went with their pages. pages: put under
    fresh keys. shredded: the old key is gone from the key store, seen to be gone. remaining:
    sentences for people.
    """

    when: str
    epoch: int
    records: int
    files: int
    pages: int
    shredded: bool
    remaining: tuple[str, ...]


def delete(
    session: Session,
    ids: Sequence[str],
    progress: Progress,
    still: Callable[[int], bool] = lambda _position: True,
) -> list[int]:
    """Delete records and their files; return their positions. Residue goes with the next purge.

    An id that no record has is passed over: somebody else was faster. still: asked for each
    position inside the transaction that deletes it; what it declines stays.
    """
    session.require_writable()
    wanted = list(dict.fromkeys(map(str.lower, ids)))
    deleted: list[int] = []
    for start in range(0, len(wanted), _AT_ONCE):
        with session.shared():
            with session.ledger.writing() as change:
                positions = _positions(session, wanted[start : start + _AT_ONCE])
                found = [position for position in positions if still(position)]
                files = _files_at(session, found)
                if found:
                    change.drop(found)
                    change.unlink_later(files)
            session.blobs.delete(files)
            _clear_own(session, files)
        deleted += found
        progress(min(start + _AT_ONCE, len(wanted)), len(wanted))
    session.anchor_in_time()
    return deleted


def purge(
    session: Session,
    ids: Sequence[str] | None,
    openers: Callable[[Openers], Openers],
    retire: bool | None = None,
) -> Receipt:
    """Shred records (None: all in the trash) and all residue of earlier deletions.

    openers: who opens the vault from now on, given who does. Raises what `begin_epoch` raises,
    and then nothing has changed.
    """
    with session.exclusive():
        with session.ledger.reading():
            positions = _trashed(session) if ids is None else []
            positions += _positions(session, [] if ids is None else ids)
            files = _files_at(session, positions)

        def drop(change: Change) -> None:
            change.drop(positions)
            change.unlink_later(files)

        pages = _stale_pages(session, positions)
        before = openers_of(session)
        after = openers(before)
        ending = begin_epoch(session, after, retire=retire, also=drop)
        return _receipt(session, (before, after), ending, (len(positions), len(files), pages))


def rotate(session: Session, *, deep: bool, retire: bool | None, progress: Progress) -> Receipt:
    """Put root, slots and stale pages under fresh keys; deep: every page and every metadata row.

    deep also ends what old copies of the index could tell of records that were edited since.
    """
    with session.exclusive():
        openers = openers_of(session)
        every = len(session.ledger.root.pages)

        def reseal(change: Change) -> None:
            if deep:
                _reseal_all(session, change, progress)

        pages = every if deep else _stale_pages(session, ())
        ending = begin_epoch(session, openers, retire=retire, all_pages=deep, also=reseal)
        return _receipt(session, (openers, openers), ending, (0, 0, pages))


def with_openers(
    session: Session, change: Callable[[Openers], Openers], retire: bool | None
) -> Receipt:
    """Change who opens the vault, which is a new epoch: the old slots open nothing any more."""
    with session.exclusive():
        before = openers_of(session)
        after = change(before)
        pages = _stale_pages(session, ())
        ending = begin_epoch(session, after, retire=retire)
        return _receipt(session, (before, after), ending, (0, 0, pages))


def resume(session: Session) -> str:
    """Finish what a killed deletion or purge left, if nobody else uses the vault.

    Returns a warning when something of it still resists, else nothing.
    """
    if session.read_only:
        return ""
    with session.shared(), session.ledger.reading():
        notes = session.ledger.notes
        if not (notes.get("coming") or notes.get("retired") or session.index.pending()):
            return ""
    try:
        with session.exclusive_if_free() as alone:
            if not alone:
                return ""
            ending = finish(session)
    except StorageError as error:
        return f"a deletion is not finished: {error}"
    if not ending.left:
        return ""
    number, entry = ending.left[0]
    why = f" ({ending.why})" if ending.why else ""
    return (
        f"an old key of this vault, {entry}, is still in {keystore_name(number)}{why}: "
        "old copies of the folder open with it"
    )


def _positions(session: Session, ids: Iterable[str]) -> list[int]:
    """Return the positions of the records that are there."""
    positions: list[int] = []
    for record_id in ids:
        if len(record_id) != 32 or set(record_id) - set("0123456789abcdef"):
            raise BadValueError("a record id has 32 hex digits")
        position = session.ledger.position_of(bytes.fromhex(record_id))
        if position is not None:
            positions.append(position)
    return positions


def _files_at(session: Session, positions: Sequence[int]) -> list[bytes]:
    """Return the names of the records' files.

    Metadata that is damaged names none, and must not keep its record from being deleted: those
    files are orphans then, for `repair`.
    """
    files: list[bytes] = []
    for position in positions:
        with suppress(DamagedError):
            opened = session.ledger.at_position(position)
            files += [seal.file for seal in Metadata.decode(opened.text).blobs]
    return files


def _trashed(session: Session) -> list[int]:
    return [position for position, slot in session.ledger.placed_slots() if slot.flags & TRASHED]


def _clear_own(session: Session, files: Sequence[bytes]) -> None:
    """Clear the list that this deletion wrote; another process clears its own."""
    if not files:
        return
    with session.ledger.writing() as change:
        mine = set(files)
        for no, names in session.ledger.pending_lists():
            if names and mine.issuperset(names):
                change.unlinked([no])


def _stale_pages(session: Session, positions: Sequence[int]) -> int:
    return len(session.ledger.dirty_pages() | session.ledger.pages_of(positions))


def _reseal_all(session: Session, change: Change, progress: Progress) -> None:
    """Put every metadata row under a fresh key; what it says, its revision included, goes on."""
    ledger = session.ledger
    total = ledger.root.next_position
    for done, (position, slot) in enumerate(ledger.placed_slots()):
        opened = ledger.at_position(position)
        fresh = slot._replace(metadata_key=os.urandom(_METADATA_KEY_BYTES))
        record: SealedRecord = seal_metadata(ledger.vault_id, fresh, opened.text)
        change.put(position, record)
        if done % _AT_ONCE == 0:
            progress(done, total)


def _receipt(
    session: Session,
    openers: tuple[Openers, Openers],
    ending: Ending,
    counts: tuple[int, int, int],
) -> Receipt:
    before, after = openers
    remaining: list[str] = []
    for number, entry in ending.left:
        why = f": {ending.why}" if ending.why else ", as asked"
        remaining.append(f"The old key {entry} is still in {keystore_name(number)}{why}.")
    secrets: list[str] = []
    if before.phrase is not None:
        same = before.phrase == after.phrase
        secrets.append("the recovery phrase" if same else "the recovery phrase that was replaced")
    if before.passphrase is not None and not before.both:
        same = before.passphrase == after.passphrase
        secrets.append("the passphrase" if same else "the passphrase that was replaced")
    if secrets:
        remaining.append(
            f"Whoever has {' or '.join(secrets)} and an older backup, or residue of the old index "
            "on the disk, opens what was in it."
        )
    if before.keystore is not None:
        remaining.append(
            "An old copy of the key store's own file (a backup of the home folder) still holds "
            "the old key."
        )
    kind = snapshots_of(session.layout.root)
    if kind:
        remaining.append(
            f"The folder lies on {kind}: snapshots keep deleted files until they are removed."
        )
    records, files, pages = counts
    return Receipt(
        when=timestamp(session.clock()),
        epoch=session.ledger.at[0],
        records=records,
        files=files,
        pages=pages,
        shredded=not ending.left,
        remaining=tuple(remaining),
    )
