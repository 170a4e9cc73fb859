"""Who opens a vault can change, and then those who did before do not any more."""

import shutil
import time

import pytest

import vault
from tests.vault.conftest import draft
from vault import epoch, session
from vault.errors import (
    BadValueError,
    DamagedError,
    KeyStoreBrokenError,
    KeyStoreLockedError,
    LockedError,
    NoKeyError,
    WrongPassphraseError,
)
from vault.keystore.memory import MemoryKeyStore

ONE, TWO = vault.passphrase_secret("number one"), vault.passphrase_secret("number two")


def opens(place, unlock):
    """Return why a vault does not open with an unlock, or True when it does and reads."""
    try:
        with vault.open_vault(place.path, unlock) as opened:
            return len(list(opened.list())) == 2
    except vault.VaultError as error:
        return type(error)


def by_keyring(place):
    return vault.KeyStoreUnlock(place.keystore)


# The passphrase slot: either


def test_a_passphrase_is_set_changed_and_removed(place):
    with place.open() as opened:
        assert opened.keys.set_passphrase(ONE).shredded
    assert opens(place, vault.PassphraseUnlock(ONE)) is True
    assert opens(place, by_keyring(place)) is True
    assert opens(place, vault.PhraseUnlock(place.phrase)) is True
    with place.open() as opened:
        opened.keys.set_passphrase(TWO)
    assert opens(place, vault.PassphraseUnlock(ONE)) is WrongPassphraseError
    assert opens(place, vault.PassphraseUnlock(TWO)) is True
    with place.open() as opened:
        opened.keys.remove_passphrase()
        with pytest.raises(BadValueError, match="no passphrase"):
            opened.keys.remove_passphrase()
    assert opens(place, vault.PassphraseUnlock(TWO)) is LockedError
    assert opens(place, by_keyring(place)) is True


def test_an_old_slot_laid_back_opens_nothing(place):
    """The old slot wraps the old root key: put back, it does not fit, and it shows."""
    with place.open() as opened:
        opened.keys.set_passphrase(ONE)
    rows = place.sql("SELECT no, type, body FROM keyslot")
    with place.open() as opened:
        opened.keys.remove_passphrase()
    for no, type_, body in rows:
        place.sql("INSERT OR REPLACE INTO keyslot VALUES (?, ?, ?)", no, type_, body)
    assert opens(place, vault.PassphraseUnlock(ONE)) in {WrongPassphraseError, DamagedError}
    assert opens(place, by_keyring(place)) in {NoKeyError, DamagedError}


def test_every_change_of_a_slot_is_an_epoch_and_a_new_key(place):
    epochs, keys = [], set()
    changes = (
        lambda keys: keys.set_passphrase(ONE),
        lambda keys: keys.set_passphrase(ONE, both=True),
        lambda keys: keys.remove_passphrase(),
        lambda keys: keys.replace_phrase(lambda phrase: None),
        lambda keys: keys.recover(place.keystore),
        lambda keys: keys.rotate(),
    )
    for change in changes:
        unlock = vault.BothUnlock(ONE, place.keystore) if len(epochs) == 2 else by_keyring(place)
        with vault.open_vault(place.path, unlock) as opened:
            epochs.append(change(opened.keys).epoch)
        (kek,) = [name for name in place.keystore.entries if ".kek." in name]
        keys.add(place.keystore.entries[kek])
    assert epochs == [2, 3, 4, 5, 6, 7]
    assert len(keys) == 6


# Passphrase mode: both


@pytest.fixture
def both(place):
    with place.open() as opened:
        opened.keys.set_passphrase(ONE, both=True)
    return place


