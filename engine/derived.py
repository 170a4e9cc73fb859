"""What was derived of a bundle for one target, in the cache: found by all that it was made of.

`CACHE/derived/<the key's first 32 digits>/` holds the files and `derived.json`, which names the
whole key, every file with size and sha256, and the builder's report. What does not verify is not
used; a folder that others can write to is not used at all, since a network is trusted like code.
"""

import dataclasses
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from engine.durable import flush_folder, flush_tree
from engine.errors import BundleError, EngineError, RequestError
from engine.hashes import HashCache
from engine.jsonfile import Fields, read_json
from engine.manifest import FILE, HEX, MAX_BYTES, NAME, FileEntry

__all__ = ["Derived", "DerivedKey", "Shape", "drop", "find", "fitting", "listed", "write"]

FORMAT_VERSION = 1
RECORD_NAME = "derived.json"
RECORD_LIMIT = 1 << 20  # bytes; ours have 2 to 4 KiB
FOLDERS_LIMIT = 4096  # derived forms that are looked through; a shelf has tens
SHAPE = re.compile(r"(\d{1,4})x(\d{1,4})(?:x(\d{1,2}))?")
MAX_SIDE = 8192  # pixels, as in a request
MAX_BATCH = 64  # pictures
WORDS = r"[^\x00-\x1f]{1,200}"


@dataclass(frozen=True, order=True, slots=True)
class Shape:
    """Give the sizes that a network is made for. width, height: pixels; batch: pictures."""

    width: int
    height: int
    batch: int = 1

    @classmethod
    def parse(cls, text: str) -> "Shape":
        """Read WIDTHxHEIGHT or WIDTHxHEIGHTxBATCH. Raises RequestError."""
        found = SHAPE.fullmatch(text)
        sizes = [int(part) for part in found.groups("1")] if found else [0, 0, 0]
        good = all(8 <= side <= MAX_SIDE and side % 8 == 0 for side in sizes[:2])
        if not good or not 1 <= sizes[2] <= MAX_BATCH:
            raise RequestError(
                f"'{text}' is no shape of pictures",
                hint=f"WIDTHxHEIGHT or WIDTHxHEIGHTxBATCH, as 512x512: multiples of 8 up to "
                f"{MAX_SIDE}, at most {MAX_BATCH} pictures",
            )
        return cls(*sizes)

    def __str__(self) -> str:
        """Write the shape as it stands in keys and folder names."""
        return f"{self.width}x{self.height}x{self.batch}"


@dataclass(frozen=True, kw_only=True, slots=True)
class DerivedKey:
    """All that a derived form depends on.

    identity: the bundle's hash, which stands for its graphs and weights. shapes: of pictures,
    sorted; none for free sizes. libraries: distribution -> version, of those that read the form.
    """

    identity: str
    target: str
    precision: str
    device: str
    shapes: tuple[str, ...]
    libraries: Mapping[str, str]

    @property
    def digest(self) -> str:
        """Hash the key: hex sha256 of its canonical JSON."""
        fields = {"format_version": FORMAT_VERSION} | dataclasses.asdict(self)
        text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def differs(self, other: "DerivedKey") -> str:
        """Name the first field in which another key differs, with both values, or give ''."""
        for name, value in dataclasses.asdict(self).items():
            theirs = getattr(other, name)
            if value != theirs:
                return f"{name} is {_plain(theirs)}, needed is {_plain(value)}"
        return ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Derived:
    """One derived form on the disk. report: what its builder measured, JSON values."""

    folder: Path
    key: DerivedKey
    files: Mapping[str, FileEntry]
    report: Mapping[str, object]

    @property
    def bytes(self) -> int:
        """Add up the sizes of its files, in bytes."""
        return sum(entry.bytes for entry in self.files.values())

    def verify(self, cache: Path) -> None:
        """Compare every file with its hash, remembered in the cache. Raises BundleError."""
        with HashCache.open(cache / "hashes.json") as hashes:
            for name, entry in self.files.items():
                path = self.folder / name
                if path.is_symlink() or not path.is_file():
                    raise BundleError(f"the derived form lacks {name}")
                if path.stat().st_size != entry.bytes or hashes.sha256(path) != entry.sha256:
                    raise BundleError(f"{name} of the derived form is not what was written")


def find(
    cache: Path, key: DerivedKey, said: Callable[[str], None] = lambda _: None
) -> Derived | None:
    """Give the verified form of exactly this key, or None; `said` is told why one is not used."""
    folder = _root(cache) / key.digest[:32]
    if not folder.is_dir():
        return None
    try:
        derived = _read(folder)
        difference = key.differs(derived.key)
        if difference:
            raise BundleError(f"its {difference}")
        derived.verify(cache)
    except EngineError as error:
        said(f"the derived form for {key.target} is not used: {error}")
        return None
    return derived


def fitting(cache: Path, key: DerivedKey) -> list[Derived]:
    """Give the forms of this key whatever their shapes, as their records say: `verify` them."""
    return [
        each
        for each in listed(cache, key.identity)
        if not dataclasses.replace(key, shapes=each.key.shapes).differs(each.key)
    ]


