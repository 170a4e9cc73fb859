"""Sealed files: written once, durably, and read as exactly what was written."""

import os
import stat
import sys
from pathlib import Path

import pytest

from vault.blobs import BlobStore
from vault.errors import DamagedError, NotFoundError, StorageError
from vault.files import FIXED_MTIME_NS

NAME, OTHER = bytes(range(16)), bytes(range(1, 17))


@pytest.fixture
def store(folder):
    for number in range(256):
        (folder / "blobs" / f"{number:02x}").mkdir(parents=True)
    (folder / "incoming").mkdir()
    made = BlobStore(folder)
    yield made
    made.close()


def path_of(folder, name=NAME):
    return folder / "blobs" / name[:1].hex() / name.hex()


def test_files_are_written_private_and_without_a_time(store, folder):
    store.write([(NAME, b"one"), (OTHER, b"")])
    status = path_of(folder).stat()
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert status.st_mtime_ns == FIXED_MTIME_NS
    assert store.read(NAME, 3) == b"one"
    assert store.read(OTHER, 0) == b""
    assert not any((folder / "incoming").iterdir())
    assert store.size_on_disk() == (2, 3)


@pytest.mark.parametrize("size", [2, 4, 0])
def test_another_size_is_damage(store, size):
    store.write([(NAME, b"one")])
    with pytest.raises(DamagedError):
        store.read(NAME, size)


def test_a_gone_file_is_not_found(store):
    with pytest.raises(NotFoundError):
        store.read(NAME, 3)


@pytest.mark.parametrize("what", ["link", "dangling", "fifo", "folder", "socket", "device"])
def test_special_files_are_damage_and_do_not_hang(store, folder, what):
    path = path_of(folder)
    (folder / "secret").write_bytes(b"one")
    if what in {"link", "dangling"}:
        path.symlink_to(folder / ("secret" if what == "link" else "nowhere"))
    elif what == "fifo":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
    elif what == "socket":
        os.mknod(path, stat.S_IFSOCK | 0o600)
    elif os.geteuid() == 0:
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 5))  # /dev/zero
    else:
        pytest.skip("only root can make a device")
    with pytest.raises(DamagedError):
        store.read(NAME, 3)


def test_a_linked_folder_is_damage_and_is_not_written_through(store, folder):
    shard = folder / "blobs" / "00"
    shard.rmdir()
    (folder / "elsewhere").mkdir()
    shard.symlink_to(folder / "elsewhere")
    with pytest.raises(StorageError):
        store.write([(NAME, b"one")])
    assert not any((folder / "elsewhere").iterdir())
    assert not any((folder / "incoming").iterdir())
    (folder / "elsewhere" / NAME.hex()).write_bytes(b"one")
    with pytest.raises(DamagedError):
        store.read(NAME, 3)


@pytest.mark.parametrize("name", ["blobs", "incoming"])
def test_the_two_folders_may_not_be_links(folder, store, name):
    (folder / name).rename(folder / "moved")
    (folder / name).symlink_to(folder / "moved")
    with pytest.raises(DamagedError):
        BlobStore(folder)


def test_a_failed_write_leaves_nothing(store, folder):
    (folder / "blobs" / "01").rmdir()
    with pytest.raises(StorageError):
        store.write([(NAME, b"one"), (OTHER, b"two")])
    assert not path_of(folder).exists()
    assert not any((folder / "incoming").iterdir())


def test_what_a_desktop_leaves_between_the_folders_does_not_count(store, folder):
    store.write([(NAME, b"one")])
    (folder / "blobs" / ".DS_Store").write_bytes(b"x")
    (folder / "blobs" / "02").rmdir()
    assert store.size_on_disk() == (1, 3)


def test_a_file_that_goes_during_the_walk_does_not_count(store, folder, monkeypatch):
    store.write([(NAME, b"one"), (OTHER, b"two")])
    walk = os.scandir

    class Going:
        """A listing, right after which another process deletes a file."""

        def __init__(self, listed):
            self.listed = walk(listed)

        def __enter__(self):
            entries = list(self.listed)
            if OTHER.hex() in {entry.name for entry in entries}:
                path_of(folder, OTHER).unlink()
            return entries

        def __exit__(self, *_):
            self.listed.close()

    monkeypatch.setattr(os, "scandir", Going)
    assert store.size_on_disk() == (1, 3)


def test_sweeping_takes_what_dead_writers_left(store, folder):
    (folder / "incoming" / ("0d" * 16)).write_bytes(b"half")
    (folder / "incoming" / "thesis.odt").write_bytes(b"somebody's")
    assert store.sweep_incoming() == 1
    assert [each.name for each in (folder / "incoming").iterdir()] == ["thesis.odt"]


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_closing_leaves_no_descriptor(folder, store):
    before = sum(1 for _ in Path("/proc/self/fd").iterdir())
    for _ in range(3):
        again = BlobStore(folder)
        again.write([(os.urandom(16), b"x")])
        again.close()
    assert sum(1 for _ in Path("/proc/self/fd").iterdir()) == before
