"""The inventory names every file there is, and says of none what nobody could know."""

import os
from collections import Counter

import vault
from tests.vault.conftest import CANARY, draft
from vault.inventory import inventory


def lying(path):
    """Return every file below the vault's folder, and its size."""
    return {
        str(each.relative_to(path)): each.lstat().st_size
        for each in path.rglob("*")
        if each.is_symlink() or not each.is_dir()
    }


def with_kinds(place):
    blobs = [
        vault.BlobDraft("picture", vault.Kind.PICTURE, "image/png", bytes(5000)),
        vault.BlobDraft("thumbnail", vault.Kind.THUMBNAIL, "image/webp", bytes(300)),
    ]
    with place.open() as opened:
        return opened.add([vault.Draft(vault.Kind.PICTURE, {"prompt": CANARY}, blobs)] * 3)


def test_every_file_is_in_the_list_with_its_size(make):
    place = make()
    with_kinds(place)
    orphan = "ab" * 16
    (place.path / "blobs" / "ab" / orphan).write_bytes(b"orphan")
    (place.path / "letter.txt").write_text("mine")
    (place.path / "blobs" / "00" / "letter.txt").symlink_to("/etc/passwd")
    with place.open() as opened:
        (place.path / "incoming" / orphan).write_bytes(b"being written")
        entries = inventory(opened._s, every=True)
        files = lying(place.path)
    listed = {entry.path: entry.bytes for entry in entries if entry.path in files}
    in_folders = {path for path in files if path.startswith("incoming/")}
    assert listed == {path: size for path, size in files.items() if path not in in_folders}
    (incoming,) = [entry for entry in entries if entry.path == "incoming/"]
    assert (incoming.count, incoming.bytes) == (1, len(b"being written"))
    foreign = {entry.path for entry in entries if entry.purpose == "nothing of this vault"}
    assert foreign == {"letter.txt", "blobs/00/letter.txt"}


def test_sealed_files_are_grouped_by_kind(make):
    place = make()
    with_kinds(place)
    (place.path / "blobs" / "ab" / ("ab" * 16)).write_bytes(b"orphan")
    with place.open() as opened:
        groups = {e.purpose: e for e in inventory(opened._s) if e.path == "blobs/"}
        single = inventory(opened._s, every=True)
    counts = {purpose: entry.count for purpose, entry in groups.items()}
    assert counts == {
        "sealed picture": 3,
        "sealed thumbnail": 3,
        "sealed file that no record names": 1,
    }
    by_kind = Counter()
    for entry in single:
        if entry.path.startswith("blobs/"):
            by_kind[entry.purpose.split(",")[0]] += entry.bytes
    assert by_kind == {purpose: entry.bytes for purpose, entry in groups.items()}


def test_one_by_one_a_file_is_listed_with_its_record(make):
    place = make()
    records = with_kinds(place)
    with place.open() as opened:
        purposes = [entry.purpose for entry in inventory(opened._s, every=True)]
    for record in records:
        assert sum(record.id in purpose for purpose in purposes) == 2


def test_it_says_what_each_gives_away_and_gives_nothing_away_itself(place):
    with place.open() as opened:
        entries = inventory(opened._s, every=True)
    assert all(entry.reveals.endswith(".") for entry in entries)
    assert CANARY not in repr(entries)


def test_the_key_store_entries_are_named_as_they_are(place):
    with place.open() as opened:
        entries = inventory(opened._s)
    listed = {entry.path.split(": ")[1] for entry in entries if ": " in entry.path}
    assert listed == set(place.keystore.entries)
    for entry in entries:
        if ": " in entry.path:
            assert entry.bytes == len(place.keystore.entries[entry.path.split(": ")[1]])


def test_a_vault_without_a_key_store_lists_none(folder):
    secret = vault.passphrase_secret("correct horse battery staple")
    path = folder / "v"
    vault.create(path, keystore=None, passphrase=secret, confirm=lambda _: None).close()
    with vault.open_vault(path, vault.PassphraseUnlock(secret)) as opened:
        assert not [entry for entry in inventory(opened._s) if ": " in entry.path]


def test_files_of_a_deletion_that_is_not_finished_say_so(place):
    with place.open() as opened:
        session = opened._s
        name = os.urandom(16)
        (place.path / "blobs" / name[:1].hex() / name.hex()).write_bytes(b"x")
        with session.shared(), session.ledger.writing() as change:
            change.unlink_later([name])
        purposes = Counter(e.purpose for e in inventory(session) if e.path == "blobs/")
    assert purposes["sealed file of a deleted record, about to go"] == 1


def test_damage_does_not_stop_it(place):
    with place.open() as opened:
        opened.add([draft("third")])
    place.sql("UPDATE record SET meta = zeroblob(300) WHERE pos = 0")
    with place.open() as opened:
        entries = {e.purpose: e.count for e in inventory(opened._s) if e.path == "blobs/"}
    assert entries == {"sealed picture": 2, "sealed file that no record names": 1}