def listed(
    cache: Path, identity: str, said: Callable[[str], None] = lambda _: None
) -> Iterator[Derived]:
    """Yield all derived forms of a bundle as their records say; `said` is told of spoilt ones."""
    for folder in _folders(cache):
        try:
            derived = _read(folder)
        except EngineError as error:
            said(f"a derived form in {folder.name} is not used: {error}")
            continue
        if derived.key.identity == identity:
            yield derived


def write(cache: Path, key: DerivedKey, fill: Callable[[Path], Mapping[str, object]]) -> Derived:
    """Make the derived form of `key`: `fill` writes into an empty folder and gives the report.

    It is there whole or not at all: built beside, flushed, renamed; what `fill` raises leaves
    nothing behind. Raises BundleError for a report that would not read back.
    """
    root = _root(cache)
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    _check_private(root)
    _sweep(root, key)
    partial = root / f".{key.digest[:32]}.partial-{os.getpid()}"
    partial.mkdir(mode=0o700)
    try:
        report = dict(fill(partial))
        files = dict(_entries(partial))
        record = {
            "format_version": FORMAT_VERSION,
            "key": dataclasses.asdict(key),
            "files": {name: dataclasses.asdict(entry) for name, entry in files.items()},
            "report": report,
        }
        text = json.dumps(record, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
        (partial / RECORD_NAME).write_text(text + "\n", encoding="utf-8")
        if _read(partial).key != key:
            raise BundleError("the record of the derived form does not read back as written")
        flush_tree(partial)
        final = root / key.digest[:32]
        if final.exists():  # it did not verify, or it would have been used
            shutil.rmtree(final)
        partial.rename(final)
        flush_folder(root)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Derived(folder=final, key=key, files=files, report=report)


def drop(cache: Path, identity: str) -> int:
    """Remove every derived form of a bundle; gives the bytes that are free again."""
    freed = 0
    for derived in list(listed(cache, identity)):
        freed += derived.bytes
        shutil.rmtree(derived.folder)
    return freed


def _root(cache: Path) -> Path:
    return cache / "derived"


def _folders(cache: Path) -> list[Path]:
    try:
        found = sorted(_root(cache).iterdir())
    except OSError:
        return []
    named = (path for path in found if re.fullmatch("[0-9a-f]{32}", path.name) and path.is_dir())
    return list(named)[:FOLDERS_LIMIT]


def _read(folder: Path) -> Derived:
    _check_private(folder)
    top = Fields(read_json(folder / RECORD_NAME, RECORD_LIMIT), RECORD_NAME)
    version = top.integer("format_version", 0, 1 << 31)
    if version != FORMAT_VERSION:
        raise BundleError(f"{RECORD_NAME} has format version {version}, not {FORMAT_VERSION}")
    derived = Derived(
        folder=folder,
        key=_key(top.fields("key")),
        files=top.mapped("files", _file),
        report=top.mapping("report"),
    )
    top.done()
    for name in derived.files:
        Fields({"file": name}, f"{RECORD_NAME}: files").text("file", FILE)
    if derived.key.digest[:32] not in folder.name:
        raise BundleError(f"{RECORD_NAME} belongs into another folder")
    return derived


def _key(fields: Fields) -> DerivedKey:
    libraries = fields.fields("libraries")
    shapes = [Fields({"shape": each}, RECORD_NAME) for each in fields.items("shapes")]
    key = DerivedKey(
        identity=fields.text("identity", HEX),
        target=fields.text("target", NAME),
        precision=fields.text("precision", NAME),
        device=fields.text("device", WORDS),
        shapes=tuple(str(Shape.parse(each.text("shape"))) for each in shapes),
        libraries={name: libraries.text(name, WORDS) for name in libraries.each()},
    )
    fields.done()
    return key


def _file(fields: Fields) -> FileEntry:
    entry = FileEntry(
        bytes=fields.integer("bytes", 0, MAX_BYTES), sha256=fields.text("sha256", HEX)
    )
    fields.done()
    return entry


def _entries(folder: Path) -> Iterator[tuple[str, FileEntry]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            name = path.relative_to(folder).as_posix()
            yield name, FileEntry(bytes=path.stat().st_size, sha256=digest)


def _check_private(folder: Path) -> None:
    if not hasattr(os, "getuid"):  # Windows: the folder lies in the user's profile
        return
    state = folder.lstat()
    if state.st_uid != os.getuid() or state.st_mode & 0o022:
        raise BundleError(
            f"others can write to {folder.name}, so that nothing in it can be trusted",
            hint="chmod 700 the folder 'derived' in the cache",
        )


def _sweep(root: Path, key: DerivedKey) -> None:
    """Remove what killed builds of the same key left."""
    for old in root.glob(f".{key.digest[:32]}.partial-*"):
        number = old.name.rpartition("-")[2]
        if number == str(os.getpid()) or (number.isdecimal() and not _lives(int(number))):
            shutil.rmtree(old, ignore_errors=True)


def _lives(number: int) -> bool:
    if os.name == "nt":
        return True  # os.kill(pid, 0) ends the process there
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _plain(value: object) -> str:
    if isinstance(value, Mapping):
        pairs = cast("Mapping[str, object]", value).items()
        return ", ".join(f"{name} {each}" for name, each in pairs) or "none"
    if isinstance(value, tuple):
        return ", ".join(map(str, cast("tuple[object, ...]", value))) or "free"
    return str(value)[:80]
