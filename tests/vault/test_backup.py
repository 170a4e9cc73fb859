"""A backup is a vault: whole, consistent while others write, incremental, and never half of two."""

import hashlib
import os
import shutil
import subprocess

import pytest

import vault
from tests.vault.conftest import draft
from tests.vault.test_layout import STRANGE
from vault.backup import back_up, restore
from vault.errors import (
    BadValueError,
    DamagedError,
    LockedError,
    UnsupportedFormatError,
)
from vault.files import FIXED_MTIME_NS
from vault.keystore.memory import MemoryKeyStore
from vault.verify import verify


def pictures(opened):
    """Return the pictures by record id; reads every one."""
    return {record.id: opened.read(record.id, "picture") for record in opened.list()}


def tree(path):
    """Return every path below with its bytes."""
    return {
        str(each.relative_to(path)): each.read_bytes() if each.is_file() else None
        for each in sorted(path.rglob("*"))
    }


def files_in(path):
    return {each.name for each in (path / "blobs").glob("*/*")}


def _by_name(path):
    return [(each.name, each) for each in (path / "blobs").glob("*/*")]


def backed_up(place, target, **given):
    with place.open() as opened:
        return back_up(opened._s, target, **given)


def open_copy(place, target):
    """Open a backup as on a new machine: with the phrase, and no key store."""
    return vault.open_vault(target, vault.PhraseUnlock(place.phrase))


# Backup


def test_a_backup_opens_elsewhere_with_the_phrase_and_every_picture_reads(place, folder):
    report = backed_up(place, folder / "b")
    assert (report.records, report.files, report.copied, report.removed) == (2, 2, 2, 0)
    assert report.complete
    assert report.full
    with place.open() as opened:
        wanted = pictures(opened)
    with open_copy(place, folder / "b") as copy:
        assert pictures(copy) == wanted
        assert verify(copy._s, deep=True).problems == ()
        copy.add([draft("and it goes on there")])
    with pytest.raises(LockedError):
        vault.open_vault(folder / "b", vault.KeyStoreUnlock(MemoryKeyStore()))


def test_a_backup_opens_with_the_passphrase_too(make, folder):
    place = make(passphrase="correct horse battery staple")
    with place.open() as opened:
        opened.add([draft()])
    backed_up(place, folder / "b")
    with vault.open_vault(folder / "b", vault.PassphraseUnlock(place.passphrase)) as copy:
        assert len(pictures(copy)) == 1


def test_a_backup_is_as_private_as_the_vault_and_holds_nothing_else(place, folder):
    backed_up(place, folder / "b")
    names = {"VAULT", "index.sqlite", "blobs", "incoming", "lock"}
    assert {each.name for each in (folder / "b").iterdir()} == names
    assert not any((folder / "b" / "incoming").iterdir())
    for each in [folder / "b", *(folder / "b").rglob("*")]:
        assert each.stat().st_mode & 0o777 == (0o700 if each.is_dir() else 0o600), each
    for each in [folder / "b" / "VAULT", *(folder / "b" / "blobs").glob("*/*")]:
        assert each.stat().st_mtime_ns == FIXED_MTIME_NS
    for name in files_in(place.path):
        path = f"blobs/{name[:2]}/{name}"
        assert (folder / "b" / path).read_bytes() == (place.path / path).read_bytes()


def test_a_second_backup_copies_only_what_is_new(place, folder):
    backed_up(place, folder / "b")
    before = {each: each.stat().st_ino for each in (folder / "b" / "blobs").glob("*/*")}
    with place.open() as opened:
        opened.add([draft("third", b"new")])
        opened.edit(next(opened.list()).id, lambda data: {**data, "note": "edited"})
    report = backed_up(place, folder / "b")
    assert (report.records, report.files, report.copied, report.removed) == (3, 3, 1, 0)
    assert {each: each.stat().st_ino for each in before} == before
    with open_copy(place, folder / "b") as copy:
        newest = next(copy.list())
        assert newest.metadata["note"] == "edited"
        assert copy.read(newest.id, "picture") == b"new"
    assert backed_up(place, folder / "b").copied == 0


