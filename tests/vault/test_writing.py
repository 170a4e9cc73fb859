"""Files that are written while their caller goes on: all of them are there, or nothing is left."""

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import vault
from tests.vault.conftest import draft
from vault import envelope, writing
from vault.errors import BadValueError, StorageError

ROOT = Path(__file__).parents[2]


def files_of(place):
    found = [*(place.path / "blobs").glob("*/*"), *(place.path / "incoming").iterdir()]
    return sorted(path.name for path in found)


@pytest.fixture
def place(make):
    """Return a vault that is empty."""
    return make()


@pytest.mark.parametrize("bad", [0, 1, 2])
def test_a_draft_that_cannot_be_sealed_takes_the_others_along(place, bad):
    drafts = [draft(str(number)) for number in range(3)]
    drafts[bad] = draft("bad", number=float("nan"))
    with place.open() as opened:
        with pytest.raises(BadValueError):
            opened.add(drafts)
        assert files_of(place) == []
        assert list(opened.list()) == []
        assert len(opened.add([draft()])) == 1
    assert len(files_of(place)) == 1


def test_an_index_that_refuses_leaves_no_file(place):
    with place.open() as opened:
        opened.add([draft("before")])
        kept = files_of(place)
        index = place.path / "index.sqlite"
        shutil.copy(index, index.with_name("copy"))
        index.with_name("copy").replace(index)  # another file of that name: refused before BEGIN
        with pytest.raises(StorageError):
            opened.add([draft("after"), draft("after")])
        assert files_of(place) == kept


def test_a_record_is_not_there_before_its_files_are(place):
    """The index's transaction is ready long before; it waits, and is rolled back."""
    moved = place.path / "moved"
    with place.open() as opened:
        generation = opened.status().generation
        (place.path / "blobs").rename(moved)  # the vault holds this folder open
        for shard in moved.iterdir():
            shard.rmdir()
        with pytest.raises(StorageError, match="sealed file could not be written"):
            opened.add([draft()])
        assert list(opened.list()) == []
        for number in range(256):
            (moved / f"{number:02x}").mkdir(mode=0o700)
        moved.rename(place.path / "blobs")
        assert files_of(place) == []
        assert opened.status().generation == generation
        (record,) = opened.add([draft()])
        assert opened.read(record.id, "picture") == b"pixels"


def test_the_files_of_one_save_are_flushed_at_once(place, monkeypatch):
    """Each waits until the other is being written: one after the other they would wait for ever."""
    together = threading.Barrier(2, timeout=60)
    fill = writing.fill_file

    def meet(*given):
        together.wait()
        fill(*given)

    monkeypatch.setattr(writing, "fill_file", meet)
    blobs = [
        vault.BlobDraft(name, vault.Kind.PICTURE, "image/png", name.encode())
        for name in ("picture", "thumbnail")
    ]
    with place.open() as opened:
        (record,) = opened.add([vault.Draft(vault.Kind.PICTURE, {}, blobs)])
        assert {name: bytes(opened.read(record.id, name)) for name in record.blobs} == {
            "picture": b"picture",
            "thumbnail": b"thumbnail",
        }


def test_files_are_made_before_anything_is_sealed(place, monkeypatch):
    made, encrypt = threading.Event(), envelope.encrypt_blob
    make = writing.make_file

    def tell(*given):
        fd = make(*given)
        made.set()
        return fd

    def wait(*given):
        assert made.wait(60)
        return encrypt(*given)

    monkeypatch.setattr(writing, "make_file", tell)
    monkeypatch.setattr(envelope, "encrypt_blob", wait)
    with place.open() as opened:
        (record,) = opened.add([draft()])
        assert opened.read(record.id, "picture") == b"pixels"


@pytest.mark.parametrize("drafts", [1, 3])
def test_a_seal_that_came_out_wrong_is_neither_kept_nor_listed(place, drafts, monkeypatch):
    """It was on its way to the disk already when it was looked at again."""
    encrypt = envelope.encrypt_blob

    def bend(*given):
        sealed = encrypt(*given)
        sealed[-1] ^= 1
        return sealed

    with place.open() as opened:
        opened.add([draft("before")])
        kept, descriptors = files_of(place), len([*Path("/proc/self/fd").iterdir()])
        monkeypatch.setattr(envelope, "encrypt_blob", bend)
        with pytest.raises(StorageError, match="does not open to its plaintext"):
            opened.add([draft("after")] * drafts)
        assert files_of(place) == kept
        assert len([*Path("/proc/self/fd").iterdir()]) == descriptors
        assert len(list(opened.list())) == 1


def test_an_interrupt_right_behind_a_rename_leaves_no_file(place, monkeypatch):
    """Files are moved in the caller's thread: Control-C is raised there between any two steps."""
    rename = os.rename

    def interrupted(*given, **folders):
        rename(*given, **folders)
        raise KeyboardInterrupt

    with place.open() as opened:
        opened.add([draft("before")])
        kept = files_of(place)
        monkeypatch.setattr(writing.os, "rename", interrupted)
        with pytest.raises(KeyboardInterrupt):
            opened.add([draft("after")])
        monkeypatch.undo()
        assert files_of(place) == kept
        assert len(list(opened.list())) == 1


def test_closing_ends_the_threads(place):
    before = threading.active_count()
    with place.open() as opened:
        opened.add([draft()])
        assert threading.active_count() > before
    assert threading.active_count() == before


def test_without_a_thread_to_be_had_it_saves_all_the_same(place, monkeypatch):
    def refuse(_thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with place.open() as opened:
        (record,) = opened.add([draft()])
        assert opened.read(record.id, "picture") == b"pixels"
        (place.path / "blobs").rename(place.path / "moved")
        for shard in (place.path / "moved").iterdir():
            shard.rename(place.path / f"gone-{shard.name}")
        with pytest.raises(StorageError):
            opened.add([draft()])
        assert not any((place.path / "incoming").iterdir())


ENDING = """
import atexit, sys
from pathlib import Path
from tests.vault.conftest import draft
from tests.vault.worker import make, open_vault

path, keys = map(Path, sys.argv[1:])
make(path, keys)
opened = open_vault(path, keys)
opened.add([draft("before")])
atexit.register(lambda: print(*(record.id for record in opened.add([draft("at the end")] * 2))))
"""


def test_what_is_saved_while_the_program_ends_is_saved(folder):
    """Behind the main program's end the threads must still take calls, or none be needed."""
    from tests.vault.worker import open_vault

    path, keys = folder / "v", folder / "keys"
    done = subprocess.run(
        [sys.executable, "-c", ENDING, str(path), str(keys)],
        cwd=ROOT,
        env=os.environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with open_vault(path, keys) as opened:
        found = [record.id for record in opened.list()]
        assert len(done.stdout.split()) == 2
        assert set(done.stdout.split()) < set(found)
        assert len(found) == 3
        assert all(opened.read(each, "picture") == b"pixels" for each in found)
