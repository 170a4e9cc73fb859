"""Keep sealed files, written once (`vault.writing`): incoming/<random>, then blobs/ab/<hex>.

Folders are opened without following links and files are named relative to them, so a link that
somebody planted leads nowhere.
"""

import errno
import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from vault.errors import DamagedError, NotFoundError, StorageError
from vault.files import (
    FOLDER,
    NAME_BYTES,
    fill_file,
    has_fixed_time,
    make_file,
    open_folder,
    sync,
    unlink,
)

if TYPE_CHECKING:
    from vault.writing import Threads, Writing

__all__ = [
    "SHARDS",
    "BlobStore",
    "FileNames",
    "Found",
    "is_file_name",
    "make_folders",
    "missing_folders",
    "stranger_in",
    "write_beside",
]

SHARDS = 256  # folders in `blobs`: one for each first byte of a name
_SHARD_NAMES = frozenset(f"{number:02x}" for number in range(SHARDS))
_HEX_DIGITS = frozenset("0123456789abcdef")
_OLD_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a FIFO must not hang us


class Found(NamedTuple):
    """Something that lies in a folder of `blobs`. regular: a file, and no link or device."""

    name: str
    regular: bool
    size: int

    def file(self, shard: int) -> bytes | None:
        """Return the name in bytes if a sealed file in that folder can be called so."""
        if not is_file_name(self.name) or not self.name.startswith(f"{shard:02x}"):
            return None
        return bytes.fromhex(self.name)


class FileNames:
    """Names and sizes of sealed files, 24 bytes each: a million records may name two million."""

    def __init__(self) -> None:
        self._shards = [bytearray() for _ in range(SHARDS)]

    def add(self, name: bytes, size: int) -> None:
        """Remember a file; of one that is added twice the later size counts."""
        self._shards[name[0]] += name + size.to_bytes(8, "big")

    def shard(self, number: int) -> dict[bytes, int]:
        """Return the sizes by name of the files in one folder."""
        data, step = bytes(self._shards[number]), NAME_BYTES + 8
        return {
            data[at : at + NAME_BYTES]: int.from_bytes(data[at + NAME_BYTES : at + step], "big")
            for at in range(0, len(data), step)
        }


class BlobStore:
    """The folders `blobs` and `incoming` of one vault."""

    def __init__(self, root: Path) -> None:
        """Open both folders; raises DamagedError when one is missing or a link."""
        self._folders: dict[str, int] = {}
        self._threads: Threads | None = None
        try:
            for name in ("blobs", "incoming"):
                self._folders[name] = os.open(root / name, FOLDER)
        except OSError as error:
            self.close()
            what = f"the vault's folders cannot be opened: {error.strerror}"
            bent = error.errno in {errno.ENOENT, errno.ELOOP, errno.ENOTDIR}
            raise (DamagedError if bent else StorageError)(what) from error

    def close(self) -> None:
        """Let the threads end, and close the folders."""
        if self._threads is not None:
            self._threads.close()
            self._threads = None
        for fd in self._folders.values():
            os.close(fd)
        self._folders.clear()

    def writing(self) -> "Writing":
        """Give what writes sealed files."""
        from vault.writing import Threads, Writing

        self._threads = self._threads or Threads()
        return Writing(self._threads, self._folders["incoming"], self._folders["blobs"])

    def write(self, files: Iterable[tuple[bytes, bytes | bytearray]]) -> None:
        """Write (name, sealed bytes) durably; all of them are there when it returns.

        Raises StorageError, and removes what it had written, when the disk refuses any of it.
        """
        writing = self.writing()
        try:
            for name, data in files:
                writing.put(name, data)
            writing.finish()
        except BaseException:
            writing.undo()
            raise

    def read(self, name: bytes, size: int, first: int | None = None) -> bytearray:
        """Return a sealed file of exactly `size` bytes, or only the `first` bytes of it.

        Raises NotFoundError when there is none, DamagedError for a link, a special file or
        another size, StorageError when the disk cannot read it.
        """
        try:
            with open_folder(name[:1].hex(), self._folders["blobs"]) as folder:
                fd = os.open(name.hex(), _OLD_FILE, dir_fd=folder)
        except FileNotFoundError:
            raise NotFoundError("a sealed file is not there") from None
        except OSError as error:
            if error.errno in {errno.ELOOP, errno.ENOTDIR, errno.ENXIO}:
                raise DamagedError("a sealed file was replaced by something else") from error
            raise StorageError(f"a sealed file cannot be opened: {error.strerror}") from error
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode) or status.st_size != size:
                raise DamagedError("a sealed file is not the one that was written: size or type")
            return _read_exactly(fd, size if first is None else min(first, size))
        except OSError as error:
            raise StorageError(f"a sealed file cannot be read: {error.strerror}") from error
        finally:
            os.close(fd)

    def delete(self, names: Iterable[bytes]) -> None:
        """Unlink files for good, durably; those that are gone already are no error.

        Raises StorageError when one resists.
        """
        by_shard: dict[bytes, list[bytes]] = {}
        for name in names:
            by_shard.setdefault(name[:1], []).append(name)
        try:
            for shard, files in by_shard.items():
                with open_folder(shard.hex(), self._folders["blobs"]) as folder:
                    for name in files:
                        with suppress(FileNotFoundError):
                            os.unlink(name.hex(), dir_fd=folder)
                    sync(folder)
        except OSError as error:
            raise StorageError(
                f"a deleted record's file could not be unlinked: {error.strerror}",
                hint="The record is deleted; the file goes when the vault is opened again.",
            ) from error

    def sweep_incoming(self) -> int:
        """Remove what dead writers left in `incoming`; call it under the exclusive lock only.

        What has another name than ours is somebody else's, and stays.
        """
        swept = 0
        try:
            for name in os.listdir(self._folders["incoming"]):  # noqa: PTH208 - by descriptor
                swept += is_file_name(name) and unlink(name, self._folders["incoming"])
        except OSError:  # a read-only disk: sweeping can wait
            return swept
        return swept

    def listing(self, shard: int) -> list[Found]:
        """Return all that lies in one folder of `blobs`; nothing is followed or opened.

        Raises NotFoundError when the folder is missing, DamagedError when something else is there.
        """
        found: list[Found] = []
        try:
            with (
                open_folder(f"{shard:02x}", self._folders["blobs"]) as folder,
                os.scandir(folder) as entries,
            ):
                for entry in entries:
                    with suppress(FileNotFoundError):  # deleted meanwhile
                        status = entry.stat(follow_symlinks=False)
                        regular = stat.S_ISREG(status.st_mode)
                        found.append(Found(entry.name, regular, status.st_size))
        except FileNotFoundError:
            raise NotFoundError(f"the folder blobs/{shard:02x} is missing") from None
        except OSError as error:
            what = f"the folder blobs/{shard:02x} cannot be listed: {error.strerror}"
            bent = error.errno in {errno.ELOOP, errno.ENOTDIR}
            raise (DamagedError if bent else StorageError)(what) from error
        return found

    def sync_shard(self, shard: int) -> None:
        """Flush one folder of `blobs`; raises StorageError."""
        try:
            with open_folder(f"{shard:02x}", self._folders["blobs"]) as folder:
                sync(folder)
        except OSError as error:
            raise StorageError(f"a folder cannot be flushed: {error.strerror}") from error

    def size_on_disk(self) -> tuple[int, int]:
        """Return (number, bytes) of the sealed files; walks all folders that are there."""
        number = size = 0
        for shard in range(SHARDS):
            with suppress(NotFoundError):
                for found in self.listing(shard):
                    number += 1
                    size += found.size
        return number, size