def test_a_backup_forgets_what_the_vault_deleted(place, folder):
    backed_up(place, folder / "b")
    with place.open() as opened:
        first = next(opened.list()).id
        opened.delete([first])
    report = backed_up(place, folder / "b")
    assert (report.records, report.removed) == (1, 1)
    assert files_in(folder / "b") == files_in(place.path)
    with open_copy(place, folder / "b") as copy:
        assert first not in pictures(copy)


def test_a_backup_follows_a_purge_and_a_new_phrase(place, folder):
    backed_up(place, folder / "b")
    phrases = []
    with place.open() as opened:
        opened.delete([next(opened.list()).id])
        opened.purge()
        opened.keys.replace_phrase(lambda phrase: phrases.append(phrase.text()))
        report = back_up(opened._s, folder / "b")
    assert report.complete
    with pytest.raises((LockedError, DamagedError)):
        open_copy(place, folder / "b")
    with vault.open_vault(folder / "b", vault.PhraseUnlock(phrases[0])) as copy:
        assert len(pictures(copy)) == 1


def test_a_damaged_file_of_a_backup_is_copied_again(place, folder):
    backed_up(place, folder / "b")
    path = next((folder / "b" / "blobs").glob("*/*"))
    path.write_bytes(path.read_bytes()[:-1])
    link = next(each for each in (folder / "b" / "blobs").glob("*/*") if each != path)
    link.unlink()
    link.symlink_to(folder / "elsewhere")
    assert backed_up(place, folder / "b").copied == 2
    assert not (folder / "elsewhere").exists()
    with open_copy(place, folder / "b") as copy:
        assert verify(copy._s, deep=True).problems == ()


def test_a_deep_backup_heals_what_a_plain_one_does_not_look_at(place, folder):
    """A head that was flipped is seen by every backup, a byte in the middle by a deep one."""
    backed_up(place, folder / "b")
    wanted = {name: path.read_bytes() for name, path in _by_name(folder / "b")}
    for at, deep, healed in ((30, False, 1), (60, False, 0), (60, True, 1)):
        for name, path in _by_name(folder / "b"):
            data = bytearray(wanted[name])
            data[at] ^= name == min(wanted)
            path.write_bytes(data)
        report = backed_up(place, folder / "b", deep=deep)
        assert (report.complete, report.deep) == (True, deep)
        assert (report.copied, report.healed) == (healed, healed)
        same = {name: path.read_bytes() for name, path in _by_name(folder / "b")} == wanted
        assert same is bool(healed)


def test_a_deep_backup_can_be_stopped_at_each_record(place, folder):
    """A page of pictures takes seconds to open: the bar moves and Ctrl-C is heard in between."""
    with place.open() as opened:
        opened.add([draft(f"{number}") for number in range(10)])
        back_up(opened._s, folder / "b")
        told = {False: [], True: []}
        for deep, shares in told.items():
            back_up(
                opened._s, folder / "b", deep=deep, progress=lambda _, at, s=shares: s.append(at)
            )
    assert len(told[True]) == len(told[False]) + 12  # records
    assert told[True] == sorted(told[True])


def test_the_vault_notes_when_it_was_backed_up(place, folder):
    with place.open() as opened:
        report = back_up(opened._s, folder / "b", index_only=True)
        assert opened._s.ledger.notes["backup"] == {"when": report.when, "full": False}
        report = back_up(opened._s, folder / "b")
        assert opened._s.ledger.notes["backup"] == {"when": report.when, "full": True}


def test_the_index_alone_saves_the_keys(place, folder):
    report = backed_up(place, folder / "b", index_only=True)
    assert (report.records, report.full, report.copied) == (2, False, 0)
    assert files_in(folder / "b") == set()
    (place.path / "index.sqlite").unlink()
    shutil.copy(folder / "b" / "index.sqlite", place.path)
    with open_copy(place, place.path) as opened:
        assert len(pictures(opened)) == 2


