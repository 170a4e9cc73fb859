"""A check finds each fault, names its record, and goes on: one fault never hides another."""

import os

import pytest

import vault
from tests.vault.conftest import CANARY, draft
from tests.vault.test_hostile import bend
from vault.envelope import seal_draft
from vault.examination import examine
from vault.keytree import Root
from vault.records import Metadata
from vault.verify import verify

TIME = "2026-01-01T00:00:00.000Z"


def checked(place, **given):
    with place.open() as opened:
        return verify(opened._s, **given)


def found(report):
    """Return the problems as (kind, record id or None)."""
    return sorted((problem.kind, problem.record_id) for problem in report.problems)


def files_by_record(place):
    """Return each record's one file."""
    with place.open() as opened:
        session = opened._s
        with session.shared(), session.ledger.reading():
            records, _ = session.ledger.batch(1 << 62, {1}, trashed=False, count=1000)
            batch = [session.ledger.at_position(record.position) for record in records]
    names = {}
    for each in batch:
        (seal,) = Metadata.decode(each.text).blobs
        name = seal.file.hex()
        names[each.slot.record_id.hex()] = place.path / "blobs" / name[:2] / name
    return names


@pytest.fixture
def three(make):
    """Return a place with three records, and their files by record id, oldest first."""
    place = make()
    with place.open() as opened:
        ids = [r.id for r in opened.add([draft(str(n), b"%d" % n * 40_000) for n in range(3)])]
    files = files_by_record(place)
    return place, {each: files[each] for each in ids}


@pytest.mark.parametrize("deep", [False, True])
def test_a_whole_vault_has_no_problem_and_notes_that_it_was_checked(three, deep):
    place, _files = three
    with place.open() as opened:
        report = verify(opened._s, deep=deep)
        assert (report.records, report.blobs, report.problems, report.orphans) == (3, 3, (), 0)
        assert report.complete
        with opened._s.shared(), opened._s.ledger.reading():
            note = opened._s.ledger.notes["verified"]
    assert note == {"when": report.checked, "deep": deep, "problems": 0}


def test_progress_goes_up_and_cancelling_stops_without_a_note(three):
    place, _files = three
    shown = []
    with place.open() as opened:
        verify(opened._s, progress=lambda stage, fraction: shown.append((fraction, stage)))
        assert shown == sorted(shown, key=lambda each: each[0])
        assert shown[-1][0] == 1.0
        before = opened._s.ledger.notes["verified"]
        assert not verify(opened._s, cancelled=lambda: True).complete
        assert opened._s.ledger.notes["verified"] == before


@pytest.mark.parametrize("place_in_file", [0, 30, 55])
def test_a_changed_head_of_a_file_is_found(three, place_in_file):
    place, files = three
    victim, path = list(files.items())[1]
    path.write_bytes(bend(path.read_bytes(), 8 * place_in_file))
    assert found(checked(place)) == [("damaged", victim)]


@pytest.mark.parametrize("place_in_file", [56, 20_000, -1])
def test_a_changed_body_of_a_file_is_found_by_a_deep_check(three, place_in_file):
    place, files = three
    victim, path = list(files.items())[1]
    data = path.read_bytes()
    path.write_bytes(bend(data, 8 * (place_in_file % len(data))))
    assert found(checked(place)) == []
    report = checked(place, deep=True)
    assert found(report) == [("damaged", victim)]
    assert (report.records, report.blobs, report.damaged_records) == (3, 3, 1)


def test_missing_truncated_and_longer_files_are_found(three):
    place, files = three
    (first, one), (second, two), (third, three_) = files.items()
    one.unlink()
    os.truncate(two, two.stat().st_size - 1)
    three_.write_bytes(three_.read_bytes() + b"\0")
    assert found(checked(place)) == sorted(
        [("missing", first), ("damaged", second), ("damaged", third)]
    )


def test_files_of_two_records_swapped_are_found(three):
    place, files = three
    (first, one), (second, two), _third = files.items()
    data = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(data)
    assert found(checked(place)) == sorted([("damaged", first), ("damaged", second)])


@pytest.mark.parametrize("what", ["link", "fifo", "folder"])
def test_what_stands_in_place_of_a_file_is_found_and_does_not_hang(three, what):
    place, files = three
    victim, path = next(iter(files.items()))
    path.rename(place.path.parent / "kept")
    if what == "link":
        path.symlink_to(place.path.parent / "kept")
    elif what == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    assert found(checked(place)) == [("damaged", victim)]
    assert (place.path.parent / "kept").exists()


