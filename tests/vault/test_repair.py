"""Repair mends what it can without losing anything, and nothing in doubt is removed."""

import hashlib
import itertools
import os
import shutil
import threading

import pytest

import vault
from tests.vault.conftest import draft
from tests.vault.test_backup import files_in, pictures, tree
from tests.vault.test_hostile import bend
from vault.errors import DamagedError, LockedError, NotFoundError, UnsupportedFormatError
from vault.files import FIXED_MTIME_NS
from vault.layout import MAGIC, read_header
from vault.mending import repair

ORPHAN = "ab" * 16


def mended(place, **given):
    return repair(place.path, vault.KeyStoreUnlock(place.keystore), **given)


def plant_orphan(place, name=ORPHAN):
    path = place.path / "blobs" / name[:2] / name
    path.write_bytes(b"of a save that was cut off")
    return path


def unused(place):
    """Yield the folders that no file of the vault lies in: names of files are random."""
    used = {name[:2] for name in files_in(place.path)}
    yield from (
        place.path / "blobs" / name for name in map("{:02x}".format, range(256)) if name not in used
    )


def read_back(place):
    with place.open() as opened:
        return pictures(opened)


def test_a_whole_vault_is_left_as_it_is(place):
    before = tree(place.path)
    for dry_run in (True, False):
        report = mended(place, dry_run=dry_run)
        assert (report.header, report.folders, report.orphans, report.problems) == (False, 0, 0, ())
        assert report.complete
    assert tree(place.path) == before


@pytest.mark.parametrize("damage", ["zeroed", "gone", "short", "another vault's", "fifo", "link"])
@pytest.mark.parametrize("by", ["key store", "phrase"])
def test_the_header_is_written_anew(place, make, folder, damage, by):
    header = place.path / "VAULT"
    good, wanted = header.read_bytes(), read_back(place)
    if damage == "zeroed":
        header.write_bytes(bytes(64))
    elif damage == "short":
        os.truncate(header, 63)
    elif damage == "another vault's":
        shutil.copy(make().path / "VAULT", header)
    else:
        header.unlink()
    if damage == "fifo":
        os.mkfifo(header)
    elif damage == "link":
        (folder / "elsewhere").write_bytes(good)
        header.symlink_to(folder / "elsewhere")
    unlock = vault.KeyStoreUnlock(place.keystore)
    if by == "phrase":
        unlock = vault.PhraseUnlock(place.phrase)
    before = tree(place.path)
    assert repair(place.path, unlock, dry_run=True).header
    assert tree(place.path) == before
    with pytest.raises((DamagedError, NotFoundError)):
        place.open()
    assert repair(place.path, unlock).header
    assert header.read_bytes() == good
    assert header.lstat().st_mtime_ns == FIXED_MTIME_NS
    assert read_back(place) == wanted


def test_a_vault_that_was_moved_and_left_a_link_behind_is_mended(place, folder):
    place.path.rename(folder / "bigger disk")
    place.path.symlink_to(folder / "bigger disk")
    assert mended(place).problems == ()
    (place.path / "VAULT").unlink()
    assert mended(place).header
    with place.open() as opened:
        assert opened.path == place.path
        assert opened.status().files == 2


def test_a_header_of_a_newer_format_is_not_overwritten(place):
    header = place.path / "VAULT"
    newer = MAGIC + b"\0\2" + header.read_bytes()[18:36]
    header.write_bytes(newer + hashlib.sha256(newer).digest()[:28])
    before = tree(place.path)
    with pytest.raises(UnsupportedFormatError):
        mended(place)
    assert tree(place.path) == before


def test_nothing_is_written_before_the_vault_has_opened(place, make):
    other = make()
    (place.path / "VAULT").unlink()
    next(unused(place)).rmdir()
    shutil.rmtree(place.path / "incoming")
    before = tree(place.path)
    with pytest.raises(LockedError):
        repair(place.path, vault.KeyStoreUnlock(other.keystore))
    with pytest.raises(LockedError):
        repair(place.path, vault.PhraseUnlock(other.phrase))
    assert tree(place.path) == before


