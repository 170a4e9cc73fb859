"""Deleting and purging: what is gone is gone, what is left is said, and the rest stays whole."""

import shutil
import sqlite3
from contextlib import closing
from itertools import chain

import pytest

import vault
from tests.vault.conftest import draft
from vault.errors import (
    BadValueError,
    DamagedError,
    KeyStoreBrokenError,
    LockedError,
    NoKeyError,
    NotFoundError,
    StorageError,
)
from vault.keystore.entry import kek_entry
from vault.keystore.memory import MemoryKeyStore
from vault.keytree import Root
from vault.slots import keyring_place

KEPT, GONE = "kept picture", "gone picture"


def kek_names(place):
    return sorted(name for name in place.keystore.entries if ".kek." in name)


def files_of(place):
    return {path.name for path in (place.path / "blobs").glob("*/*")}


@pytest.fixture
def two(make):
    """Return a vault with a record to keep and one in the trash."""
    place = make()
    with place.open() as opened:
        kept, gone = opened.add([draft(KEPT, b"kept"), draft(GONE, b"gone")])
        opened.trash([gone.id])
    place.kept, place.gone = kept.id, gone.id
    return place


# Deleting


def test_delete_removes_record_row_and_file(two):
    before = files_of(two)
    with two.open() as opened:
        assert opened.delete([two.gone.upper(), two.gone]) == 1
        for call in (opened.get, lambda i: opened.read(i, "picture"), opened.resolve):
            with pytest.raises(NotFoundError):
                call(two.gone)
        assert list(opened.list(trashed=True)) == []
        assert opened.read(two.kept, "picture") == b"kept"
        assert opened.delete([two.gone]) == 0
    assert len(files_of(two)) == len(before) - 1
    assert two.sql("SELECT count(*) FROM record") == [(1,)]
    assert two.sql("SELECT count(*) FROM pending") == [(0,)]


def test_a_position_is_never_used_again(two):
    with two.open() as opened:
        opened.delete([two.gone])
        assert opened.add([draft("new")])[0].position == 2
        assert [record.position for record in opened.list()] == [2, 0]


def test_deleting_nothing_writes_nothing(two):
    with two.open() as opened:
        before = opened.status().generation
        assert opened.delete([]) == opened.delete(["ab" * 16]) == 0
        assert opened.status().generation == before
        with pytest.raises(BadValueError):
            opened.delete(["../../etc/passwd"])


def test_many_are_deleted_in_several_transactions(make):
    place = make()
    seen = []
    with place.open() as opened:
        batches = (opened.add([vault.Draft(vault.Kind.JOB, {"n": 1})] * 16) for _ in range(70))
        ids = [record.id for record in chain.from_iterable(batches)]
        assert opened.delete(ids[:-1], lambda done, total: seen.append((done, total))) == 1119
        assert [record.id for record in opened.list(kinds=(vault.Kind.JOB,))] == ids[-1:]
    assert seen == [(1000, 1119), (1119, 1119)]


def test_a_record_whose_metadata_is_damaged_can_be_deleted(two):
    two.sql("UPDATE record SET meta = zeroblob(300) WHERE pos = 1")
    with two.open() as opened:
        assert opened.delete([two.gone]) == 1
        assert [record.id for record in opened.list()] == [two.kept]


def test_a_file_that_resists_is_unlinked_at_the_next_open(two):
    with two.open() as opened:
        (name,) = files_named(opened, two.gone)
        path = two.path / "blobs" / name.hex()[:2] / name.hex()
        path.unlink()
        path.mkdir()  # unlink of a folder fails, for root as well
        with pytest.raises(StorageError):
            opened.delete([two.gone])
        with pytest.raises(NotFoundError):
            opened.get(two.gone)
    path.rmdir()
    path.write_bytes(b"residue")
    two.open().close()
    assert not path.exists()
    assert two.sql("SELECT count(*) FROM pending") == [(0,)]


def files_named(opened, record_id):
    from vault.records import Metadata

    with opened._s.ledger.reading():
        return {seal.file for seal in Metadata.decode(opened._s.find(record_id).text).blobs}


# Purging