def test_a_deleted_row_is_found_and_its_file_is_no_orphan_to_be_trusted(three):
    place, files = three
    victim = list(files)[1]
    place.sql("DELETE FROM record WHERE pos = 1")
    with place.open() as opened:
        seen = examine(opened._s, hold=opened._s.shared)
    assert [(p.kind, p.record_id) for p in seen.problems] == [("missing", victim)]
    assert seen.blind
    assert (seen.records, seen.blobs, len(seen.orphans)) == (3, 2, 1)


@pytest.mark.parametrize("column", ["id", "meta"])
def test_a_changed_row_is_found_and_the_others_are_checked(three, column):
    place, files = three
    ((value,),) = place.sql(f"SELECT {column} FROM record WHERE pos = 2")  # noqa: S608
    place.sql(f"UPDATE record SET {column} = ? WHERE pos = 2", bend(value, 77))  # noqa: S608
    report = checked(place)
    assert found(report) == [("damaged", list(files)[2])]
    assert (report.records, report.blobs) == (3, 2)


@pytest.mark.parametrize("value", [None, "text", 7])
def test_a_row_of_a_wrong_type_is_found_and_the_others_are_checked(three, value):
    place, files = three
    place.sql("UPDATE record SET meta = ? WHERE pos = 0", value)
    report = checked(place)
    assert found(report) == [("damaged", next(iter(files)))]
    assert report.blobs == 2


@pytest.mark.parametrize("position", [-1, -(1 << 62), 3, 63, 5000])
def test_a_planted_row_is_foreign(three, position):
    place, _files = three
    ((meta,),) = place.sql("SELECT meta FROM record WHERE pos = 0")
    place.sql("INSERT INTO record VALUES (?, ?, ?)", position, bytes(range(16)), meta)
    assert found(checked(place)) == [("foreign", None)]


def test_a_planted_row_without_any_metadata_is_foreign_too(three):
    place, _files = three
    place.sql("INSERT INTO record VALUES (900, ?, ?)", bytes(range(16)), b"")
    assert found(checked(place)) == [("foreign", None)]


def test_a_row_in_the_slot_of_a_deleted_record_is_foreign(three):
    place, files = three
    row = place.sql("SELECT * FROM record WHERE pos = 1")[0]
    with place.open() as opened:
        opened.delete([list(files)[1]])
    place.sql("INSERT INTO record VALUES (?, ?, ?)", *row)
    report = checked(place)
    assert found(report) == [("foreign", None)]
    assert report.records == 2


def many(place, count):
    """Add records without files in one transaction."""
    with place.open() as opened:
        ledger = opened._s.ledger
        plain = vault.Draft(vault.Kind.PICTURE, {"prompt": "x"}, ())
        no_files = {}.__setitem__
        with opened._s.shared(), ledger.writing() as change:
            for _ in range(count):
                change.append(seal_draft(ledger.vault_id, plain, TIME, no_files).sealed)


@pytest.mark.parametrize("damage", ["bent", "gone"])
def test_a_damaged_page_is_found_and_the_others_are_checked(three, damage):
    place, files = three
    many(place, 2 * Root().page_slots)
    if damage == "bent":
        ((page,),) = place.sql("SELECT sealed FROM page WHERE no = 1")
        place.sql("UPDATE page SET sealed = ? WHERE no = 1", bend(page, 99_999))
    else:
        place.sql("DELETE FROM page WHERE no = 1")
    next(iter(files.values())).unlink()
    report = checked(place)
    assert found(report) == sorted(
        [("damaged", None), ("missing", next(iter(files)))],
        key=lambda each: (each[0], each[1] or ""),
    )
    assert report.records == 3 + Root().page_slots


def test_the_disk_is_checked_and_not_what_the_session_remembers(three):
    """A session keeps pages and the root that it opened: those cannot be damaged."""
    place, _files = three
    with place.open() as opened:
        list(opened.list())
        for table in ("page", "root"):
            ((sealed,),) = place.sql(f"SELECT sealed FROM {table}")  # noqa: S608
            place.sql(f"UPDATE {table} SET sealed = ?", bend(sealed, 800))  # noqa: S608
            assert ("damaged", None) in found(verify(opened._s)), table
            place.sql(f"UPDATE {table} SET sealed = ?", sealed)  # noqa: S608


def test_a_planted_list_of_deleted_files_is_found(three):
    place, _files = three
    with place.open() as opened:  # opening clears a list that nobody of this vault wrote
        place.sql("INSERT INTO pending VALUES (4, ?)", os.urandom(300))
        assert found(verify(opened._s)) == [("damaged", None)]


