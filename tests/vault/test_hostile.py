"""A folder that somebody without keys has worked on: every bit, every swap, every replay."""

import hashlib
import os
import shutil
import sqlite3
import stat

import pytest

import vault
from tests.vault.conftest import CANARY, draft
from vault.errors import (
    DamagedError,
    NoKeyError,
    NotFoundError,
    StorageError,
    UnsupportedFormatError,
)

PICTURES = (b"first picture", b"a second, larger picture")


@pytest.fixture
def pair(make):
    """Return a place and the ids of two records, the older one first."""
    place = make()
    with place.open() as opened:
        records = opened.add([draft("one " + CANARY, PICTURES[0]), draft("two", PICTURES[1])])
    return place, [record.id for record in records]


def bend(data: bytes, bit: int) -> bytes:
    bent = bytearray(data)
    bent[bit // 8] ^= 1 << bit % 8
    return bytes(bent)


def files_of(place):
    return sorted((place.path / "blobs").glob("*/*"), key=lambda path: path.stat().st_size)


def damaged(act):
    """Run `act`; it must raise DamagedError, and give out no plaintext in it."""
    with pytest.raises(DamagedError) as caught:
        act()
    shown = f"{caught.value!r} {caught.value.hint} {caught.value.__cause__!r}"
    assert CANARY not in shown
    assert "picture'" not in shown


# Sealed files


def test_every_bit_of_a_sealed_file(pair):
    place, ids = pair
    path = files_of(place)[0]
    good = path.read_bytes()
    with place.open() as opened:
        mine = next(i for i in ids if len(opened.read(i, "picture")) == 13)
        for bit in range(8 * len(good)):
            path.write_bytes(bend(good, bit))
            damaged(lambda: opened.read(mine, "picture"))
        path.write_bytes(good)
        assert opened.read(mine, "picture") == PICTURES[0]


def test_every_truncation_of_a_sealed_file(pair):
    place, ids = pair
    path = files_of(place)[0]
    good = path.read_bytes()
    with place.open() as opened:
        for size in range(len(good)):
            path.write_bytes(good[:size])
            damaged(lambda: opened.read(ids[0], "picture"))
        path.write_bytes(good + b"\0")
        damaged(lambda: opened.read(ids[0], "picture"))


def test_files_of_two_records_swapped(make):
    place = make()
    with place.open() as opened:
        one, two = opened.add([draft("a", b"12345678"), draft("b", b"87654321")])
        first, second = files_of(place)
        content = first.read_bytes()
        first.write_bytes(second.read_bytes())
        second.write_bytes(content)
        for record in (one, two):
            damaged(lambda record=record: opened.read(record.id, "picture"))


def test_files_of_one_record_swapped(make):
    place = make()
    blobs = [
        vault.BlobDraft(name, vault.Kind.INPUT, "image/png", data)
        for name, data in (("picture", b"12345678"), ("mask", b"87654321"))
    ]
    with place.open() as opened:
        record = opened.add([vault.Draft(vault.Kind.INPUT, {}, blobs)])[0]
        first, second = files_of(place)
        content = first.read_bytes()
        first.write_bytes(second.read_bytes())
        second.write_bytes(content)
        damaged(lambda: opened.read(record.id, "picture"))
        damaged(lambda: opened.read(record.id, "mask"))


def test_a_gone_file_is_damage(pair):
    place, ids = pair
    for path in files_of(place):
        path.unlink()
    with place.open() as opened:
        damaged(lambda: opened.read(ids[0], "picture"))
        assert opened.get(ids[0]).metadata["prompt"].endswith(CANARY)


# Rows


def test_every_bit_of_a_record_row(pair):
    place, ids = pair
    ((meta,),) = place.sql("SELECT meta FROM record WHERE pos = 0")
    with place.open() as opened:
        for bit in range(8 * len(meta)):
            place.sql("UPDATE record SET meta = ? WHERE pos = 0", bend(meta, bit))
            damaged(lambda: opened.get(ids[0]))
        for size in range(0, len(meta), 7):
            place.sql("UPDATE record SET meta = ? WHERE pos = 0", meta[:size])
            damaged(lambda: opened.get(ids[0]))
        place.sql("UPDATE record SET meta = ? WHERE pos = 0", meta)
        raw = bytes.fromhex(ids[0])
        for bit in range(128):
            place.sql("UPDATE record SET id = ? WHERE pos = 0", bend(raw, bit))
            damaged(lambda: opened.get(ids[0]))
            damaged(lambda: list(opened.list()))


@pytest.mark.parametrize(("table", "step"), [("root", 7), ("page", 97)])
def test_bits_of_root_and_page_rows(pair, table, step):
    place, _ids = pair
    ((sealed,),) = place.sql(f"SELECT sealed FROM {table}")  # noqa: S608
    for bit in range(0, 8 * len(sealed), step):
        place.sql(f"UPDATE {table} SET sealed = ?", bend(sealed, bit))  # noqa: S608
        with pytest.raises(DamagedError), place.open() as opened:
            list(opened.list())


def test_rows_swapped_between_records(pair):
    place, ids = pair
    (one,), (two,) = place.sql("SELECT meta FROM record ORDER BY pos")
    place.sql("UPDATE record SET meta = ? WHERE pos = 0", two)
    place.sql("UPDATE record SET meta = ? WHERE pos = 1", one)
    with place.open() as opened:
        for record_id in ids:
            damaged(lambda record_id=record_id: opened.get(record_id))


def test_rows_that_change_places(pair):
    place, ids = pair
    place.sql("UPDATE record SET pos = 50 WHERE pos = 0")
    place.sql("UPDATE record SET pos = 0 WHERE pos = 1")
    place.sql("UPDATE record SET pos = 1 WHERE pos = 50")
    with place.open() as opened:
        for record_id in ids:
            damaged(lambda record_id=record_id: opened.get(record_id))
        damaged(lambda: list(opened.list()))


@pytest.mark.parametrize("position", [0, 1])
def test_a_deleted_row_is_noticed_by_whoever_passes(pair, position):
    place, ids = pair
    place.sql("DELETE FROM record WHERE pos = ?", position)
    with place.open() as opened:
        damaged(lambda: opened.get(ids[position]))
        damaged(lambda: list(opened.list()))
        damaged(lambda: list(opened.search("two")))
        damaged(lambda: opened.trash([ids[position]]))
        assert opened.resolve(ids[position][:10]) == ids[position]
        assert opened.get(ids[1 - position]).id == ids[1 - position]


def test_planted_rows_are_never_shown(pair):
    place, ids = pair
    ((meta,),) = place.sql("SELECT meta FROM record WHERE pos = 0")
    planted = bytes(15) + b"\7"
    place.sql("INSERT INTO record VALUES (40, ?, ?)", planted, meta)
    place.sql("INSERT INTO record VALUES (-3, ?, ?)", bytes(15) + b"\x08", meta)
    with place.open() as opened:
        assert [record.id for record in opened.list()] == ids[::-1]
        damaged(lambda: opened.get(planted.hex()))
        damaged(lambda: opened.get(bytes(15).hex() + "08"))
        with pytest.raises(NotFoundError):
            opened.resolve(planted.hex()[:31])


# Replay


def test_an_old_record_row_is_damage(pair):
    place, ids = pair
    (old,) = place.sql("SELECT meta FROM record WHERE pos = 0")
    with place.open() as opened:
        opened.edit(ids[0], lambda data: {"prompt": "edited"})
        place.sql("UPDATE record SET meta = ? WHERE pos = 0", *old)
        damaged(lambda: opened.get(ids[0]))


@pytest.mark.parametrize("tables", [("root",), ("page",), ("page", "root"), ("page", "record")])
def test_old_rows_of_the_tree_are_damage(pair, tables):
    place, ids = pair
    old = {
        "root": place.sql("SELECT sealed FROM root")[0],
        "page": place.sql("SELECT sealed FROM page")[0],
        "record": place.sql("SELECT meta FROM record WHERE pos = 0")[0],
    }
    with place.open() as opened:
        opened.edit(ids[0], lambda data: {"prompt": "edited"})
    for table in tables:
        column = "meta" if table == "record" else "sealed"
        where = " WHERE pos = 0" if table == "record" else ""
        place.sql(f"UPDATE {table} SET {column} = ?{where}", *old[table])  # noqa: S608
    with pytest.raises(DamagedError), place.open() as opened:
        opened.get(ids[0])


def test_rows_of_a_copy_that_went_another_way_are_damage(pair, folder):
    """Two copies of one vault share keys and revisions, not seals."""
    place, ids = pair
    shutil.copytree(place.path, folder / "copy")
    with place.open() as opened:
        opened.edit(ids[0], lambda data: {"prompt": "here"})
    unlock = vault.KeyStoreUnlock(place.keystore)
    with vault.open_vault(folder / "copy", unlock) as copy:
        copy.edit(ids[0], lambda data: {"prompt": "there"})
    other = sqlite3.connect(folder / "copy" / "index.sqlite")
    (page,) = other.execute("SELECT sealed FROM page").fetchone()
    (root,) = other.execute("SELECT sealed FROM root").fetchone()
    other.close()
    ((kept,),) = place.sql("SELECT sealed FROM page")
    place.sql("UPDATE page SET sealed = ?", page)
    with pytest.raises(DamagedError), place.open() as opened:
        opened.get(ids[0])
    place.sql("UPDATE page SET sealed = ?", kept)
    place.sql("UPDATE root SET sealed = ?", root)
    with pytest.raises(DamagedError), place.open() as opened:
        opened.get(ids[0])


def test_everything_of_another_vault_is_damage(make):
    place, other = make(), make()
    with place.open() as opened:
        opened.add([draft()])
    shutil.copy(other.path / "VAULT", place.path / "VAULT")
    damaged(place.open)
    shutil.copy(other.path / "index.sqlite", place.path / "index.sqlite")
    with pytest.raises(NoKeyError):
        place.open()


# The header, and what stands in place of files


def test_every_bit_of_the_header(place):
    path = place.path / "VAULT"
    good = path.read_bytes()
    assert len(good) == 64
    for bit in range(512):
        path.write_bytes(bend(good, bit))
        damaged(place.open)
        damaged(lambda: vault.inspect(place.path))
    for size in range(64):
        path.write_bytes(good[:size])
        damaged(place.open)
    path.write_bytes(good + b"\0")
    damaged(place.open)


def test_a_newer_format_is_refused_and_nothing_is_written(place):
    head = (place.path / "VAULT").read_bytes()[:36]
    newer = head[:16] + b"\0\2" + head[18:]
    (place.path / "VAULT").write_bytes(newer + hashlib.sha256(newer).digest()[:28])
    before = {path: path.stat().st_mtime_ns for path in place.path.rglob("*")}
    with pytest.raises(UnsupportedFormatError, match="format 2"):
        place.open()
    with pytest.raises(UnsupportedFormatError):
        vault.create(place.path, keystore=place.keystore, confirm=lambda _: None)
    assert {path: path.stat().st_mtime_ns for path in place.path.rglob("*")} == before


@pytest.mark.parametrize("name", ["VAULT", "lock", "incoming", "blobs"])
@pytest.mark.parametrize("what", ["link", "fifo"])
def test_special_files_do_not_stand_for_ours(place, folder, name, what):
    path = place.path / name
    path.rename(folder / "kept")
    if what == "link":
        path.symlink_to(folder / "kept")
    else:
        os.mkfifo(path)
    with pytest.raises((DamagedError, StorageError)):
        place.open()
    assert stat.S_ISFIFO(path.lstat().st_mode) == (what == "fifo")
