"""The format stands still: our own vectors, a second reader, and the sample vault of format 1."""

import hashlib
import json
import shutil
import tarfile
from pathlib import Path

import pytest

import vault
from tests.golden.make_vault_v1 import EXPECTED, PASSPHRASE, PHRASE_FILE
from tests.golden.make_vault_v1_lived import KEYS
from tests.golden.make_vault_v1_lived import PASSPHRASE as LIVED_PASSPHRASE
from tests.vault.conftest import draft
from tests.vault.file_keystore import FileKeyStore
from tests.vectors.make_vault_vectors import vectors
from tests.vectors.reference import Reader
from vault import sealing
from vault.context import context
from vault.envelope import BLOB_LABEL
from vault.frame import Framed, metadata_size, padme
from vault.index import SlotRow
from vault.keytree import PageEntry, Root, open_page, open_root, read_slot
from vault.layout import encode_header
from vault.passphrase import passphrase_secret
from vault.sealed_record import open_metadata
from vault.slots import open_keyring_slot

TESTS = Path(__file__).parents[1]
GOLDEN, LIVED = TESTS / "golden" / "vault-v1", TESTS / "golden" / "vault-v1-lived"
OURS = json.loads((TESTS / "vectors" / "vault_v1.json").read_text())
VAULT, RECORD = (bytes.fromhex(OURS["ids"][name]) for name in ("vault", "record"))


def raw(*path):
    value = OURS
    for name in path:
        value = value[name]
    return bytes.fromhex(value)


def test_the_vectors_are_what_their_script_makes():
    assert vectors() == OURS


def test_header_and_padding():
    assert encode_header(VAULT) == raw("header")
    assert [[size, padme(size)] for size, _ in OURS["padding"]["blob"]] == OURS["padding"]["blob"]
    for size, padded in OURS["padding"]["metadata"]:
        assert metadata_size(size) == padded


def test_root():
    at = (OURS["root"]["epoch"], OURS["root"]["generation"])
    root = open_root(raw("root", "root_key"), VAULT, at, raw("root", "sealed"))
    assert root == Root.decode(raw("root", "payload"))
    assert root.encode() == raw("root", "payload")
    assert (root.next_position, root.pending_seals, root.pages[0].flags) == (1, 3, 1)
    assert root.page_slots == 1024
    small = Root.decode(raw("root", "payload_2"))
    assert small.encode() == raw("root", "payload_2")
    assert (small.page_slots, small.next_position, len(small.pages)) == (256, 257, 2)


def test_page():
    sealed, about = raw("page", "sealed"), OURS["page"]
    entry = PageEntry(raw("page", "key"), sealed[-16:], about["revision"], 0)
    slot = read_slot(open_page(entry, VAULT, about["number"], sealed), 0)
    found = {"kind": slot.kind, "flags": slot.flags, "revision": slot.revision}
    assert found | {"id": slot.record_id.hex()} == about["slot"]
    text = open_metadata(VAULT, slot._replace(word=1 << 56 | 7), raw("metadata", "sealed"))
    assert text.decode() == OURS["metadata"]["text"]


def test_keyring_slot():
    row = SlotRow(0, 1, raw("keyring_slot", "body"))
    at = (VAULT, OURS["keyring_slot"]["epoch"])
    opened = open_keyring_slot(row, raw("keyring_slot", "kek"), at)
    assert opened == raw("keyring_slot", "root_key")


def test_blob():
    about = OURS["blob"]
    label = BLOB_LABEL + bytes((about["kind"],)) + raw("blob", "file")
    key = sealing.expand(raw("blob", "blob_key"), label)
    picture = hashlib.shake_128(about["shake128_of"].encode()).digest(about["length"])
    info = context(about["kind"], VAULT, RECORD, about["revision"])
    sealed = sealing._encrypt_with_salt(
        key, info, Framed(picture).parts(sealing.CHUNK_BYTES), raw("blob", "salt")
    )
    assert hashlib.sha256(sealed).hexdigest() == about["sha256"]


@pytest.fixture
def sample(folder):
    return unpacked(GOLDEN, folder)


@pytest.fixture
def lived(folder):
    """Return the vault's folder; that of its key store lies beside it."""
    return unpacked(LIVED, folder)


def unpacked(golden, folder):
    with tarfile.open(golden / "vault.tar") as archive:
        archive.extractall(folder, filter="data")
    return folder / "vault"


def phrase(golden=GOLDEN):
    return (golden / PHRASE_FILE).read_text().strip()


def expected(golden):
    return json.loads((golden / EXPECTED).read_text())


def summary(records):
    """Return what is expected of a sample vault: by name, oldest first."""
    return [
        {
            "kind": int(record["kind"]),
            "revision": record["revision"],
            "trashed": bool(record["trashed"]),
            "created": record["created"],
            "metadata": record["metadata"],
            "blobs": {
                name: hashlib.sha256(data).hexdigest() for name, data in record["blobs"].items()
            },
        }
        for record in records
    ]


def all_records(opened):
    kinds = tuple(kind for kind in vault.Kind if kind < 128)
    found = [*opened.list(kinds=kinds), *opened.list(kinds=kinds, trashed=True)]
    return [
        {
            **record._asdict(),
            "blobs": {name: opened.read(record.id, name) for name in record.blobs},
        }
        for record in sorted(found, key=lambda record: record.position)
    ]


