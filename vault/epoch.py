"""Begin a new epoch: fresh root key, KEK and slots; pages that lost a record under fresh keys.

What lies about of the old epoch (residue on the disk, old pages, old rows) then hangs on a KEK
that is gone from the key store. Every step may be the last: the index says what is left to do,
and `finish` does it.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from vault.change import Change, Renewal
from vault.errors import DamagedError, KeyStoreError, StorageError
from vault.kek import keep_kek
from vault.keystore import KeyStore, keystore_by_number, keystore_name
from vault.keystore.entry import kek_entry
from vault.openers import Openers, Place, standing
from vault.sealing import KEY_BYTES
from vault.session import Session
from vault.slots import ENTRY_BYTES, SlotType, keyring_place

__all__ = ["Ending", "begin_epoch", "finish", "openers_of"]

_BY_KEY_STORE = frozenset({SlotType.KEYRING, SlotType.KEYRING_AND_PASSPHRASE})


def _nothing_else(_change: Change) -> None:
    """Do nothing besides."""


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How the old epoch ended.

    left: the key store entries that still hold one of its KEKs, (key store number, name); why:
    the key store's own words, or empty.
    """

    left: tuple[tuple[int, str], ...] = ()
    why: str = ""


def openers_of(session: Session) -> Openers:
    """Return who opens the vault now; call it inside `shared` or `exclusive`.

    A key store that is not on this machine, or does not answer, is named all the same, and
    refuses when it is used: so it can be left.
    """
    with session.ledger.reading():
        rows, keys = session.index.slots(), session.ledger.root.slot_keys
    place = keyring_place(rows)
    return standing(rows, keys, None if place is None else _store(session, place[0]))


def begin_epoch(
    session: Session,
    openers: Openers,
    *,
    retire: bool | None = None,
    all_pages: bool = False,
    also: Callable[[Change], None] = _nothing_else,
) -> Ending:
    """Commit a new epoch and shred the old one's KEK; call it inside `exclusive`.

    retire: delete the old KEK; None: only if the key store opened the vault, since two copies of
    one vault share entries. all_pages: fresh keys for every page. also: what the same
    transaction does besides. Raises KeyStoreError or StorageError, and then nothing has changed.
    """
    ledger = session.ledger
    retire = opened_by_key_store(session) if retire is None else retire
    finish(session)
    with ledger.reading():
        old = keyring_place(session.index.slots())
    kek = _coming_kek(session, openers.keystore)
    root_key = os.urandom(KEY_BYTES)
    try:
        with ledger.writing() as change:
            at = (ledger.vault_id, ledger.at[0] + 1)
            slots, keys = openers.seal(root_key, at, kek)
            change.renewal = Renewal(root_key, slots, keys, all_pages)
            change.note("coming", None)
            if old is not None and retire:
                retired = [*ledger.notes.get("retired", ()), _written(old)]
                change.note("retired", retired)
            also(change)
    except BaseException:
        if kek is not None and openers.keystore is not None and not session.index.unsure:
            _abandon(session, openers.keystore, kek_entry(ledger.vault_id, kek[0][1]))
        raise
    session.move_anchor()
    ending = finish(session, retire=retire, keystore=openers.keystore)
    if old is not None and not retire:
        entry = kek_entry(ledger.vault_id, old[1])
        return Ending(left=(*ending.left, (old[0], entry)), why=ending.why)
    return ending


