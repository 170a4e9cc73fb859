"""Fetches a checkpoint from a hub into a folder: resumable, every hash compared, whole or unnamed.

Until everything is there and right it lies in a hidden folder beside, which a later call goes on
with.
"""

import errno
import hashlib
import json
import os
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from io import BufferedIOBase
from pathlib import Path

from engine.durable import flush_folder
from safelight.exclusive import locked
from safelight.exits import UsageError
from safelight.hub import Hub
from safelight.repository import HubError, RemoteFile, Repository

__all__ = ["SOURCE_NAME", "Order", "folder_name", "is_there", "pull"]

SOURCE_NAME = "safelight-source.json"
SOURCE_LIMIT = 1 << 20  # bytes of that file
CHUNK = 1 << 20  # bytes
OTHERS_WRITE = 0o022  # bits of a mode
SHORT_COMMIT = 12  # digits in a folder's name; the file beside holds all forty
Progress = Callable[[str, int], None]  # file's name, bytes done of the whole


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """What is to be fetched. revision: as it was asked for; hub: address; variant: of the weights.

    files: those of the repository that were chosen.
    """

    hub: str
    repository: Repository
    revision: str
    variant: str
    files: tuple[RemoteFile, ...]

    @property
    def bytes(self) -> int:
        """Add up the sizes of the files, in bytes."""
        return sum(file.bytes for file in self.files)


def folder_name(order: Order) -> str:
    """Name the folder of a checkpoint: owner--name@commit, with the variant where one was asked."""
    variant = f"-{order.variant}" if order.variant else ""
    commit = order.repository.commit[:SHORT_COMMIT]
    return f"{order.repository.id.replace('/', '--')}@{commit}{variant}"


def is_there(order: Order, folder: Path) -> bool:
    """Say whether the folder holds this checkpoint; raises UsageError if it holds another thing."""
    if not folder.exists():
        return False
    if folder.is_dir() and _same(folder, order):
        return True
    raise UsageError(f"'{folder}' exists already; it is not overwritten", hint="give another --to")


def pull(hub: Hub, order: Order, folder: Path, progress: Progress) -> None:
    """Fetch the files into the new folder `folder`, which appears when all of it is right.

    Raises HubError, or OSError where the disk is too small; what came stays for the next call.
    """
    with _beside(folder, order) as partial:
        done = 0
        missing: list[RemoteFile] = []
        for file in order.files:
            if _is_right(partial / file.name, file):
                done += file.bytes
            else:
                missing.append(file)
        _check_room(partial, missing)
        for file in missing:

            def advance(count: int, name: str = file.name) -> None:
                nonlocal done
                done += count
                progress(name, done)

            _fetch(hub, order.repository, file, partial, advance)
        for part in {path.parent for path in partial.rglob("*")}:
            flush_folder(part)
        partial.rename(folder)
        flush_folder(folder.parent)


def _fetch(
    hub: Hub,
    repository: Repository,
    file: RemoteFile,
    partial: Path,
    advance: Callable[[int], None],
) -> None:
    target = partial / file.name
    target.parent.mkdir(parents=True, exist_ok=True)
    waiting = _waiting(target)
    with waiting.open("a+b") as stream:
        if stream.tell() > file.bytes:
            stream.seek(0)
            stream.truncate()
        advance(stream.tell())
        hub.fetch(repository, file, stream, advance)
        stream.flush()
        os.fsync(stream.fileno())
        stream.seek(0)
        right = _digest(stream, file) == _wanted(file)
    if not right:
        waiting.unlink()
        raise HubError(
            f"'{file.name}' is not what the hub announced: its hash differs",
            hint="it was damaged or changed on its way, and is not kept: try again",
        )
    waiting.rename(target)


def _waiting(target: Path) -> Path:
    return target.with_name(f"{target.name}.incomplete")


