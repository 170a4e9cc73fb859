"""Replay a trace of calls (recording_calls.c) on a model of a disk that may lose power.

The rules are the weakest that POSIX and the file systems in use promise:

- fsync of a file makes its content and size durable, and not its name; fsync of a folder makes
  the names in it durable, and nothing of the files;
- an unsynced write or truncation may be lost or kept, each for itself, a write by sectors of 512
  bytes, a sector torn anywhere; a file may have grown and hold zeros where it grew;
- an unsynced change of names may be lost. Within one folder the first ones survive (`ordered`),
  or any of them; different folders know nothing of each other;
- a rename is one change, whole or lost. Between two folders it is kept once the new folder is
  synced; until the old one is synced after that, the old name may be there as well;
- what happens below the folders named `safe` is durable at once.
"""

import os
import random
import shutil
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

__all__ = ["Call", "Disk", "State", "materialise", "read_trace", "states"]

SECTOR = 512
_HEAD = struct.Struct("=cQQII")
_TORN = 0.1  # of the surviving sectors

State = dict[str, bytes | None]  # path: content, or None for a folder; parents come first


class Call(NamedTuple):
    """One record of the log; recording_calls.c says what the fields mean for each kind."""

    kind: str
    inode: int
    at: int
    path: str
    data: bytes


def read_trace(log: Path) -> list[Call]:
    """Return the calls of a log, in order."""
    raw = log.read_bytes()
    calls: list[Call] = []
    at = 0
    while at < len(raw):
        kind, inode, place, path_bytes, data_bytes = _HEAD.unpack_from(raw, at)
        start = at + _HEAD.size + path_bytes
        path = raw[at + _HEAD.size : start].decode()
        at = start + data_bytes
        calls.append(Call(kind.decode(), inode, place, path, raw[start:at]))
    return calls


@dataclass(eq=False)
class File:
    """A file: what is durable, then (offset, bytes) written and (size, None) truncated."""

    durable: bytes = b""
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)

    def sync(self) -> None:
        self.durable = self.now()
        self.pending.clear()

    def now(self) -> bytes:
        """Return the content that a program sees."""
        return _written(self.durable, self.pending)


@dataclass(eq=False)
class Change:
    """A change of names in one folder; None: the name goes.

    first: the other half of a rename between folders, which must have survived before this one.
    """

    names: Sequence[tuple[str, "File | Folder | None"]]
    first: "Change | None" = None
    durable: bool = False


@dataclass(eq=False)
class Folder:
    """A folder: the names that are durable, those that a program sees, and what lies between."""

    durable: dict[str, "File | Folder"] = field(default_factory=dict)
    now: dict[str, "File | Folder"] = field(default_factory=dict)
    pending: list[Change] = field(default_factory=list)

    def change(
        self, *names: tuple[str, "File | Folder | None"], first: Change | None = None
    ) -> Change:
        """Do and return a change."""
        change = Change(names, first)
        _rename(self.now, change)
        self.pending.append(change)
        return change

    def sync(self) -> None:
        waiting: list[Change] = []
        for change in self.pending:
            if change.first is not None and not change.first.durable:
                waiting.append(change)
                continue
            _rename(self.durable, change)
            change.durable = True
        self.pending = waiting


class Disk:
    """The folder in which the calls happened. there: what it durably held before."""

    def __init__(self, there: State, *, safe: Iterable[str] = ()) -> None:
        self.root = Folder()
        self._safe = frozenset(safe)
        self._files: dict[int, File] = {}
        for path, content in there.items():
            folder, name = self._place(path)
            folder.change((name, Folder() if content is None else File(content)))
            folder.sync()

    def apply(self, call: Call) -> None:
        """Do one call; raises ValueError for one that the model does not know."""
        if call.kind == "!":
            return
        if (call.kind, call.path) == ("s", "."):
            self.root.sync()
            return
        folder, name = self._place(call.path)
        match call.kind:
            case "c":
                file = self._files[call.inode] = File()  # an inode's number may come again
                folder.change((name, file))
            case "w":
                self._file(call).pending.append((call.at, call.data))
            case "t":
                self._file(call).pending.append((call.at, None))
            case "s":
                (folder.now[name] if call.at else self._file(call)).sync()
            case "m":
                folder.change((name, Folder()))
            case "u":
                folder.change((name, None))
            case "r" | "l":
                self._rename(call, (folder, name))
            case _:
                raise ValueError(f"the replay does not know {call.data.decode()} on {call.path}")
        self._settle(call.path)

    def _file(self, call: Call) -> File:
        if call.inode not in self._files:  # it was there before the first call
            folder, name = self._place(call.path)
            file = folder.now[name]
            assert isinstance(file, File)
            self._files[call.inode] = file
        return self._files[call.inode]

    def _rename(self, call: Call, old: tuple[Folder, str]) -> None:
        (folder, name), (target, new) = old, self._place(call.data.decode())
        node = folder.now[name]
        if call.kind == "l":
            target.change((new, node))
        elif folder is target:
            folder.change((name, None), (new, node))
        else:
            folder.change((name, None), first=target.change((new, node)))

    def _place(self, path: str) -> tuple[Folder, str]:
        *parents, name = os.path.normpath(path.removesuffix(" (deleted)")).split("/")
        folder = self.root
        for parent in parents:
            inner = folder.now[parent]
            assert isinstance(inner, Folder)
            folder = inner
        return folder, name

    def _settle(self, path: str) -> None:
        top = path.split("/", maxsplit=1)[0]
        if top in self._safe:
            for node in _nodes(self.root.now[top]):
                node.sync()

    def nodes(self) -> list["File | Folder"]:
        """Return all files and folders that may be there, in an order that is always the same."""
        return list(dict.fromkeys(_nodes(self.root)))