def test_an_index_alone_takes_no_file_from_a_full_backup(place, folder):
    backed_up(place, folder / "b")
    kept = files_in(folder / "b")
    with place.open() as opened:
        opened.delete([next(opened.list()).id])
    backed_up(place, folder / "b", index_only=True)
    assert files_in(folder / "b") == kept


def test_cancelling_keeps_the_earlier_backup_and_the_next_one_goes_on(make, folder):
    place = make()
    with place.open() as opened:
        opened.add([draft("old")])
        back_up(opened._s, folder / "b")
        for _ in range(5):
            opened.add([draft("new", os.urandom(300)) for _ in range(16)])
        shown = []
        report = back_up(
            opened._s,
            folder / "b",
            progress=lambda stage, fraction: shown.append(stage),
            cancelled=lambda: shown.count("copying files") == 1,
        )
        assert not report.complete
        assert not any((folder / "b" / "incoming").iterdir())
        with open_copy(place, folder / "b") as copy:
            assert len(pictures(copy)) == 1
        again = back_up(opened._s, folder / "b")
        assert again.complete
        assert report.copied + again.copied == 80
        assert report.copied > 0


def test_progress_goes_from_nothing_to_all(place, folder):
    shown = []
    backed_up(place, folder / "b", progress=lambda stage, fraction: shown.append(fraction))
    assert shown == sorted(shown)
    assert 0 <= shown[0] < 0.1
    assert shown[-1] <= 1


# What may not be a target


@pytest.mark.parametrize(
    "where", ["itself", "inside", "blobs", "above", "link", "other files", "file"]
)
def test_a_wrong_target_is_refused_and_nothing_is_written(place, folder, where):
    (folder / "used").mkdir()
    (folder / "used" / "letter.txt").write_text("mine")
    (folder / "file").write_text("mine")
    (folder / "way").symlink_to(place.path)
    target = {
        "itself": place.path,
        "inside": place.path / "backup",
        "blobs": place.path / "blobs" / "00",
        "above": place.path.parent,
        "link": folder / "way" / "incoming",
        "other files": folder / "used",
        "file": folder / "file",
    }[where]
    before = tree(folder)
    with pytest.raises(BadValueError):
        backed_up(place, target)
    assert tree(folder) == before


@pytest.mark.parametrize("strange", [*STRANGE, f"blobs/ab/ab{'cd' * 15}"])
def test_somebody_elses_blobs_or_incoming_are_no_target(place, folder, strange):
    """Not even where they are named as ours are, such as by their MD5 sums."""
    path = folder / "used" / strange
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    before = tree(folder)
    with pytest.raises(BadValueError, match="such as"):
        backed_up(place, folder / "used")
    with pytest.raises(BadValueError, match="such as"):
        restore(place.path, folder / "used", vault.KeyStoreUnlock(place.keystore))
    assert tree(folder) == before


def test_what_is_ours_of_a_half_made_copy_is_taken_up(place, folder):
    backed_up(place, folder / "b")
    for name in ("VAULT", "index.sqlite"):
        (folder / "b" / name).unlink()
    (folder / "b" / "incoming" / ("0d" * 16)).write_bytes(b"half")
    assert backed_up(place, folder / "b").copied == 0
    assert not any((folder / "b" / "incoming").iterdir())


