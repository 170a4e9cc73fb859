"""List every file and folder of a vault in words: what it is for, and what it gives away."""

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from vault.blobs import SHARDS, FileNames
from vault.connection import translated
from vault.context import kind_of
from vault.envelope import blob_size
from vault.errors import DamagedError, NotFoundError
from vault.keystore import keystore_name
from vault.keystore.entry import anchor_entry, kek_entry
from vault.page import Held, read_page
from vault.session import Session
from vault.slots import keyring_place

__all__ = ["FileEntry", "inventory"]

KEK_BYTES = ANCHOR_BYTES = 32  # what the key store holds: a key; epoch, generation, root tag
_ABOUT = {
    "VAULT": (
        "names the format and the vault's random id",
        "That this is a safelight vault, and which one.",
    ),
    "index.sqlite": (
        "every key and all metadata, sealed",
        (
            "How many records there are, how long the metadata of each is to 256 bytes, what kinds "
            "of openers there are, and how often something changed."
        ),
    ),
    "index.sqlite-journal": (
        "undoes a change that was cut off",
        "Older sealed rows of the index.",
    ),
    "lock": ("keeps programs from disturbing each other", "Nothing: it is empty."),
}
_SEALED = (
    "How many files there are, the length of each to 12 % or better and when it was made; not its "
    "kind, nor whose it is."
)
_FOREIGN = "Whatever is in it: this program did not make it, and nothing seals it."
_KEY_STORE = "Whoever unlocks the key store sees the name, and so that there is such a vault."


@dataclass(frozen=True, kw_only=True)
class FileEntry:
    """A file, or `count` files of one purpose: their bytes, and what they tell without any key."""

    path: str
    purpose: str
    bytes: int
    reveals: str
    count: int = 1


@dataclass(repr=False)
class _Sealed:
    """The sealed files by purpose: counts, bytes, and the entries one by one if they are wanted."""

    every: bool
    counts: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    sizes: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    entries: list[FileEntry] = field(default_factory=list[FileEntry])
    named: FileNames = field(default_factory=FileNames)

    def add(self, file: str, size: int, purpose: str, record: str = "") -> None:
        """Count a file; file: its path in `blobs`. record: whose it is, in words."""
        if not self.every:
            self.counts[purpose] += 1
            self.sizes[purpose] += size
            return
        words = f"{purpose}, {record}" if record else purpose
        self.entries.append(_entry(f"blobs/{file}", words, size, _SEALED))

    def take(self, held: list[Held]) -> None:
        """Count the files of records."""
        for slot, seals in held:
            for seal in seals:
                size = blob_size(seal)
                self.named.add(seal.file, size)
                purpose = f"sealed {kind_of(seal.blob.kind).name.lower()}"
                record = f"{seal.blob.name} of record {slot.record_id.hex()}"
                self.add(_place(seal.file), size, purpose, record)

    def all(self) -> list[FileEntry]:
        """Return the entries: one a file, or one a purpose."""
        return self.entries + [
            _entry("blobs/", purpose, self.sizes[purpose], _SEALED, count)
            for purpose, count in sorted(self.counts.items())
        ]


def inventory(session: Session, *, every: bool = False) -> list[FileEntry]:
    """Return what the vault consists of, in its folder and in the key store.

    every: each sealed file by its name, instead of one entry a kind. Damage is passed over here;
    `verify` tells it.
    """
    with session.shared():
        beside = _beside(session.layout.root)
    return [*beside, *_sealed(session, every=every), *_key_store_entries(session)]


def _beside(root: Path) -> list[FileEntry]:
    """Return what lies in the vault's own folder, and in `incoming`."""
    entries: list[FileEntry] = []
    with translated():
        for path in sorted(root.iterdir()):
            if path.name in {"blobs", "incoming"}:
                continue
            purpose, reveals = _ABOUT.get(path.name, ("nothing of this vault", _FOREIGN))
            entries.append(_entry(_printable(path.name), purpose, path.lstat().st_size, reveals))
        waiting = [path.lstat().st_size for path in (root / "incoming").iterdir()]
    about = "sealed files that are being written"
    return [*entries, _entry("incoming/", about, sum(waiting), _SEALED, len(waiting))]


def _sealed(session: Session, *, every: bool) -> list[FileEntry]:
    files = _Sealed(every)
    number = 0
    while True:
        with session.shared(), session.ledger.reading():
            if number >= len(session.ledger.root.pages):
                waiting = set(session.ledger.pending()[0])
                break
            held, _problems = read_page(session.ledger, number)
        files.take(held)
        number += 1
    for shard in range(SHARDS):
        named = files.named.shard(shard)
        try:
            with session.shared():
                listing = session.blobs.listing(shard)
        except (DamagedError, NotFoundError):  # no such folder, or something in its place
            continue
        for found in listing:
            name = found.file(shard)
            if name is not None and name in named:
                continue
            path = f"{shard:02x}/{_printable(found.name)}"
            if name is None or not found.regular:
                files.entries.append(
                    _entry(f"blobs/{path}", "nothing of this vault", found.size, _FOREIGN)
                )
            elif name in waiting:
                files.add(path, found.size, "sealed file of a deleted record, about to go")
            else:
                files.add(path, found.size, "sealed file that no record names")
    return files.all()


def _key_store_entries(session: Session) -> list[FileEntry]:
    """Return the entries of this vault in the operating system's key store, by their names."""
    vault_id = session.ledger.vault_id
    with session.shared(), session.ledger.reading():
        place = keyring_place(session.index.slots())
    if place is None:
        return []
    store = keystore_name(place[0])
    kek, anchor = kek_entry(vault_id, place[1]), anchor_entry(vault_id)
    return [
        _entry(f"{store}: {kek}", "the key that opens the vault", KEK_BYTES, _KEY_STORE),
        _entry(
            f"{store}: {anchor}",
            "how far the vault was: an old copy is noticed",
            ANCHOR_BYTES,
            f"{_KEY_STORE} Its value counts the changes.",
        ),
    ]


def _entry(path: str, purpose: str, size: int, reveals: str, count: int = 1) -> FileEntry:
    return FileEntry(path=path, purpose=purpose, bytes=size, reveals=reveals, count=count)


def _place(file: bytes) -> str:
    name = file.hex()
    return f"{name[:2]}/{name}"


def _printable(name: str) -> str:
    """Return a name that somebody else may have chosen, without what could drive a terminal."""
    return name if name.isascii() and name.isprintable() else ascii(name)