def test_the_sample_vault_opens_for_ever(sample):
    with vault.open_vault(sample, vault.PhraseUnlock(phrase())) as opened:
        assert summary(all_records(opened)) == expected(GOLDEN)
        opened.add([draft("and it takes new records")])
    with vault.open_vault(sample, vault.PhraseUnlock(phrase().lower())) as opened:
        assert next(opened.list()).metadata == {"prompt": "and it takes new records"}
        assert opened.status().slots[1].type == "phrase"


def test_the_sample_opens_with_its_passphrase(sample):
    unlock = vault.PassphraseUnlock(passphrase_secret(PASSPHRASE))
    with vault.open_vault(sample, unlock) as opened:
        assert opened.status().opened_by == "passphrase"


def test_the_vault_that_lived_opens_for_ever(lived):
    keystore, secret = FileKeyStore(lived.parent / KEYS), passphrase_secret(LIVED_PASSPHRASE)
    for unlock in (vault.BothUnlock(secret, keystore), vault.PhraseUnlock(phrase(LIVED))):
        with vault.open_vault(lived, unlock) as opened:
            assert summary(all_records(opened)) == expected(LIVED)
            assert opened.status().epoch == 5
            assert opened.retention == vault.Retention(trash_days=30, max_count=5000)
    with vault.open_vault(lived, vault.BothUnlock(secret, keystore)) as opened:
        assert opened.purge().epoch == 6
        opened.add([draft("and it takes new records")])
    with vault.open_vault(lived, vault.BothUnlock(secret, keystore)) as opened:
        assert next(opened.list()).metadata == {"prompt": "and it takes new records"}
        assert not opened.care.verify().problems


def test_the_vault_that_lived_opens_with_neither_half_alone(lived):
    keystore = FileKeyStore(lived.parent / KEYS)
    earlier = passphrase_secret("an earlier passphrase")
    for unlock in (
        vault.KeyStoreUnlock(keystore),
        vault.PassphraseUnlock(passphrase_secret(LIVED_PASSPHRASE)),
        vault.BothUnlock(earlier, keystore),
        vault.BothUnlock(passphrase_secret(LIVED_PASSPHRASE), vault.MemoryKeyStore()),
    ):
        with pytest.raises(vault.LockedError):
            vault.open_vault(lived, unlock)


@pytest.mark.parametrize("golden", [GOLDEN, LIVED], ids=["sample", "lived"])
def test_a_second_reader_agrees_about_the_samples(golden, folder):
    found = Reader(unpacked(golden, folder), phrase(golden)).read()
    assert summary(found) == expected(golden)


def test_a_second_reader_agrees_about_a_fresh_vault(make):
    place = make(passphrase="correct horse")
    with place.open() as opened:
        records = opened.add([draft("one", bytes(40_000)), draft("two", b"")])
        opened.edit(records[0].id, lambda data: {"prompt": "edited"})
        opened.trash([records[1].id])
        held = summary(all_records(opened))
    assert summary(Reader(place.path, place.phrase).read()) == held


def filled(opened, count):
    """Add jobs, 16 at once, until the vault has had `count` records."""
    while (room := count - opened._s.ledger.root.next_position) > 0:
        opened.add([vault.Draft(vault.Kind.JOB, {"number": room})] * min(16, room))


def test_a_vault_of_large_pages_grows_and_shreds_as_it_was_made(lived):
    """Vaults were made with 1,024 slots a page at first; they stay so, and stay readable."""
    keystore, secret = FileKeyStore(lived.parent / KEYS), passphrase_secret(LIVED_PASSPHRASE)
    with vault.open_vault(lived, vault.BothUnlock(secret, keystore)) as opened:
        assert opened._s.ledger.root.page_slots == 1024
        opened.purge()
        filled(opened, 1025)
        assert len(opened.marks()) == len(opened._s.ledger.root.pages) == 2
        (last,) = opened.add([draft("on the second page")])
        opened.trash([last.id])
        assert opened.purge([last.id]).pages == 1
        opened.add([draft("the last one")])
        held = summary(all_records(opened))
        assert not opened.care.verify(deep=True).problems
    assert summary(Reader(lived, phrase(LIVED)).read()) == held


def test_a_second_reader_agrees_about_many_pages(make):
    place = make()
    with place.open() as opened:
        assert opened._s.ledger.root.page_slots == 256
        filled(opened, 1024)
        assert (len(opened.marks()), len(opened._s.ledger.root.pages)) == (1, 4)
        (record,) = opened.add([draft("on the fifth page")])
        assert (record.position, len(opened.marks())) == (1024, 2)
        held = summary(all_records(opened))
        assert not opened.care.verify(deep=True).problems
    assert summary(Reader(place.path, place.phrase).read()) == held


def test_the_sample_is_the_folder_that_its_script_lists(sample):
    names = {path.relative_to(sample).parts[0] for path in sample.rglob("*")}
    assert names == {"VAULT", "index.sqlite", "blobs", "incoming", "lock"}
    assert len(list((sample / "blobs").iterdir())) == 256
    shutil.rmtree(sample)
