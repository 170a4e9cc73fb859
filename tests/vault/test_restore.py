"""What is restored reads back; what is damaged is refused or named; nothing is overwritten."""

import os
import shutil
import subprocess

import pytest

import vault
from tests.vault import test_crash
from tests.vault.conftest import draft
from tests.vault.file_keystore import FileKeyStore
from tests.vault.test_backup import backed_up, files_in, open_copy, pictures, tree
from tests.vault.worker import make as make_vault
from tests.vault.worker import open_vault
from vault.backup import back_up, restore
from vault.errors import BadValueError, DamagedError, LockedError, NotFoundError
from vault.verify import verify

small_disk = test_crash.small_disk  # the fixture: a file system of 3 MiB


def phrase_of(place):
    return vault.PhraseUnlock(place.phrase)


@pytest.mark.parametrize("empty", [False, True])
def test_a_restored_vault_reads_back_and_goes_on(place, folder, empty):
    with place.open() as opened:
        wanted = pictures(opened)
    backed_up(place, folder / "b")
    if empty:
        (folder / "r").mkdir()
    before = tree(folder / "b")
    report = restore(folder / "b", folder / "r", phrase_of(place))
    assert (report.records, report.files, report.problems, report.warning) == (2, 2, (), "")
    assert tree(folder / "b") == before
    unlock = vault.KeyStoreUnlock(place.keystore)
    with vault.open_vault(folder / "r", unlock) as opened:
        assert pictures(opened) == wanted
        opened.add([draft("goes on")])
        assert verify(opened._s, deep=True).problems == ()


@pytest.mark.parametrize("what", ["vault", "no index", "no header", "files", "file", "itself"])
def test_nothing_is_overwritten_by_a_restore(place, make, folder, what):
    backed_up(place, folder / "b")
    target = make().path
    if what == "no index":
        (target / "index.sqlite").unlink()
    elif what == "no header":
        (target / "VAULT").unlink()
    elif what == "files":
        target = folder / "r"
        target.mkdir()
        (target / "letter.txt").write_text("mine")
    elif what == "file":
        target = folder / "r"
        target.write_text("mine")
    elif what == "itself":
        target = folder / "b"
    before = tree(folder)
    with pytest.raises(BadValueError):
        restore(folder / "b", target, phrase_of(place))
    assert tree(folder) == before


def test_a_wrong_key_restores_nothing(place, make, folder):
    backed_up(place, folder / "b")
    with pytest.raises(LockedError):
        restore(folder / "b", folder / "r", phrase_of(make()))
    with pytest.raises(NotFoundError):
        restore(folder / "nowhere", folder / "r", phrase_of(place))
    assert not (folder / "r").exists()


@pytest.mark.parametrize("damage", ["missing", "head", "row"])
def test_a_damaged_backup_is_refused_or_restored_in_part(place, folder, damage):
    backed_up(place, folder / "b")
    with open_copy(place, folder / "b") as copy:
        newest = next(copy.list())
    place.path = folder / "b"
    if damage == "row":
        place.sql("UPDATE record SET meta = zeroblob(300) WHERE pos = ?", newest.position)
        victim = newest.id
    else:
        path = next((folder / "b" / "blobs").glob("*/*"))
        if damage == "missing":
            path.unlink()
        else:
            path.write_bytes(bytes(path.stat().st_size))
        with open_copy(place, folder / "b") as copy:
            victim = verify(copy._s).problems[0].record_id
    with pytest.raises(DamagedError):
        restore(folder / "b", folder / "r", phrase_of(place))
    assert not (folder / "r").exists()
    report = restore(folder / "b", folder / "r", phrase_of(place), partial=True)
    assert [problem.record_id for problem in report.problems] == [victim]
    assert report.files == 1
    with open_copy(place, folder / "r") as copy:
        good = {0, 1} - {newest.position if damage == "row" else -1}
        readable = [p for p in good if (r := record_at(copy, p)) is not None and r.id != victim]
        assert [copy.read(record_at(copy, p).id, "picture") for p in readable]


def record_at(copy, position):
    return next(copy.list(before=position + 1, limit=1), None)


def test_damage_beyond_the_head_is_found_while_restoring(make, folder):
    place = make()
    with place.open() as opened:
        opened.add([draft("large", bytes(40_000)), draft("small", b"x")])
    backed_up(place, folder / "b")
    path = max((folder / "b" / "blobs").glob("*/*"), key=lambda each: each.stat().st_size)
    data = bytearray(path.read_bytes())
    data[20_000] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamagedError):
        restore(folder / "b", folder / "r", phrase_of(place))
    report = restore(folder / "b", folder / "r", phrase_of(place), partial=True)  # goes on there
    assert (report.files, len(report.problems)) == (1, 1)
    assert len(files_in(folder / "r")) == 1


def test_a_backup_of_the_index_alone_says_so(place, folder):
    backed_up(place, folder / "b", index_only=True)
    with pytest.raises(DamagedError, match="index alone") as caught:
        restore(folder / "b", folder / "r", phrase_of(place))
    assert "index.sqlite" in caught.value.hint


def test_an_old_backup_that_is_restored_is_not_warned_about(folder):
    path, keys = folder / "v", folder / "keys"
    make_vault(path, keys)
    unlock = vault.KeyStoreUnlock(FileKeyStore(keys))
    with open_vault(path, keys) as opened:
        opened.add([draft("old")])
        back_up(opened._s, folder / "b")
        opened.add([draft("lost")])
    with vault.open_vault(folder / "b", unlock) as copy:
        assert "older copy" in copy.warnings[0]
    restore(folder / "b", folder / "r", unlock)
    with vault.open_vault(folder / "r", unlock) as restored:
        assert restored.warnings == ()


def test_a_key_store_that_refuses_is_a_warning(place, folder):
    backed_up(place, folder / "b")
    place.keystore.faults.add("fail_set")
    report = restore(folder / "b", folder / "r", vault.KeyStoreUnlock(place.keystore))
    assert report.complete
    assert "old copy" in report.warning


def test_read_only_media_can_be_restored_from(place, small_disk, folder):
    backed_up(place, small_disk / "b")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    report = restore(small_disk / "b", folder / "r", phrase_of(place))
    assert report.files == 2
    with open_copy(place, folder / "r") as copy:
        assert len(pictures(copy)) == 2
        copy.add([draft("writable")])


def test_a_vault_on_read_only_media_can_be_backed_up(place, small_disk, folder):
    shutil.copytree(place.path, small_disk / "v")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with open_copy(place, small_disk / "v") as opened:
        assert back_up(opened._s, folder / "b").copied == 2


def test_a_cancelled_restore_goes_on_the_next_time(make, folder):
    place = make()
    with place.open() as opened:
        for _ in range(5):
            opened.add([draft("x", os.urandom(300)) for _ in range(16)])
    backed_up(place, folder / "b")
    shown = []
    first = restore(
        folder / "b",
        folder / "r",
        phrase_of(place),
        progress=lambda stage, fraction: shown.append((stage, fraction)),
        cancelled=lambda: [stage for stage, _ in shown].count("copying files") == 1,
    )
    assert not first.complete
    with pytest.raises(NotFoundError):
        open_copy(place, folder / "r")
    second = restore(folder / "b", folder / "r", phrase_of(place))
    assert second.complete
    assert second.bytes < sum(each.stat().st_size for each in (folder / "r").glob("blobs/*/*"))
    assert [fraction for _, fraction in shown] == sorted(fraction for _, fraction in shown)
