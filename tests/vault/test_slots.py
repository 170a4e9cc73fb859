"""Key slots: each opens for its holder, in its vault, epoch and place, and nowhere else."""

import pytest

import vault
from tests.vault.conftest import draft
from vault import hpke
from vault.errors import (
    DamagedError,
    KeyStoreAbsentError,
    KeyStoreLockedError,
    LockedError,
    NoKeyError,
    VaultError,
    WrongPassphraseError,
)
from vault.index import SlotRow
from vault.keystore.memory import MemoryKeyStore
from vault.keytree import Root, SlotKey, seal_root
from vault.passphrase import Argon2Parameters, passphrase_secret
from vault.phrase import RecoveryPhrase
from vault.slots import (
    SlotType,
    keyring_fields,
    open_hpke_slot,
    open_keyring_slot,
    seal_hpke_slot,
    seal_keyring_slot,
    slots_digest,
)
from vault.unlock import opener_for

VAULT, KEY, RK = bytes(range(16)), bytes(range(32)), bytes(range(100, 132))
AT = (VAULT, 4)
PLACE = (3, b"entry678")


def phrase_unlock(place):
    return vault.PhraseUnlock(place.phrase)


def test_keyring_slot_opens_in_its_place_only():
    row = seal_keyring_slot(0, KEY, PLACE, AT, RK)
    assert keyring_fields(row) == PLACE
    assert open_keyring_slot(row, KEY, AT) == RK
    moved = [
        (row._replace(no=1), KEY, AT),
        (row, KEY[::-1], AT),
        (row, KEY[:16], AT),
        (row, KEY, (VAULT, 5)),
        (row, KEY, (VAULT[::-1], 4)),
    ]
    for bent, kek, at in moved:
        with pytest.raises(DamagedError):
            open_keyring_slot(bent, kek, at)


def test_every_bit_of_a_keyring_slot_counts():
    row = seal_keyring_slot(0, KEY, PLACE, AT, RK)
    for bit in range(8 * len(row.body)):
        body = bytearray(row.body)
        body[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DamagedError):
            open_keyring_slot(row._replace(body=bytes(body)), KEY, AT)
    for size in range(len(row.body)):
        with pytest.raises(DamagedError):
            open_keyring_slot(row._replace(body=row.body[:size]), KEY, AT)


@pytest.mark.parametrize(
    ("type_", "parameters"),
    [(SlotType.PHRASE, b""), (SlotType.PASSPHRASE, Argon2Parameters(bytes(16)).encode())],
)
def test_hpke_slot_opens_in_its_place_only(type_, parameters):
    row = seal_hpke_slot((1, type_, parameters), hpke.public_key(KEY), AT, RK)
    assert open_hpke_slot(row, KEY, AT) == RK
    assert open_hpke_slot(row._replace(no=2), KEY, AT) is None
    assert open_hpke_slot(row, KEY[::-1], AT) is None
    assert open_hpke_slot(row, KEY, (VAULT, 5)) is None
    assert open_hpke_slot(row, KEY, (VAULT[::-1], 4)) is None
    other = SlotType.PHRASE if type_ == SlotType.PASSPHRASE else SlotType.PASSPHRASE
    with pytest.raises(DamagedError):  # another type has another size
        open_hpke_slot(row._replace(type=other), KEY, AT)


