"""The index as an attacker leaves it: schema, cells, journals, and SQLite's own switches."""

import os
import sqlite3
import stat
import threading
import time
from contextlib import closing

import pytest

import vault
from tests.vault.conftest import draft
from vault.connection import SCHEMA, connect, preflight
from vault.errors import DamagedError, NotFoundError, StorageError, UnsupportedFormatError
from vault.index import META_LIMIT, Index

SUPER_JOURNAL = bytes.fromhex("d9d505f920a163d7")


def refused(place, error=DamagedError):
    # Opening, listing or reading may be the one that notices.
    with pytest.raises(error) as caught, place.open() as opened:  # noqa: PT012
        for record in opened.list(kinds=tuple(vault.Kind)):
            opened.get(record.id)
    return str(caught.value)


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE more (x)",
        "CREATE VIEW more AS SELECT load_extension('x')",
        "CREATE TRIGGER more AFTER INSERT ON record BEGIN DELETE FROM page; END",
        "CREATE INDEX more ON record (meta)",
        "DROP TABLE pending",
        "ALTER TABLE record ADD COLUMN more",
        "ALTER TABLE pending RENAME TO pending2",
    ],
)
def test_another_schema_is_refused_before_anything_runs(place, statement):
    place.sql(statement)
    assert "this program did not make" in refused(place)


def test_a_view_in_place_of_a_table_is_refused(place):
    place.sql("ALTER TABLE record RENAME TO hidden")
    place.sql("CREATE VIEW record AS SELECT pos, id, meta FROM hidden")
    assert "this program did not make" in refused(place)


def test_a_rewritten_schema_text_is_refused(place):
    place.sql("PRAGMA user_version = 1")
    with sqlite3.connect(place.path / "index.sqlite") as connection:
        connection.execute("PRAGMA writable_schema=ON")
        connection.execute(
            "UPDATE sqlite_schema SET sql = replace(sql, 'no ', 'no  ') WHERE name = 'page'"
        )
    connection.close()
    assert "this program did not make" in refused(place)


def test_other_programs_and_releases_are_told_apart(place):
    place.sql("PRAGMA user_version = 2")
    assert "newer" not in refused(place, UnsupportedFormatError)
    place.sql("PRAGMA user_version = 1")
    place.sql("PRAGMA application_id = 7")
    assert "another program" in refused(place)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE state SET vault_id = zeroblob(16)",
        "UPDATE state SET vault_id = 'text of sixteen '",
        "UPDATE state SET vault_id = zeroblob(15)",
        "UPDATE state SET epoch = 0",
        "UPDATE state SET epoch = -1",
        "UPDATE state SET epoch = 2",
        "UPDATE state SET epoch = 9223372036854775807",
        "UPDATE state SET epoch = 1e300",
        "UPDATE state SET generation = -1",
        "UPDATE state SET generation = NULL",
        "UPDATE state SET generation = generation - 1",
        "UPDATE state SET generation = generation + 1",
        "UPDATE state SET no = 1",
        "INSERT INTO state VALUES (1, zeroblob(16), 1, 1)",
        "DELETE FROM root",
        "UPDATE root SET sealed = NULL",
        "UPDATE root SET sealed = 'text'",
        "UPDATE root SET sealed = zeroblob(0)",
        "UPDATE root SET sealed = zeroblob(8000000)",
        "UPDATE root SET no = 1",
        "DELETE FROM page",
        "UPDATE page SET sealed = 5",
        "UPDATE page SET sealed = zeroblob(8000000)",
        "UPDATE page SET no = 1",
        "UPDATE keyslot SET body = zeroblob(5000)",
        "UPDATE keyslot SET body = 'text'",
        "UPDATE keyslot SET type = 300 WHERE no = 1",
        "UPDATE keyslot SET no = -1 WHERE no = 1",
        "UPDATE record SET meta = NULL WHERE pos = 0",
        "UPDATE record SET meta = 'text' WHERE pos = 0",
        "UPDATE record SET meta = zeroblob(0) WHERE pos = 0",
        "UPDATE record SET meta = zeroblob(2000000) WHERE pos = 0",
        "UPDATE record SET id = 'text of sixteen ' WHERE pos = 0",
        "UPDATE record SET id = zeroblob(15) WHERE pos = 0",
        "UPDATE record SET id = NULL WHERE pos = 0",
        "UPDATE record SET pos = 9 WHERE pos = 0",
        "UPDATE record SET pos = -1 WHERE pos = 0",
        "DELETE FROM record WHERE pos = 0",
    ],
)
def test_cells_of_another_type_length_or_value(place, statement):
    place.sql(statement)
    refused(place)