def is_file_name(name: str) -> bool:
    """Say whether a file of `blobs` or `incoming` can have this name: 32 hex digits."""
    return len(name) == 2 * NAME_BYTES and set(name) <= _HEX_DIGITS


def stranger_in(root: Path) -> str | None:
    """Name something in `blobs` or `incoming` that no program of ours left there, if any is.

    For a folder without VAULT, in which a killed first copy may have left sealed files. Others'
    files may be named alike, as by their MD5 sums; the fixed time is ours. Raises StorageError.
    """
    try:
        for name in ("blobs", "incoming"):
            if os.path.lexists(root / name) and not stat.S_ISDIR((root / name).lstat().st_mode):
                return name
        for entry in _entries(root / "incoming"):
            if not (is_file_name(entry.name) and entry.is_file(follow_symlinks=False)):
                return f"incoming/{entry.name}"
        for shard in _entries(root / "blobs"):
            if shard.name not in _SHARD_NAMES or not shard.is_dir(follow_symlinks=False):
                return f"blobs/{shard.name}"
            for entry in _entries(Path(shard.path)):
                if not _is_sealed_file(entry, shard.name):
                    return f"blobs/{shard.name}/{entry.name}"
    except OSError as error:
        raise StorageError(f"{root} cannot be looked at: {error.strerror}") from error
    return None


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except FileNotFoundError:
        return []


def _is_sealed_file(entry: os.DirEntry[str], shard: str) -> bool:
    if not is_file_name(entry.name) or not entry.name.startswith(shard):
        return False
    status = entry.stat(follow_symlinks=False)
    return stat.S_ISREG(status.st_mode) and has_fixed_time(status)


def missing_folders(root: Path) -> list[Path]:
    """Return the folders of a vault that do not exist, parents first."""
    blobs = root / "blobs"
    folders = [blobs, root / "incoming", *(blobs / f"{number:02x}" for number in range(SHARDS))]
    return [folder for folder in folders if not os.path.lexists(folder)]


def make_folders(root: Path) -> int:
    """Make the folders of a vault that do not exist, durably, and return how many those were.

    What lies in the place of one, such as a link, stays. Raises StorageError.
    """
    made = 0
    try:
        for folder in missing_folders(root):
            folder.mkdir(mode=0o700)
            made += 1
        _sync_path(root / "blobs")
        _sync_root(root)
    except OSError as error:
        raise StorageError(f"the vault's folders cannot be made: {error.strerror}") from error
    return made


def write_beside(root: Path, name: str, data: bytes) -> None:
    """Write a file of the vault's own folder durably: the old one or the new one is there.

    Raises StorageError.
    """
    waiting = os.urandom(NAME_BYTES).hex()
    try:
        folder = os.open(root / "incoming", FOLDER)
        try:
            fill_file(make_file(waiting, folder), data)
            os.rename(waiting, root / name, src_dir_fd=folder)
        except BaseException:
            unlink(waiting, folder)
            raise
        finally:
            os.close(folder)
        _sync_root(root)
    except OSError as error:
        raise StorageError(f"{name} cannot be written: {error.strerror}") from error


def _sync_root(root: Path) -> None:
    """Flush a vault's own folder, which may be reached by a link: a person chose where it lies."""
    _sync_path(root, FOLDER & ~os.O_NOFOLLOW)


def _sync_path(path: Path, flags: int = FOLDER) -> None:
    fd = os.open(path, flags)
    try:
        sync(fd)
    finally:
        os.close(fd)


def _read_exactly(fd: int, size: int) -> bytearray:
    data = bytearray(size)
    rest = memoryview(data)
    while rest:
        got = os.readv(fd, [rest])
        if got == 0:
            raise DamagedError("a sealed file is cut short")
        rest = rest[got:]
    return data