def test_every_bit_of_an_hpke_slot_counts():
    row = seal_hpke_slot((1, SlotType.PHRASE, b""), hpke.public_key(KEY), AT, RK)
    opened = []
    for bit in range(8 * len(row.body)):
        body = bytearray(row.body)
        body[bit // 8] ^= 1 << bit % 8
        opened.append(open_hpke_slot(row._replace(body=bytes(body)), KEY, AT))
    assert opened == [None] * (8 * len(row.body))


def test_the_digest_covers_number_type_body_and_order():
    rows = [SlotRow(0, 1, b"ab"), SlotRow(1, 2, b"c")]
    assert slots_digest(rows) == slots_digest(rows[::-1])
    others = [
        rows[:1],
        [rows[0], SlotRow(2, 2, b"c")],
        [rows[0], SlotRow(1, 3, b"c")],
        [SlotRow(0, 1, b"a"), SlotRow(1, 2, b"bc")],
        [SlotRow(0, 1, b"abc"), SlotRow(1, 2, b"")],
    ]
    assert len({slots_digest(other) for other in [*others, rows]}) == 6


def test_each_holder_opens(make):
    place = make(passphrase="correct horse")
    unlocks = {
        "keyring": vault.KeyStoreUnlock(place.keystore),
        "phrase": vault.PhraseUnlock(f"  {place.phrase.lower().replace('-', ' ')} "),
        "passphrase": vault.PassphraseUnlock(place.passphrase),
    }
    with place.open() as opened:
        record = opened.add([draft()])[0]
    for name, unlock in unlocks.items():
        with vault.open_vault(place.path, unlock) as opened:
            assert opened.read(record.id, "picture") == b"pixels"
            assert opened.status().opened_by == name


def test_who_does_not_hold_is_told_why(make):
    place, other = make(passphrase="correct horse"), make()
    cases = [
        (vault.PassphraseUnlock(passphrase_secret("battery staple")), WrongPassphraseError),
        (vault.KeyStoreUnlock(MemoryKeyStore()), NoKeyError),
        (vault.KeyStoreUnlock(MemoryKeyStore(locked=True)), KeyStoreLockedError),
        (vault.KeyStoreUnlock(), KeyStoreAbsentError),  # number 0 is found nowhere
    ]
    for unlock, error in cases:
        with pytest.raises(error):
            vault.open_vault(place.path, unlock)
    with pytest.raises(LockedError, match="no passphrase"):
        vault.open_vault(other.path, vault.PassphraseUnlock(place.passphrase))
    with pytest.raises(LockedError, match="another vault"):
        vault.open_vault(other.path, phrase_unlock(place))


def test_a_lost_key_names_the_other_ways(make, folder):
    class Ephemeral(MemoryKeyStore):
        number = 6

    vault.create(folder / "ephemeral", keystore=Ephemeral()).close()
    hints = []
    for path, keystore in [
        (folder / "ephemeral", Ephemeral()),
        (make().path, MemoryKeyStore()),
        (make(passphrase="correct horse").path, MemoryKeyStore()),
    ]:
        with pytest.raises(NoKeyError) as caught:
            vault.open_vault(path, vault.KeyStoreUnlock(keystore))
        hints.append(caught.value.hint)
    for hint, word in zip(hints, ("ephemeral", "recovery phrase", "passphrase or"), strict=True):
        assert word in hint


def test_a_changed_key_store_is_explained_and_makes_no_key(make):
    place = make()

    class Other(MemoryKeyStore):
        number = 3
        name = "another store"

    store = Other()
    with pytest.raises(KeyStoreAbsentError, match=r"memory.*another store"):
        vault.open_vault(place.path, vault.KeyStoreUnlock(store))
    assert store.entries == {}


@pytest.mark.parametrize("type_", [SlotType.KEYRING, SlotType.PHRASE])
def test_a_removed_slot_shows_at_the_other_holder(make, type_):
    place = make(passphrase="correct horse")
    place.sql("DELETE FROM keyslot WHERE type = ?", int(type_))
    with pytest.raises(DamagedError, match="key slots"):
        vault.open_vault(place.path, vault.PassphraseUnlock(place.passphrase))
    own = (
        place.open
        if type_ == SlotType.KEYRING
        else lambda: vault.open_vault(place.path, phrase_unlock(place))
    )
    with pytest.raises(LockedError, match="has no") as caught:
        own()
    assert "passphrase" in caught.value.hint  # what it still opens with


def test_garbled_swapped_and_planted_slots_show(make):
    place, other = make(), make()
    (kept,) = place.sql("SELECT body FROM keyslot WHERE type = 2")
    (foreign,) = other.sql("SELECT body FROM keyslot WHERE type = 2")
    place.sql("UPDATE keyslot SET body = ? WHERE type = 2", foreign[0])
    with pytest.raises(DamagedError, match="key slots"):
        place.open()
    with pytest.raises(DamagedError, match="does not open this vault"):
        vault.open_vault(place.path, phrase_unlock(place))
    place.sql("UPDATE keyslot SET body = ? WHERE type = 2", kept[0])
    place.sql("INSERT INTO keyslot VALUES (7, 3, ?)", bytes(102))
    with pytest.raises(DamagedError, match="key slots"):
        place.open()
    place.sql("DELETE FROM keyslot WHERE no = 7")
    place.open().close()


def test_every_bit_of_the_slots_in_the_index(place):
    for type_, unlock in [(1, vault.KeyStoreUnlock(place.keystore)), (2, phrase_unlock(place))]:
        ((body,),) = place.sql("SELECT body FROM keyslot WHERE type = ?", type_)
        for bit in range(0, 8 * len(body), 3):
            bent = bytearray(body)
            bent[bit // 8] ^= 1 << bit % 8
            place.sql("UPDATE keyslot SET body = ? WHERE type = ?", bytes(bent), type_)
            with pytest.raises((DamagedError, NoKeyError, KeyStoreAbsentError)):
                vault.open_vault(place.path, unlock)
        place.sql("UPDATE keyslot SET body = ? WHERE type = ?", body, type_)
    place.open().close()


def test_hostile_argon2_costs_are_refused_before_they_are_paid(make):
    place = make(passphrase="correct horse")
    ((body,),) = place.sql("SELECT body FROM keyslot WHERE type = 3")
    for cost in (b"\xff\xff\xff\xff\x03\x04", b"\0\1\0\0\xff\4", b"\0\1\0\0\3\xff", bytes(6)):
        place.sql("UPDATE keyslot SET body = ? WHERE type = 3", body[:16] + cost + body[22:])
        with pytest.raises(DamagedError):
            vault.open_vault(place.path, vault.PassphraseUnlock(place.passphrase))


def test_a_forged_vault_offered_to_the_phrase(make):
    """Someone without keys makes a whole vault that claims to be ours."""
    place = make()
    phrase = RecoveryPhrase.parse(place.phrase, bytes.fromhex(vault.inspect(place.path).vault_id))
    vault_id = bytes.fromhex(vault.inspect(place.path).vault_id)
    root_key = bytes(32)

    def forge(public: bytes, named: tuple[SlotKey, ...]) -> None:
        row = seal_hpke_slot((0, SlotType.PHRASE, b""), public, (vault_id, 9), root_key)
        root = Root(slots_digest=slots_digest([row]), slot_keys=named)
        place.sql("DELETE FROM keyslot")
        place.sql("INSERT INTO keyslot VALUES (?, ?, ?)", *row)
        place.sql("UPDATE root SET sealed = ?", seal_root(root_key, vault_id, (9, 1), root))
        place.sql("UPDATE state SET epoch = 9, generation = 1")

    guessed = hpke.public_key(bytes(32))
    forge(guessed, (SlotKey(0, 2, guessed),))
    with pytest.raises(DamagedError, match="does not open this vault"):
        vault.open_vault(place.path, phrase_unlock(place))
    # Even with the phrase's public key, a root that does not name it is refused.
    leaked = hpke.public_key(phrase.secret())
    forge(leaked, ())
    with pytest.raises(DamagedError, match="forged"):
        vault.open_vault(place.path, phrase_unlock(place))
    forge(leaked, (SlotKey(1, 2, leaked),))
    with pytest.raises(DamagedError, match="forged"):
        vault.open_vault(place.path, phrase_unlock(place))


def test_openers_follow_an_epoch_change(make):
    place = make(passphrase="correct horse")
    vault_id = bytes.fromhex(vault.inspect(place.path).vault_id)
    rows = [SlotRow(*row) for row in place.sql("SELECT no, type, body FROM keyslot ORDER BY no")]
    unlocks = [
        vault.KeyStoreUnlock(place.keystore),
        phrase_unlock(place),
        vault.PassphraseUnlock(place.passphrase),
    ]
    openers = [opener_for(unlock, vault_id) for unlock in unlocks]
    root_key = {opener.root_key(rows, 1)[0] for opener in openers}
    assert len(root_key) == 1
    for opener in openers:
        with pytest.raises(VaultError):  # the same slots do not stand for another epoch
            opener.root_key(rows, 2)