def test_a_damaged_structure_is_found_and_not_written_to(three):
    place, _files = three
    many(place, 300)
    index = place.path / "index.sqlite"
    with place.open() as opened:
        session = opened._s
        before = session.ledger.at
        size = place.sql("PRAGMA page_size")[0][0]
        ((root_page,),) = place.sql("SELECT rootpage FROM sqlite_schema WHERE name = 'record'")
        with index.open("r+b") as file:  # the number of cells in the table's own page
            file.seek((root_page - 1) * size + 3)
            file.write(b"\xff\xff")
        place.sql("UPDATE state SET no = no")  # the session drops what it had read
        report = verify(session)
        assert any(problem.kind == "damaged" for problem in report.problems)
        assert session.ledger.at == before


def test_planted_files_are_foreign_and_orphans_are_counted(three):
    place, _files = three
    blobs = place.path / "blobs"
    (blobs / "00" / ("0" * 32)).write_bytes(b"of a save that was cut off")
    for planted in ("notes.txt", "blobs/notes.txt", "blobs/00/notes.txt", "incoming/notes.txt"):
        (place.path / planted).write_bytes(b"")
    (blobs / "01" / ("0" * 32)).write_bytes(b"in the wrong folder")
    os.mkfifo(blobs / "02" / ("02" * 16))
    (blobs / "03" / "\udcff\x1b[2J").write_bytes(b"")
    with place.open() as opened:
        (place.path / "incoming" / "folder").mkdir()
        report = verify(opened._s)
    texts = "\n".join(problem.text for problem in report.problems)
    assert found(report) == [("foreign", None)] * 8
    assert report.orphans == 1
    assert "\x1b" not in texts
    assert (place.path / "incoming" / "notes.txt").exists()  # not named as ours: not swept
    for name in ("notes.txt", "blobs/00/notes.txt", "blobs/02/" + "02" * 16, "incoming/folder"):
        assert f"'{name}'" in texts


def test_a_missing_folder_is_missing(three):
    place, files = three
    empty = next(
        each
        for each in sorted((place.path / "blobs").iterdir())
        if each.name not in {path.parent.name for path in files.values()}
    )
    empty.rmdir()
    assert found(checked(place)) == [("missing", None)]


def test_a_damaged_header_is_found_while_the_vault_is_open(three):
    place, _files = three
    with place.open() as opened:
        (place.path / "VAULT").write_bytes(bytes(64))
        assert found(verify(opened._s)) == [("damaged", None)]
        (place.path / "VAULT").unlink()
        assert found(verify(opened._s)) == [("missing", None)]


def test_a_record_deleted_meanwhile_is_no_problem(three):
    """Its file goes between the page and the file: the record is asked for again."""
    place, files = three
    unlock = vault.KeyStoreUnlock(place.keystore)

    def delete_first(stage, _fraction):
        if stage == "checking records":
            with vault.open_vault(place.path, unlock) as other:
                other.delete([next(iter(files))])

    report = checked(place, progress=delete_first)
    assert found(report) == []
    assert report.orphans == 0


def test_records_added_meanwhile_are_no_orphans(three):
    place, _files = three
    unlock = vault.KeyStoreUnlock(place.keystore)

    def add_one(stage, _fraction):
        if stage == "looking at the folder":
            with vault.open_vault(place.path, unlock) as other:
                other.add([draft("late")])

    report = checked(place, progress=add_one)
    assert (found(report), report.orphans) == ([], 0)


def test_what_a_deletion_still_has_to_unlink_is_no_orphan(three):
    place, files = three
    victim, path = list(files.items())[2]
    data = path.read_bytes()
    with place.open() as opened:
        session = opened._s  # a deletion that stops after its commit
        with session.shared(), session.ledger.writing() as change:
            change.drop([2])
            change.unlink_later([bytes.fromhex(path.name)])
        assert path.read_bytes() == data
        report = verify(session)
    assert (found(report), report.orphans, report.records) == ([], 0, 2)
    assert victim not in {problem.record_id for problem in report.problems}


def test_problems_hold_nothing_of_a_record(three):
    place, files = three
    with place.open() as opened:
        opened.edit(next(iter(files)), lambda _: {"prompt": CANARY})
        opened.edit(list(files)[1], lambda _: {"prompt": CANARY})
        place.sql("UPDATE record SET meta = zeroblob(300) WHERE pos = 1")
        for path in files.values():
            path.write_bytes(b"")
        report = verify(opened._s, deep=True)
    assert len(report.problems) == 3
    assert CANARY not in repr(report)