def _is_right(path: Path, file: RemoteFile) -> bool:
    """Say whether an earlier call brought this file; what is wrong is removed."""
    try:
        with path.open("rb") as stream:
            right = _digest(stream, file) == _wanted(file)
    except FileNotFoundError:
        return False
    if not right:
        path.unlink()
    return right


def _wanted(file: RemoteFile) -> str:
    return file.sha256 or file.blob_id


def _digest(stream: BufferedIOBase, file: RemoteFile) -> str:
    """Hash as the hub did: sha256 of files in large storage, git's blob sha1 of the others."""
    if file.sha256:
        return hashlib.file_digest(stream, "sha256").hexdigest()
    # git's own hash of small files; nothing stronger is offered for them.
    hashing = hashlib.sha1(f"blob {file.bytes}\0".encode(), usedforsecurity=False)
    while data := stream.read(CHUNK):
        hashing.update(data)
    return hashing.hexdigest()


@contextmanager
def _beside(folder: Path, order: Order) -> Iterator[Path]:
    """Give the hidden folder that this download goes on in; it stays if anything came."""
    partial = folder.with_name(f".{folder.name}.partial")
    made_parent = not partial.parent.exists()
    with suppress(FileExistsError):
        partial.mkdir(parents=True, mode=0o700)
    _check_own(partial)
    with locked(partial, "another process fetches this checkpoint"):
        if not _same(partial, order):
            for path in partial.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            _write_source(partial, order)
        try:
            yield partial
        finally:
            if partial.exists() and not _holds_anything(partial):
                shutil.rmtree(partial)
                if made_parent:
                    with suppress(OSError):  # not empty: another download has come
                        partial.parent.rmdir()


def _check_own(partial: Path) -> None:
    """Refuse a folder that another user made or can write to: its links would lead our writes."""
    state = partial.lstat()
    own = stat.S_ISDIR(state.st_mode)
    if sys.platform != "win32":
        own = own and state.st_uid == os.geteuid() and not state.st_mode & OTHERS_WRITE
    if not own:
        raise UsageError(
            f"'{partial}' is no folder that you alone can write to; nothing is fetched into it",
            hint="remove it, or give another --to",
        )


def _holds_anything(partial: Path) -> bool:
    return any(
        path.is_file() and path.stat().st_size and path.name != SOURCE_NAME
        for path in partial.rglob("*")
    )


def _check_room(partial: Path, missing: list[RemoteFile]) -> None:
    waiting = [_waiting(partial / file.name) for file in missing]
    have = sum(path.stat().st_size for path in waiting if path.exists())
    needed = sum(file.bytes for file in missing) - have
    free = shutil.disk_usage(partial).free
    if needed > free:
        raise OSError(
            errno.ENOSPC,
            f"the download needs {needed / 1e6:.0f} MB and the disk has {free / 1e6:.0f} MB free",
        )


def _source(order: Order) -> dict[str, object]:
    return {
        "kind": "hub",
        "hub": order.hub,
        "repository": order.repository.id,
        "revision": order.revision,
        "commit": order.repository.commit,
        "variant": order.variant,
        "licence": order.repository.licence,
        "files": [asdict(file) for file in order.files],
    }


def _write_source(folder: Path, order: Order) -> None:
    with (folder / SOURCE_NAME).open("w", encoding="utf-8") as stream:
        json.dump(_source(order), stream, indent=2, sort_keys=True)
        stream.write("\n")
        stream.flush()
        os.fsync(stream.fileno())


def _same(folder: Path, order: Order) -> bool:
    """Say whether what lies in the folder was fetched for the same order."""
    try:
        with (folder / SOURCE_NAME).open("rb") as stream:
            found = json.loads(stream.read(SOURCE_LIMIT))
    except (OSError, ValueError):
        return False
    wanted = _source(order)
    keys = ("hub", "repository", "commit", "variant")
    return isinstance(found, dict) and all(found.get(key) == wanted[key] for key in keys)