def test_in_passphrase_mode_neither_opens_alone_and_the_phrase_does(both):
    assert opens(both, by_keyring(both)) is LockedError
    assert opens(both, vault.PassphraseUnlock(ONE)) is LockedError
    assert opens(both, vault.BothUnlock(TWO, both.keystore)) is WrongPassphraseError
    assert opens(both, vault.BothUnlock(ONE, MemoryKeyStore())) is NoKeyError
    assert opens(both, vault.BothUnlock(ONE, both.keystore)) is True
    assert opens(both, vault.PhraseUnlock(both.phrase)) is True
    assert [slot.type for slot in vault.inspect(both.path).slots] == ["both", "phrase"]


def test_in_passphrase_mode_a_purge_asks_for_nothing(both):
    with vault.open_vault(both.path, vault.BothUnlock(ONE, both.keystore)) as opened:
        assert opened.purge([next(opened.list()).id]).shredded
        opened.keys.rotate()
        opened.add([draft("later")])
    assert opens(both, vault.BothUnlock(ONE, both.keystore)) is True
    assert opens(both, vault.PhraseUnlock(both.phrase)) is True


def test_a_locked_key_store_is_told_from_a_wrong_passphrase(both):
    both.keystore.locked = True
    assert opens(both, vault.BothUnlock(ONE, both.keystore)) is KeyStoreLockedError


@pytest.mark.slow
def test_every_bit_of_a_passphrase_mode_slot_counts(both):
    ((no, body),) = both.sql("SELECT no, body FROM keyslot WHERE type = 4")
    for at in range(0, len(body), 3):
        bent = bytearray(body)
        bent[at] ^= 1 << at % 8
        both.sql("UPDATE keyslot SET body = ? WHERE no = ?", bytes(bent), no)
        # Key store number, entry and Argon2 parameters lead elsewhere; the seals do not open.
        assert opens(both, vault.BothUnlock(ONE, both.keystore)) is not True


def test_passphrase_mode_needs_a_key_store(folder):
    path = folder / "v"
    vault.create(path, keystore=None, passphrase=ONE, confirm=lambda phrase: None).close()
    with vault.open_vault(path, vault.PassphraseUnlock(ONE)) as opened:
        with pytest.raises(BadValueError, match="needs a key store"):
            opened.keys.set_passphrase(TWO, both=True)
        with pytest.raises(BadValueError, match="a key store or a passphrase"):
            opened.keys.remove_passphrase()
        opened.keys.set_passphrase(TWO)
    vault.open_vault(path, vault.PassphraseUnlock(TWO)).close()


# Recovery


def test_a_lost_keyring_is_replaced_with_the_phrase(place):
    new = MemoryKeyStore()
    assert opens(place, vault.KeyStoreUnlock(new)) is NoKeyError
    with vault.open_vault(place.path, vault.PhraseUnlock(place.phrase)) as opened:
        receipt = opened.keys.recover(new)
        assert "old key" in receipt.remaining[0]
    assert opens(place, vault.KeyStoreUnlock(new)) is True
    assert opens(place, by_keyring(place)) is NoKeyError  # another machine's: left alone there
    assert any(".kek." in name for name in place.keystore.entries)


def test_a_forgotten_passphrase_is_replaced_with_the_phrase(make):
    place = make(passphrase="forgotten")
    with place.open() as opened:
        opened.add([draft()] * 2)
        assert opened.status().generation == 2
    with vault.open_vault(place.path, vault.PhraseUnlock(place.phrase)) as opened:
        with pytest.raises(vault.KeyStoreAbsentError, match="memory"):
            opened.keys.set_passphrase(TWO)  # its key store is not here: nothing has changed
        assert opened.status().generation == 2
        assert opened._s.ledger.notes.keys() == {"clock"}
        opened.keys.recover(MemoryKeyStore(), TWO)
    assert opens(place, vault.PassphraseUnlock(TWO)) is True
    assert opens(place, vault.PassphraseUnlock(place.passphrase)) is WrongPassphraseError


def test_a_vault_moves_to_a_machine_without_any_key_store(both):
    with vault.open_vault(both.path, vault.PhraseUnlock(both.phrase)) as opened:
        opened.keys.recover(None, TWO)
    assert [slot.type for slot in vault.inspect(both.path).slots] == ["phrase", "passphrase"]
    assert opens(both, vault.PassphraseUnlock(TWO)) is True
    assert opens(both, vault.PhraseUnlock(both.phrase)) is True