def test_a_cell_larger_than_the_limit_is_not_fetched(place):
    place.sql("UPDATE page SET sealed = zeroblob(9000000)")
    refused(place)


def test_large_rows_are_fetched_in_parts_that_fit_into_memory(place):
    large = [vault.Draft(vault.Kind.JOB, {"number": n, "text": "x" * 1_000_000}) for n in range(10)]
    with place.open() as opened:
        for _ in range(7):
            opened.add(large)
        with opened._s.ledger.reading():
            batch, cursor = opened._s.ledger.batch(
                1 << 60, {vault.Kind.JOB}, trashed=False, count=1024
            )
            assert 30 <= len(batch) < 70
            assert cursor == batch[-1].position > 0
        found = [record.position for record in opened.list(kinds=[vault.Kind.JOB])]
    assert found == list(range(71, 1, -1))
    place.sql("UPDATE record SET meta = zeroblob(?)", META_LIMIT)
    refused(place)


def test_a_key_slot_of_another_type_is_damage_even_without_a_key(place):
    place.sql("UPDATE keyslot SET type = 9 WHERE type = 2")
    with pytest.raises(DamagedError, match="type 9"):
        vault.inspect(place.path)
    refused(place)


def test_two_slots_of_one_type_are_damage(place):
    place.sql("INSERT INTO keyslot SELECT 5, type, body FROM keyslot WHERE type = 1")
    assert "2 slots" in refused(place)


def test_seventeen_key_slots_are_too_many(place):
    for number in range(10, 27):
        place.sql("INSERT INTO keyslot VALUES (?, 2, zeroblob(80))", number)
    assert "more than 16" in refused(place)


def test_what_is_no_database_is_damage(place):
    index = place.path / "index.sqlite"
    good = index.read_bytes()
    for bad in (b"", b"no database at all" * 99, good[:5000], good[:100] + bytes(len(good) - 100)):
        index.write_bytes(bad)
        refused(place, (DamagedError, NotFoundError))


def test_an_index_in_wal_mode_is_brought_back(place):
    place.sql("PRAGMA journal_mode = WAL")
    with place.open() as opened:
        opened.add([draft()])
    assert not list(place.path.glob("index.sqlite-*"))
    assert place.sql("PRAGMA journal_mode") == [("delete",)]


@pytest.mark.parametrize("suffix", ["-wal", "-shm"])
def test_a_wal_beside_the_index_is_refused_untouched(place, suffix):
    planted = place.path / f"index.sqlite{suffix}"
    planted.write_bytes(b"planted")
    assert suffix in refused(place)
    assert planted.read_bytes() == b"planted"


def test_a_journal_that_names_a_super_journal_is_refused(place, folder):
    victim = folder / "victim-mj"
    victim.write_bytes(b"precious")
    name = str(victim).encode()
    checksum = sum(name) & 0xFFFFFFFF
    trailer = (
        (0x7FFFFFFF).to_bytes(4, "big")
        + name
        + len(name).to_bytes(4, "big")
        + checksum.to_bytes(4, "big")
        + SUPER_JOURNAL
    )
    journal = place.path / "index.sqlite-journal"
    journal.write_bytes(SUPER_JOURNAL + bytes(504) + trailer)
    assert "super-journal" in refused(place)
    assert victim.read_bytes() == b"precious"