def test_a_forged_id_in_the_index_is_not_believed(place):
    (place.path / "VAULT").unlink()
    place.sql("UPDATE state SET vault_id = ?", bytes(16))
    with pytest.raises((DamagedError, LockedError)):
        mended(place)
    assert not (place.path / "VAULT").exists()


def test_where_no_vault_is_nothing_is_made(folder, place):
    (folder / "empty").mkdir()
    for path in (folder / "empty", folder / "nowhere"):
        with pytest.raises(NotFoundError):
            repair(path, vault.KeyStoreUnlock(place.keystore))
    assert not any((folder / "empty").iterdir())
    (place.path / "index.sqlite").unlink()
    before = tree(place.path)
    with pytest.raises(DamagedError):
        mended(place)
    assert tree(place.path) == before


def test_missing_folders_are_made(place):
    for each in itertools.islice(unused(place), 3):
        each.rmdir()
    shutil.rmtree(place.path / "incoming")
    dry = mended(place, dry_run=True)
    assert (dry.folders, dry.dry_run) == (4, True)
    assert not (place.path / "incoming").exists()
    assert mended(place).folders == 4
    assert mended(place).folders == 0
    assert (place.path / "incoming").stat().st_mode & 0o777 == 0o700
    with place.open() as opened:
        opened.add([draft()] * 16)


def test_all_folders_gone_is_mended_and_the_pictures_are_reported(place):
    shutil.rmtree(place.path / "blobs")
    report = mended(place)
    assert report.folders == 257
    assert [problem.kind for problem in report.problems] == ["missing", "missing"]


def test_orphans_and_only_orphans_are_removed(place):
    wanted = read_back(place)
    orphan = plant_orphan(place)
    blobs = place.path / "blobs"
    shutil.copy(orphan, blobs / "00" / ORPHAN)  # in the wrong folder
    shutil.copy(orphan, blobs / "ab" / ORPHAN.upper())
    shutil.copy(orphan, blobs / "ab" / f"{ORPHAN}.txt")
    (blobs / "ab" / ("ab" * 15 + "00")).symlink_to(orphan)
    os.mkfifo(blobs / "ab" / ("ab" * 15 + "01"))
    (blobs / "ab" / ("ab" * 15 + "02")).mkdir()
    before = tree(place.path)
    dry = mended(place, dry_run=True)
    assert (dry.orphans, dry.orphan_bytes) == (1, orphan.stat().st_size)
    assert tree(place.path) == before
    report = mended(place)
    assert (report.orphans, report.kept) == (1, "")
    assert [problem.kind for problem in report.problems] == ["foreign"] * 6
    after = tree(place.path)
    assert set(before) - set(after) == {f"blobs/ab/{ORPHAN}"}
    assert read_back(place) == wanted


@pytest.mark.parametrize("damage", ["row", "row gone", "page", "pending"])
def test_nothing_is_removed_while_something_does_not_open(place, damage):
    """What does not open may name the file: it looks like an orphan only because of the damage."""
    if damage == "row":
        place.sql("UPDATE record SET meta = zeroblob(300) WHERE pos = 0")
    elif damage == "row gone":
        place.sql("DELETE FROM record WHERE pos = 0")
    elif damage == "page":
        ((page,),) = place.sql("SELECT sealed FROM page")
        place.sql("UPDATE page SET sealed = ?", bend(page, 9000))
    else:
        place.sql("INSERT INTO pending VALUES (9, zeroblob(300))")
    plant_orphan(place)
    before = files_in(place.path)
    report = mended(place)
    assert report.orphans == 0
    assert "may name" in report.kept
    assert [problem.kind for problem in report.problems] in (["damaged"], ["missing"])
    assert files_in(place.path) == before


