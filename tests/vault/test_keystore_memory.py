"""The shipped fake keeps the contract of every key store, and its faults are the real ones."""

import time

import pytest

from vault.errors import BadValueError, KeyStoreBrokenError, KeyStoreLockedError
from vault.keystore.entry import (
    anchor_entry,
    check_entry,
    check_value,
    kek_entry,
    refuse_other_value,
)
from vault.keystore.memory import MemoryKeyStore

VAULT = bytes(range(16))
ENTRY = kek_entry(VAULT, bytes(8))


def test_names_of_entries_are_these_for_ever():
    assert ENTRY == "safelight.vault.000102030405060708090a0b0c0d0e0f.kek.0000000000000000"
    assert anchor_entry(VAULT) == "safelight.vault.000102030405060708090a0b0c0d0e0f.anchor"


@pytest.mark.parametrize(
    "entry",
    [
        "",
        "anchor",
        ENTRY.upper(),
        ENTRY + "0",
        ENTRY[:-1],
        ENTRY + "\n",
        ENTRY.replace("kek", "key"),
        ENTRY.replace("0001", "../.."),
        "safelight.vault.000102030405060708090a0b0c0d0e0f.anchor.kek.0000000000000000",
        "login",
        ENTRY.replace("0", "\u0660"),
    ],
)
def test_any_other_name_is_refused_before_use(entry):
    store = MemoryKeyStore({entry: b"somebody else's"})
    for use in (store.get, store.delete, lambda name: store.set(name, b"v"), check_entry):
        with pytest.raises(BadValueError):
            use(entry)
    assert store.entries == {entry: b"somebody else's"}


@pytest.mark.parametrize(("vault_id", "name"), [(b"", bytes(8)), (VAULT, b""), (VAULT[:15], b"")])
def test_names_are_made_of_ids_of_the_right_size(vault_id, name):
    with pytest.raises(BadValueError):
        kek_entry(vault_id, name)


def test_set_get_delete():
    store = MemoryKeyStore()
    assert store.get(ENTRY) is None
    store.set(ENTRY, b"one")
    store.set(ENTRY, b"two")
    assert store.get(ENTRY) == b"two"
    store.delete(ENTRY)
    store.delete(ENTRY)
    assert store.get(ENTRY) is None


@pytest.mark.parametrize("length", [0, 513])
def test_values_that_some_store_cannot_hold_are_refused(length):
    with pytest.raises(BadValueError, match=f"not {length}"):
        MemoryKeyStore().set(ENTRY, bytes(length))
    assert check_value(bytes(512))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("fail_set", "refused"),
        ("forget_set", "did not keep"),
        ("change_set", "another key"),
    ],
)
def test_a_store_that_does_not_keep_what_it_was_given_is_broken(fault, message):
    with pytest.raises(KeyStoreBrokenError, match=message) as caught:
        MemoryKeyStore(faults=[fault]).set(ENTRY, b"a key of a vault")
    assert "a key of a vault" not in repr(caught.value)


@pytest.mark.parametrize("fault", ["fail_delete", "keep_deleted"])
def test_a_store_that_does_not_delete_is_broken(fault):
    store = MemoryKeyStore(faults=[fault])
    store.set(ENTRY, b"value")
    with pytest.raises(KeyStoreBrokenError):
        store.delete(ENTRY)
    assert store.get(ENTRY) == b"value"


def test_locked_answers_nothing_and_can_be_unlocked():
    store = MemoryKeyStore({ENTRY: b"value"}, locked=True)
    for use in (store.get, store.delete, lambda entry: store.set(entry, b"v")):
        with pytest.raises(KeyStoreLockedError):
            use(ENTRY)
    store.locked = False
    assert store.get(ENTRY) == b"value"


def test_delay_takes_its_time():
    started = time.monotonic()
    MemoryKeyStore(delay=0.05).get(ENTRY)
    assert time.monotonic() - started >= 0.05


def test_two_stores_can_share_their_entries():
    one = MemoryKeyStore()
    two = MemoryKeyStore(one.entries)
    one.set(ENTRY, b"value")
    assert two.get(ENTRY) == b"value"


def test_an_unknown_fault_is_refused():
    with pytest.raises(ValueError, match="forget_sett"):
        MemoryKeyStore(faults=["forget_sett"])


def test_repr_shows_no_value():
    assert "value" not in repr(MemoryKeyStore({ENTRY: b"value"}))


def test_reading_back_compares_everything():
    refuse_other_value(b"value", b"value", "store")
    for found in (None, b"", b"valu", b"value\0"):
        with pytest.raises(KeyStoreBrokenError):
            refuse_other_value(b"value", found, "store")