def test_purge_shreds_what_the_current_key_store_could_open(two):
    """Old index, old files and all that the key store still holds: nothing opens any more."""
    old = two.path.with_name("old copy")
    shutil.copytree(two.path, old)
    with two.open() as opened:
        receipt = opened.purge()
    assert (receipt.records, receipt.shredded, receipt.epoch) == (1, True, 2)
    assert len(kek_names(two)) == 1
    with pytest.raises(NoKeyError):
        vault.open_vault(old, vault.KeyStoreUnlock(two.keystore))
    with two.open() as opened:
        assert [record.id for record in opened.list()] == [two.kept]
        assert opened.read(two.kept, "picture") == b"kept"
        with pytest.raises(NotFoundError):
            opened.get(two.gone)
    # ... and the old rows laid into the new index are refused as well.
    ((root,),) = rows_of(old, "SELECT sealed FROM root")
    ((page,),) = rows_of(old, "SELECT sealed FROM page")
    two.sql("UPDATE page SET sealed = ?", page)
    with two.open() as opened, pytest.raises(DamagedError):
        list(opened.list())
    two.sql("UPDATE root SET sealed = ?", root)
    with pytest.raises(DamagedError):
        two.open()


def rows_of(path, statement):
    with closing(sqlite3.connect(path / "index.sqlite")) as connection:
        return connection.execute(statement).fetchall()


def test_the_receipt_names_who_could_still_open_residue(make):
    place = make(passphrase="correct horse")
    with place.open() as opened:
        receipt = opened.purge()
    said = " ".join(receipt.remaining)
    assert "the recovery phrase or the passphrase" in said
    assert "backup" in said


def test_the_phrase_opens_an_old_copy_until_a_strict_purge_and_an_older_one_for_ever(two):
    old = two.path.with_name("old copy")
    shutil.copytree(two.path, old)
    phrases = []
    with two.open() as opened:
        strict = vault.Strict(confirm=lambda phrase: phrases.append(phrase.text()))
        receipt = opened.purge(strict=strict)
    assert "the recovery phrase that was replaced" in " ".join(receipt.remaining)
    with vault.open_vault(old, vault.PhraseUnlock(two.phrase)) as opened:  # as the receipt says
        assert opened.read(two.gone, "picture") == b"gone"
    with pytest.raises(DamagedError, match="does not open"):
        vault.open_vault(two.path, vault.PhraseUnlock(two.phrase))
    with vault.open_vault(two.path, vault.PhraseUnlock(phrases[0])) as opened:
        assert [record.id for record in opened.list()] == [two.kept]


def test_a_strict_purge_asks_for_what_the_vault_has(make):
    place = make(passphrase="one")
    confirm = lambda phrase: None  # noqa: E731 - two uses
    new = vault.passphrase_secret("two")
    with place.open() as opened:
        with pytest.raises(BadValueError, match="needs a new passphrase"):
            opened.purge(strict=vault.Strict(confirm=confirm))
        opened.purge(strict=vault.Strict(confirm=confirm, passphrase=new))
    vault.open_vault(place.path, vault.PassphraseUnlock(new)).close()
    with pytest.raises(LockedError):
        vault.open_vault(place.path, vault.PassphraseUnlock(place.passphrase))
    plain = make()
    with plain.open() as opened, pytest.raises(BadValueError, match="no passphrase"):
        opened.purge(strict=vault.Strict(confirm=confirm, passphrase=new))


def test_giving_up_at_the_new_phrase_changes_nothing(two):
    def give_up(phrase):
        raise KeyboardInterrupt

    keys = kek_names(two)
    with two.open() as opened:
        with pytest.raises(KeyboardInterrupt):
            opened.purge(strict=vault.Strict(confirm=give_up))
        assert opened.status().epoch == 1
        assert opened.get(two.gone).trashed
    assert kek_names(two) == keys