@pytest.mark.parametrize("content", [b"", b"garbage" * 100, bytes(512)])
def test_a_journal_of_nonsense_changes_nothing(place, content):
    (place.path / "index.sqlite-journal").write_bytes(content)
    with place.open() as opened:
        assert len(list(opened.list())) == 2


@pytest.mark.parametrize("name", ["index.sqlite", "index.sqlite-journal"])
@pytest.mark.parametrize("what", ["link", "fifo", "folder"])
def test_special_files_are_refused(place, folder, name, what):
    path = place.path / name
    if path.exists():
        path.rename(folder / "kept")
    if what == "link":
        path.symlink_to(folder / "kept")
        (folder / "kept").touch()
    elif what == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    assert "not a regular file" in refused(place)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_files_of_another_user_are_refused(place):
    os.chown(place.path / "index.sqlite", 12345, -1)
    assert "another user" in refused(place, StorageError)


def test_a_gone_index_is_said_to_be_gone(place):
    (place.path / "index.sqlite").unlink()
    assert "index is gone" in refused(place)


def test_every_switch_of_the_connection(place):
    connection = connect(place.path / "index.sqlite")
    names = ("trusted_schema", "cell_size_check", "mmap_size", "temp_store", "secure_delete")
    got = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names]
    assert got == [0, 1, 0, 2, 1]
    assert connection.execute("PRAGMA synchronous").fetchone() == (3,)
    assert connection.execute("PRAGMA fullfsync").fetchone() == (1,)
    assert connection.execute("PRAGMA journal_mode").fetchone() == (b"delete",)
    assert connection.getlimit(sqlite3.SQLITE_LIMIT_LENGTH) == 8 << 20
    with pytest.raises(sqlite3.OperationalError):
        connection.execute("ATTACH ':memory:' AS other")
    connection.close()


def test_the_index_is_private_and_holds_our_schema_only(place):
    assert stat.S_IMODE((place.path / "index.sqlite").stat().st_mode) == 0o600
    rows = place.sql("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL")
    assert [row[0] for row in rows] == list(SCHEMA)
    assert preflight(place.path / "index.sqlite")[0] is False


def test_a_busy_index_is_storage_after_its_patience_and_changes_nothing(place):
    index = Index(place.path / "index.sqlite", patience=0)
    blocker = sqlite3.connect(place.path / "index.sqlite", isolation_level=None)
    blocker.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StorageError, match="another program"), index.writing():
        pytest.fail("wrote beside another writer")
    with pytest.raises(StorageError, match="another program"), index.reading():
        index.state()
    blocker.execute("ROLLBACK")
    blocker.close()
    with index.writing():
        index.put_page(77, b"x")
    with index.reading():
        assert index.page(77) == b"x"
    index.close()


def test_an_index_that_was_replaced_is_noticed_by_who_holds_it_open(place):
    """A restore or another program put a new file there: the old one must not be written on."""
    with place.open() as opened:
        index = place.path / "index.sqlite"
        copy = index.with_name("copy")
        copy.write_bytes(index.read_bytes())
        copy.rename(index)
        for act in (lambda: list(opened.list()), lambda: opened.add([draft()])):
            with pytest.raises(StorageError, match="replaced"):
                act()
    with place.open() as opened:
        assert len(list(opened.list())) == 2


def test_a_save_waits_for_a_long_read_as_it_does_for_a_writer(place):
    """A backup copies the index under one read, onto a slow disk: no save is lost to that."""
    index, reader = (Index(place.path / "index.sqlite", patience=1) for _ in range(2))
    waits = threading.Event()

    def read():
        with reader.reading():
            reader.state()  # the lock is taken by the first read
            waits.set()
            time.sleep(1.5)  # longer than one try of a statement

    thread = threading.Thread(target=read)
    with closing(index), closing(reader):
        thread.start()
        waits.wait(10)
        with index.writing():
            state = index.state()
            index.put_state(state._replace(generation=state.generation + 1))
        thread.join(10)
        with reader.reading():
            assert reader.state().generation == state.generation + 1