def test_damaged_files_are_reported_and_orphans_go_all_the_same(place):
    path = next((place.path / "blobs").glob("*/*"))
    path.write_bytes(b"")
    plant_orphan(place)
    report = mended(place)
    assert [problem.kind for problem in report.problems] == ["damaged"]
    assert report.orphans == 1
    assert path.exists()


def test_a_file_that_a_deletion_still_has_to_unlink_is_kept(place):
    name = next(iter(files_in(place.path)))
    with place.open() as opened:
        session = opened._s
        with session.shared(), session.ledger.writing() as change:
            change.unlink_later([bytes.fromhex(ORPHAN)])
        plant_orphan(place)
        report = mended(place)
    assert (report.orphans, report.kept) == (0, "")
    assert {name, ORPHAN} <= files_in(place.path)


def test_a_file_that_is_being_written_is_not_taken_for_an_orphan(place):
    """Its record comes with the commit: repair waits for the writer, who shares the lock."""
    reports = []
    with place.open() as opened:
        session = opened._s
        with session.shared():
            thread = threading.Thread(target=lambda: reports.append(mended(place)))
            path = plant_orphan(place)
            thread.start()
            thread.join(0.5)
            assert path.exists()
            assert not reports
            path.unlink()  # the writer gives up and takes it back
        thread.join(60)
    assert reports[0].orphans == 0


def test_cancelling_removes_nothing(place):
    path = plant_orphan(place)
    report = mended(place, cancelled=lambda: True)
    assert not report.complete
    assert report.orphans == 0
    assert path.exists()


def test_a_linked_folder_is_never_walked_into(place, folder):
    target = folder / "elsewhere"
    target.mkdir()
    (target / ORPHAN).write_bytes(b"mine")
    shard = place.path / "blobs" / "ab"
    for each in shard.iterdir():
        each.rename(target / each.name)
    shard.rmdir()
    shard.symlink_to(target)
    report = mended(place)
    assert (target / ORPHAN).exists()
    assert report.orphans == 0
    assert shard.is_symlink()
    assert read_header(place.path)


def with_index_of(place, index):
    shutil.copy(index / "index.sqlite", place.path / "index.sqlite")


def test_another_vaults_index_costs_no_file(place, make):
    """Put there by mistake: it opens by its own key, and names none of the files."""
    other = make()
    with other.open() as opened:
        opened.add([draft("theirs", b"another picture")])
    own = place.path.with_name("own")
    shutil.copytree(place.path, own)
    before = files_in(place.path)
    with_index_of(place, other.path)
    for dry_run in (True, False):
        with pytest.raises(DamagedError, match="two vaults"):
            repair(place.path, vault.KeyStoreUnlock(other.keystore), dry_run=dry_run)
    (place.path / "VAULT").unlink()  # nothing denies the index any more, but its files are missing
    report = repair(place.path, vault.KeyStoreUnlock(other.keystore))
    assert (report.orphans, "another index may name" in report.kept) == (0, True)
    assert files_in(place.path) == before
    with_index_of(place, own)
    assert mended(place).header
    assert len(read_back(place)) == 2


def test_an_older_index_costs_no_file_while_the_key_store_knows_better(place):
    older = place.path.with_name("older")
    shutil.copytree(place.path, older)
    with place.open() as opened:
        opened.add([draft("third", b"newer pixels")])
    newest = place.path.with_name("newest")
    shutil.copytree(place.path, newest)
    before = files_in(place.path)
    with_index_of(place, older)
    report = mended(place)
    assert (report.orphans, "older than the vault was" in report.kept) == (0, True)
    assert files_in(place.path) == before
    with_index_of(place, newest)
    assert len(read_back(place)) == 3


def test_cancelled_before_the_index_was_looked_at_the_header_stays(place, make):
    """VAULT denies the index, and nobody has seen yet which of them is right."""
    header = place.path / "VAULT"
    shutil.copy(make().path / "VAULT", header)
    before = tree(place.path)
    report = mended(place, cancelled=lambda: True)
    assert (report.complete, report.header) == (False, False)
    assert tree(place.path) == before