def test_only_pages_that_lost_a_record_are_written_anew(make):
    place = make()
    with place.open() as opened:
        for _ in range(Root().page_slots // 16 + 1):
            ids = [record.id for record in opened.add([vault.Draft(vault.Kind.JOB, {})] * 16)]
        before = dict(place.sql("SELECT no, sealed FROM page"))
        assert len(before) == 2
        receipt = opened.purge(ids[:1])
        assert receipt.pages == 1
        after = dict(place.sql("SELECT no, sealed FROM page"))
        assert after[0] == before[0]
        assert after[1] != before[1]
        assert opened.status().records[vault.Kind.JOB] == 16 * (Root().page_slots // 16 + 1) - 1
        opened.delete(ids[1:2])
        assert opened.purge().pages == 1  # what was deleted before goes now
        assert opened.purge().pages == 0


def test_a_purge_in_one_process_is_seen_in_another(two):
    with two.open() as reader, two.open() as writer:
        assert reader.get(two.gone)
        writer.purge()
        with pytest.raises(NotFoundError):
            reader.get(two.gone)
        reader.add([draft("after")])
        assert len(list(writer.list())) == 2


def test_a_purge_while_others_scan(make):
    place = make()
    with place.open() as opened:
        for _ in range(80):
            ids = [record.id for record in opened.add([vault.Draft(vault.Kind.JOB, {})] * 16)]
    with place.open() as reader, place.open() as writer:
        scan = reader.list(kinds=(vault.Kind.JOB,))
        first = [next(scan) for _ in range(3)]
        assert [record.id for record in first] == ids[:-4:-1]
        writer.purge([first[0].id])
        rest = list(scan)
        assert len(rest) == 80 * 16 - 3


# Crashes and broken key stores, beside those of test_crash


@pytest.mark.parametrize("fault", ["fail_set", "forget_set", "change_set"])
def test_a_key_store_that_keeps_no_new_key_stops_the_purge(two, fault):
    keys = kek_names(two)
    two.keystore.faults = {fault}
    with two.open() as opened:
        with pytest.raises(KeyStoreBrokenError):
            opened.purge()
        assert opened.get(two.gone).trashed
        assert opened.status().epoch == 1
    two.keystore.faults = set()
    with two.open() as opened:
        assert kek_names(two) == keys
        assert opened.purge().shredded
    assert len(kek_names(two)) == 1


@pytest.mark.parametrize("fault", ["fail_delete", "keep_deleted"])
def test_an_old_key_that_stays_is_said_and_tried_again(two, fault):
    two.keystore.faults = {fault}
    with two.open() as opened:
        receipt = opened.purge()
        assert not receipt.shredded
        assert "old key" in receipt.remaining[0]
    assert len(kek_names(two)) == 2
    with two.open() as opened:
        assert any("old key" in warning for warning in opened.warnings)
    two.keystore.faults = set()
    with two.open() as opened:
        assert opened.warnings == ()
    assert len(kek_names(two)) == 1


def test_opened_by_phrase_a_purge_leaves_the_old_key_unless_told(two):
    """Two copies of one vault share entries: the other copy must not lose its key unasked."""
    other = two.path.with_name("other copy")
    shutil.copytree(two.path, other)
    store = MemoryKeyStore(two.keystore.entries)
    with vault.open_vault(two.path, vault.PhraseUnlock(two.phrase)) as opened:
        receipt = opened.keys.recover(store)
        assert not receipt.shredded
    vault.open_vault(other, vault.KeyStoreUnlock(store)).close()
    two.open().close()
    vault.open_vault(other, vault.KeyStoreUnlock(store)).close()
    third = two.path.with_name("third copy")
    shutil.copytree(two.path, third)
    with vault.open_vault(two.path, vault.PhraseUnlock(two.phrase)) as opened:
        assert opened.keys.recover(store, retire=True).shredded
    with pytest.raises(NoKeyError):
        vault.open_vault(third, vault.KeyStoreUnlock(store))


def test_an_entry_that_a_slot_names_is_never_deleted(two):
    """A forged note cannot be written without the key; a stale one must do no harm either."""
    with two.open() as opened:
        session = opened._s
        place = keyring_place(session.index.slots())
        with session.ledger.writing() as change:
            change.note("retired", [[place[0], place[1].hex()]])
            change.note("coming", [place[0], place[1].hex()])
    with two.open() as opened:
        assert opened._s.ledger.notes.keys() == {"clock"}
        assert kek_names(two) == [kek_entry(opened._s.ledger.vault_id, place[1])]


def test_planted_pending_rows_delete_nothing(two):
    files = files_of(two)
    two.sql("INSERT INTO pending VALUES (7, ?)", b"\0" * 300)
    with two.open() as opened:
        assert opened.read(two.kept, "picture") == b"kept"
    assert files_of(two) == files
    assert two.sql("SELECT count(*) FROM pending") == [(0,)]


def test_an_ephemeral_vault_can_be_purged(folder):
    from vault.creation import EPHEMERAL

    class Ephemeral(MemoryKeyStore):
        number = EPHEMERAL

    store = Ephemeral()
    with vault.create(folder / "v", keystore=store) as opened:
        ids = [record.id for record in opened.add([draft()] * 2)]
        receipt = opened.purge(ids[:1])
        assert receipt.shredded
        assert not any("phrase" in sentence for sentence in receipt.remaining)
    with vault.open_vault(folder / "v", vault.KeyStoreUnlock(store)) as opened:
        assert [record.id for record in opened.list()] == ids[1:]
