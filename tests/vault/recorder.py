"""Do vault acts under the recorder: `python -m tests.vault.recorder PATH KEYS ACT...`.

Runs with recording_calls.c preloaded, and marks its log: `begin` before an act, `done` as soon as
it has returned and is acknowledged, and then `holds` with all that the vault holds from there on.
"""

import ctypes
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import vault
from tests.vault.replay import Call
from tests.vault.worker import make, open_vault

__all__ = [
    "ACTS",
    "Contents",
    "Promise",
    "Stage",
    "act_at",
    "contents",
    "draft",
    "outcomes",
    "promises",
]

# id: [revision, in the trash, SHA-256 of the metadata, {blob: SHA-256 of its plaintext}]
Contents = dict[str, list[Any]]
Promise = list[Contents | None]  # what may be there; None: no vault, and `create` must work


@dataclass
class Stage:
    """Where the acts happen. ids: the records that were added, oldest first."""

    path: Path
    keys: Path
    vaults: list[vault.Vault] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)

    @property
    def vault(self) -> vault.Vault:
        """Return the vault, opened once for all acts that want it open."""
        if not self.vaults:
            self.vaults.append(open_vault(self.path, self.keys))
        return self.vaults[0]

    def close(self) -> None:
        """Close the vault; the next act that wants it opens it again."""
        while self.vaults:
            self.vaults.pop().close()

    def add(self, *names: str) -> None:
        self.ids += [record.id for record in self.vault.add([draft(name) for name in names])]


def draft(name: str) -> vault.Draft:
    """Return a draft with two blobs, of three chunks and of one, and metadata of about 1 kB."""
    picture = hashlib.sha512(name.encode()).digest() * 600
    blobs = [
        vault.BlobDraft("picture", vault.Kind.PICTURE, "image/png", picture),
        vault.BlobDraft("thumbnail", vault.Kind.THUMBNAIL, "image/png", picture[:700]),
    ]
    return vault.Draft(vault.Kind.PICTURE, {"name": name, "prompt": "orchard " * 120}, blobs)


def contents(opened: vault.Vault) -> Contents:
    """Return all that an open vault holds; raises VaultError when any of it does not open."""
    found: Contents = {}
    for trashed in (False, True):
        for record in opened.list(trashed=trashed):
            text = json.dumps(record.metadata, sort_keys=True).encode()
            blobs = {name: _digest(opened.read(record.id, name)) for name in record.blobs}
            found[record.id] = [record.revision, trashed, _digest(text), blobs]
    return found


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _edit(stage: Stage) -> None:
    stage.vault.edit(stage.ids[0], lambda data: {**data, "note": "b" * 300})


# By name, so that a test chooses which it records; ids are in the order of `add` and `batch`.
ACTS: dict[str, Callable[[Stage], object]] = {
    "create": lambda stage: make(stage.path, stage.keys),
    "open": lambda stage: stage.vault,
    "add": lambda stage: stage.add("one"),
    "batch": lambda stage: stage.add("two", "three", "four"),
    "edit": _edit,
    "trash": lambda stage: stage.vault.trash(stage.ids[:2]),
    "untrash": lambda stage: stage.vault.untrash(stage.ids[1:2]),
    "delete": lambda stage: stage.vault.delete(stage.ids[:1]),
    "discard": lambda stage: stage.vault.trash(stage.ids[2:3]),
    "purge": lambda stage: stage.vault.purge(),
    "rotate": lambda stage: stage.vault.keys.rotate(deep=True),
    "reopen": lambda stage: stage.close(),
}


def act_at(trace: Sequence[Call], act: str) -> int:
    """Return the number of the call at which an act began."""
    return [call.data for call in trace].index(f"begin {act}".encode())


def outcomes(trace: Sequence[Call]) -> list[Contents]:
    """Return what the vault held after each act."""
    marks = [call.data for call in trace if call.kind == "!"]
    return [json.loads(text[6:]) for text in marks if text.startswith(b"holds ")]


def promises(trace: Sequence[Call], now: Contents | None = None) -> Iterator[Promise]:
    """Yield for each call what may be there when it was the last one; now: before the first."""
    coming = iter(outcomes(trace))
    promise: Promise = [now]
    for call in trace:
        if call.kind == "!" and call.data.startswith(b"begin "):
            promise = [promise[-1], next(coming)]
        elif call.kind == "!" and call.data == b"done":
            promise = promise[-1:]
        yield promise if promise[0] != promise[-1] else promise[-1:]


def main() -> None:
    """Do the acts in their order."""
    mark = ctypes.CDLL(os.environ["LD_PRELOAD"]).recorder_mark
    path, keys, *acts = sys.argv[1:]
    stage = Stage(Path(path), Path(keys))
    for act in acts:
        mark(f"begin {act}".encode())
        ACTS[act](stage)
        mark(b"done")
        mark(f"holds {json.dumps(contents(stage.vault))}".encode())
    stage.close()


if __name__ == "__main__":
    main()