def finish(
    session: Session, *, retire: bool | None = None, keystore: KeyStore | None = None
) -> Ending:
    """Unlink what is deleted, and delete KEKs that no slot names; call it inside `exclusive`.

    Never deletes an entry that a slot names. Without `retire`, entries are touched only when the
    key store opened the vault. keystore: one that is at hand besides the session's.
    """
    ledger = session.ledger
    with ledger.reading():
        files, numbers = ledger.pending()
        notes = ledger.notes
        named = keyring_place(session.index.slots())
    entries = _entries(notes)
    if not numbers and not entries:
        return Ending()
    retire = opened_by_key_store(session) if retire is None else retire
    session.blobs.delete(files)
    left: list[Place] = entries
    why = ""
    if retire:
        places = [place for place in entries if place != named]
        left, why = _delete_entries(session, places, keystore)
    if numbers or left != entries:
        with ledger.writing() as change:
            change.unlinked(numbers)
            change.note("coming", None)
            change.note("retired", [_written(place) for place in left] or None)
    names = tuple((number, kek_entry(ledger.vault_id, entry)) for number, entry in left)
    return Ending(left=names, why=why)


def opened_by_key_store(session: Session) -> bool:
    """Say whether the key store opened this session, rather than phrase or passphrase."""
    return session.opener.slot_type in _BY_KEY_STORE


def _coming_kek(session: Session, keystore: KeyStore | None) -> tuple[Place, bytes] | None:
    """Note the new entry's name, then keep a new KEK there: a crash leaves no unknown key."""
    if keystore is None:
        return None
    place = (keystore.number, os.urandom(ENTRY_BYTES))
    entry = kek_entry(session.ledger.vault_id, place[1])
    keystore.get(entry)  # locked or absent: known before anything is written
    with session.ledger.writing() as change:
        change.note("coming", _written(place))
    try:
        return place, keep_kek(keystore, entry)
    except BaseException:
        _abandon(session, keystore, entry)
        raise


def _abandon(session: Session, keystore: KeyStore, entry: str) -> None:
    """Take back the KEK of an epoch that did not begin; what resists is noted, for `finish`."""
    with suppress(KeyStoreError, StorageError):
        keystore.delete(entry)
        with session.ledger.writing() as change:
            change.note("coming", None)


def _delete_entries(
    session: Session, places: Sequence[Place], keystore: KeyStore | None
) -> tuple[list[Place], str]:
    """Delete entries and see that they are gone; return those that resist, and why."""
    left: list[Place] = []
    why = ""
    for place in places:
        try:
            _store(session, place[0], keystore).delete(kek_entry(session.ledger.vault_id, place[1]))
        except KeyStoreError as error:
            left.append(place)
            why = str(error)
    return left, why


def _store(session: Session, number: int, at_hand: KeyStore | None = None) -> KeyStore:
    for keystore in (at_hand, session.opener.keystore):
        if keystore is not None and keystore.number == number:
            return keystore
    try:
        return keystore_by_number(number)
    except KeyStoreError as error:
        return _RefusingKeyStore(number, error)


class _RefusingKeyStore:
    """Stand for a key store that is absent or broken: it is named, and refuses everything."""

    def __init__(self, number: int, why: KeyStoreError) -> None:
        self.number = number
        self.name = keystore_name(number)
        self._why = why

    def get(self, entry: str) -> bytes | None:
        raise self._error(entry)

    def set(self, entry: str, value: bytes) -> None:
        del value
        raise self._error(entry)

    def delete(self, entry: str) -> None:
        raise self._error(entry)

    def _error(self, _entry: str) -> KeyStoreError:
        hint = "Try again when it answers, or put the key into another one: `vault recover`."
        return type(self._why)(str(self._why), hint=hint)


def _written(place: Place) -> list[Any]:
    return [place[0], place[1].hex()]


def _entries(notes: dict[str, Any]) -> list[Place]:
    """Return the entries that are on their way in or out."""
    coming = notes.get("coming")
    written: list[Any] = [*notes.get("retired", ()), *([] if coming is None else [coming])]
    places: list[Place] = []
    for item in written:
        match item:
            case [int() as number, str() as entry] if len(entry) == 2 * ENTRY_BYTES:
                places.append((number, bytes.fromhex(entry)))
            case _:
                raise DamagedError("the vault's note about its key store entries is unreadable")
    return places