def _nodes(node: "File | Folder") -> Iterator["File | Folder"]:
    yield node
    if isinstance(node, Folder):
        late = (inner for change in node.pending for _, inner in change.names if inner is not None)
        for inner in (*node.durable.values(), *late):
            yield from _nodes(inner)


def _rename(names: dict[str, "File | Folder"], change: Change) -> None:
    for name, node in change.names:
        if node is None:
            names.pop(name, None)
        else:
            names[name] = node


def _written(content: bytes, writes: Iterable[tuple[int, bytes | None]]) -> bytes:
    now = bytearray(content)
    for at, data in writes:
        end = at + len(data or b"")
        if len(now) < end:
            now += bytes(end - len(now))
        if data is None:
            del now[at:]
        else:
            now[at:end] = data
    return bytes(now)


class Survival(NamedTuple):
    """What survives of each folder's pending changes, and of each file."""

    name: str
    changes: Callable[[list[Change]], Iterable[Change]]
    content: Callable[[File], bytes]


def states(
    disk: Disk, seeds: Iterable[int], *, ordered: bool = True
) -> Iterator[tuple[str, State]]:
    """Yield named disks that a power cut may leave now, the four corners and one for each seed."""
    ways = [
        Survival("nothing unsynced", _none, lambda file: file.durable),
        Survival("everything", list, File.now),
        Survival("names and no data", list, lambda file: file.durable),
        Survival("names and zeros", list, _zeros),
        Survival("data and no names", _none, File.now),
    ]
    ways += [_random(seed, ordered=ordered) for seed in seeds]
    nodes = disk.nodes()
    for way in ways:
        yield way.name, _state(disk, nodes, way)


def _none(_changes: list[Change]) -> list[Change]:
    return []


def _zeros(file: File) -> bytes:
    return file.durable.ljust(len(file.now()), b"\0")


def _random(seed: int, *, ordered: bool) -> Survival:
    chance = random.Random(seed)  # noqa: S311 - a schedule, no secret

    def changes(pending: list[Change]) -> list[Change]:
        if ordered:
            return pending[: chance.randint(0, len(pending))]
        return [change for change in pending if chance.random() < 0.5]

    def content(file: File) -> bytes:
        kept = chance.choice([0.1, 0.5, 0.9])
        pieces = [piece for write in file.pending for piece in _sectors(*write)]
        survived = [piece for piece in pieces if chance.random() < kept]
        for number, (at, data) in enumerate(survived):
            if data is not None and chance.random() < _TORN:
                survived[number] = (at, data[: chance.randint(0, len(data))])
        content = _written(file.durable, survived)
        return content.ljust(chance.choice([0, 0, len(file.now())]), b"\0")

    return Survival(f"random {seed}", changes, content)


def _sectors(at: int, data: bytes | None) -> Iterator[tuple[int, bytes | None]]:
    if data is None:
        yield at, None
        return
    end = at + len(data)
    edges = [at, *range(at - at % SECTOR + SECTOR, end, SECTOR), end]
    for start, stop in pairwise(edges):
        yield start, data[start - at : stop - at]


def _state(disk: Disk, nodes: Sequence["File | Folder"], way: Survival) -> State:
    folders = [node for node in nodes if isinstance(node, Folder) and node.pending]
    chosen = {change for folder in folders for change in way.changes(folder.pending)}
    contents = {n: way.content(n) for n in nodes if isinstance(n, File) and n.pending}
    state: State = {}

    def walk(folder: Folder, path: str) -> None:
        names = folder.durable
        if folder.pending:
            names = dict(names)
            for change in folder.pending:
                first = change.first
                if change in chosen and (first is None or first.durable or first in chosen):
                    _rename(names, change)
        for name, node in names.items():
            inner = f"{path}{name}"
            if isinstance(node, Folder):
                state[inner] = None
                walk(node, f"{inner}/")
            else:
                state[inner] = contents.get(node, node.durable)

    walk(disk.root, "")
    return state


def materialise(state: State, folder: Path) -> None:
    """Make a folder hold exactly a state, whatever it held before."""
    there: set[str] = set()

    def clear(place: Path, path: str) -> None:
        with os.scandir(place) as entries:
            for entry in entries:
                inner = f"{path}{entry.name}"
                is_folder = entry.is_dir(follow_symlinks=False)
                if inner in state and is_folder == (state[inner] is None):
                    there.add(inner)
                    if is_folder:
                        clear(place / entry.name, f"{inner}/")
                elif is_folder:
                    shutil.rmtree(entry.path)
                else:
                    Path(entry.path).unlink()

    clear(folder, "")
    for path, content in state.items():
        if content is not None:
            (folder / path).write_bytes(content)
        elif path not in there:
            (folder / path).mkdir(mode=0o700)