def test_the_vault_by_another_way_is_still_the_vault(place, tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    way = tmp_path / "way"
    way.mkdir()
    mount = ["mount", "--bind", str(place.path), str(way)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("this container may not mount")
    try:
        with pytest.raises(BadValueError, match="lie in each other"):
            backed_up(place, way)
    finally:
        subprocess.run(["umount", str(way)], check=True)


def test_another_vaults_folder_is_refused_and_nothing_is_written(make, folder):
    place, other = make(), make()
    backed_up(other, folder / "b")
    for target in (other.path, folder / "b"):
        before = tree(target)
        with pytest.raises(BadValueError, match="another vault"):
            backed_up(place, target)
        assert tree(target) == before


@pytest.mark.parametrize("deletes", [False, True])
def test_a_backup_that_was_used_as_a_vault_is_not_overwritten(place, folder, deletes):
    """Its own pictures would be gone: it has records that the vault never had.

    deletes: what the vault had at that position is gone again, and tells nothing.
    """
    backed_up(place, folder / "b")
    with open_copy(place, folder / "b") as copy:
        copy.add([draft("made there")])
    with place.open() as opened:
        (first,) = opened.add([draft("here, at the same position")])
        if deletes:
            opened.delete([first.id])
        for number in range(5):
            opened.add([draft(f"here {number}")])
        before = tree(folder / "b")
        with pytest.raises(BadValueError, match="went on by itself"):
            back_up(opened._s, folder / "b")
    assert tree(folder / "b") == before


def test_a_backup_that_was_only_looked_at_goes_on_when_its_newest_record_was_deleted(place, folder):
    with place.open() as opened:
        (gone,) = opened.add([draft("rejected")])
        back_up(opened._s, folder / "b")
        before = tree(folder / "b")
        with open_copy(place, folder / "b") as copy:
            assert verify(copy._s, deep=True).problems == ()
            assert copy.read(gone.id, "picture") == b"pixels"
        assert tree(folder / "b") == before  # it does not even note that it was checked
        assert back_up(opened._s, folder / "b").removed == 0
        opened.delete([gone.id])
        assert back_up(opened._s, folder / "b").removed == 1


def test_a_backup_newer_than_the_vault_is_not_overwritten(place, folder):
    shutil.copytree(place.path, folder / "old")
    with place.open() as opened:
        opened.edit(next(opened.list()).id, lambda data: {**data, "note": "later"})
    backed_up(place, folder / "b")
    unlock = vault.KeyStoreUnlock(place.keystore)
    with vault.open_vault(folder / "old", unlock) as old, pytest.raises(BadValueError):
        back_up(old._s, folder / "b")


def test_a_newer_format_at_the_target_is_refused(place, folder):
    backed_up(place, folder / "b")
    header = folder / "b" / "VAULT"
    newer = header.read_bytes()[:16] + b"\0\2" + header.read_bytes()[18:36]
    header.write_bytes(newer + hashlib.sha256(newer).digest()[:28])
    before = tree(folder / "b")
    with pytest.raises(UnsupportedFormatError):
        backed_up(place, folder / "b")
    assert tree(folder / "b") == before


# A damaged vault


@pytest.mark.parametrize("damage", ["row", "page", "missing", "body", "structure"])
def test_a_damaged_vault_does_not_take_the_place_of_a_good_backup(place, folder, damage):
    with place.open() as opened:
        opened.add([draft("large", bytes(40_000))])
        back_up(opened._s, folder / "b")
        newest = opened.add([draft("new", bytes(40_000))])[0]
    before = tree(folder / "b")
    fresh = next(iter(files_in(place.path) - files_in(folder / "b")))
    path = place.path / "blobs" / fresh[:2] / fresh
    if damage == "row":
        place.sql("UPDATE record SET meta = zeroblob(300) WHERE pos = ?", newest.position)
    elif damage == "page":
        place.sql("UPDATE page SET sealed = zeroblob(300)")
    elif damage == "missing":
        path.unlink()
    elif damage == "body":
        data = bytearray(path.read_bytes())
        data[20_000] ^= 1
        path.write_bytes(data)
    else:
        size = place.sql("PRAGMA page_size")[0][0]
        ((number,),) = place.sql("SELECT rootpage FROM sqlite_schema WHERE name = 'creation'")
        with (place.path / "index.sqlite").open("r+b") as file:
            file.seek((number - 1) * size)
            file.write(b"\x07")
    with place.open() as opened, pytest.raises(DamagedError):
        back_up(opened._s, folder / "b")
    after = tree(folder / "b")
    assert {name for name in after if after[name] != before.get(name)} <= {"incoming"}
    assert set(before) <= set(after)