@pytest.fixture
def broken(monkeypatch):
    """Let the key store that a slot names answer in no time, whoever asks for it."""

    def hangs(_number, *, windows=True):
        raise KeyStoreBrokenError("the memory of a test did not answer within 3 seconds")

    for user in (epoch, session):
        monkeypatch.setattr(user, "keystore_by_number", hangs)


@pytest.mark.parametrize("retire", [None, True])
@pytest.mark.parametrize("to", ["none", "another"])
def test_a_broken_key_store_can_be_left(place, broken, to, retire):
    new = MemoryKeyStore() if to == "another" else None
    with vault.open_vault(place.path, vault.PhraseUnlock(place.phrase)) as opened:
        if new is not None:
            new.number = 5  # KWallet's: the broken one is not this one
            # One that refuses as well: nothing has changed.
            with pytest.raises(KeyStoreBrokenError, match="refused to store"):
                opened.keys.recover(MemoryKeyStore(faults=["fail_set"]))
        with pytest.raises(KeyStoreBrokenError, match="3 seconds") as caught:
            opened.keys.rotate()
        assert "vault recover" in caught.value.hint
        assert opened.status().epoch == 1
        receipt = opened.keys.recover(new, TWO, retire=retire)
    assert not receipt.shredded
    assert "is still in memory" in receipt.remaining[0]
    assert ("3 seconds" in receipt.remaining[0]) is bool(retire)
    unlock = vault.PassphraseUnlock(TWO) if new is None else vault.KeyStoreUnlock(new)
    assert opens(place, unlock) is True


def test_a_new_phrase_replaces_the_old_one(place):
    shown = []
    with place.open() as opened:
        opened.keys.replace_phrase(lambda phrase: shown.append(phrase.text()))
    assert opens(place, vault.PhraseUnlock(place.phrase)) is DamagedError
    assert opens(place, vault.PhraseUnlock(shown[0])) is True


# Rotation


def test_a_deep_rotation_ends_old_revisions_and_keeps_everything(place):
    with place.open() as opened:
        first = next(opened.list(before=1))
        opened.edit(first.id, lambda data: {**data, "prompt": "edited"})
        before = {record.id: record for record in opened.list()}
        rows = place.sql("SELECT meta FROM record ORDER BY pos")
        receipt = opened.keys.rotate(deep=True)
        assert receipt.pages == 1
        assert {record.id: record for record in opened.list()} == before
    assert all(
        old != new for old, new in zip(rows, place.sql("SELECT meta FROM record"), strict=True)
    )
    with place.open() as opened:
        assert {record.id: record for record in opened.list()} == before
        assert opened.read(first.id, "picture") == b"pixels"
    # An old row laid back does not open: its key is gone.
    place.sql("UPDATE record SET meta = ? WHERE pos = 0", rows[0][0])
    with place.open() as opened, pytest.raises(DamagedError):
        opened.get(first.id)


def test_rotation_shreds_the_old_key(place):
    old = place.path.with_name("old")
    shutil.copytree(place.path, old)
    with place.open() as opened:
        assert opened.keys.rotate().shredded
    with pytest.raises(NoKeyError):
        vault.open_vault(old, by_keyring(place))


# Locking itself


def test_a_vault_locks_itself_after_rest(place):
    with place.open() as opened:
        opened.lock_after(0.2)
        for _ in range(4):
            time.sleep(0.1)
            assert len(list(opened.list())) == 2  # used: stays open
        time.sleep(0.5)
        with pytest.raises(LockedError, match="locked itself"):
            next(opened.list())
        assert not any(opened._s.ledger.root_key)
    with place.open() as opened:
        opened.lock_after(0.05)
        opened.lock_after(0)
        time.sleep(0.15)
        assert len(list(opened.list())) == 2
