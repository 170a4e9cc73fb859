"""The model shelf: the bundle in the package (`pocket`) and those in the user's models folder."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engine.durable import flush_folder
from safelight.exits import UsageError

if TYPE_CHECKING:
    from engine import Bundle

__all__ = ["Shelf", "ShelfEntry", "check_name"]

_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789._-")
MAX_NAME = 64  # characters of a bundle's name; it becomes a folder name


@dataclass(frozen=True, slots=True)
class ShelfEntry:
    """A bundle's name and folder; `shipped` is true for those inside the package."""

    name: str
    path: Path
    shipped: bool


def check_name(name: str) -> str:
    """Give the name back when it can be a folder on every system; raises UsageError otherwise."""
    good = 0 < len(name) <= MAX_NAME and set(name) <= _NAME_CHARACTERS and name[0].isalnum()
    if not good or name.endswith("."):
        raise UsageError(
            f"'{name}' cannot be the name of a model",
            hint=f"a to z, 0 to 9, '.', '_' and '-', at most {MAX_NAME}, letter or digit first",
        )
    return name


class Shelf:
    """Find bundles by name. The user's folder wins over the shipped one of the same name."""

    def __init__(self, models: Path, cache: Path) -> None:
        self.models = models
        self.hash_cache = cache / "hashes.json"

    def entries(self) -> Iterator[ShelfEntry]:
        """Yield every bundle on the shelf by name, broken ones too (opening says what is wrong)."""
        found = {entry.name: entry for entry in self._in(_shipped_folder(), shipped=True)}
        found |= {entry.name: entry for entry in self._in(self.models, shipped=False)}
        yield from (found[name] for name in sorted(found))

    def find(self, name: str) -> ShelfEntry:
        """Give the entry of this name; raises BundleError with the names there are."""
        from difflib import get_close_matches

        from engine.errors import BundleError

        entries = {entry.name: entry for entry in self.entries()}
        if name in entries:
            return entries[name]
        near = get_close_matches(name, list(entries), n=1)
        meant = f"; did you mean '{near[0]}'?" if near else ""
        raise BundleError(
            f"there is no model '{name}' on the shelf{meant}",
            hint=f"there are: {', '.join(entries) or 'none'}; `safelight export` makes one",
        )

    def open(self, name: str) -> "Bundle":
        """Open a bundle and verify its hashes (cached by size, time and inode)."""
        from engine import Bundle

        return Bundle.open(self.find(name).path, hash_cache=self.hash_cache)

    def free_path(self, name: str) -> Path:
        """Give the folder of a new bundle of this name; raises UsageError if there is one."""
        target = self.models / check_name(name)
        if target.exists() or target.is_symlink():
            raise UsageError(f"there is a model '{name}' already; it is not overwritten")
        return target

    def removable(self, name: str) -> None:
        """Raise BundleError where there is no such bundle, UsageError if it is the shipped one."""
        if self.find(name).shipped:
            raise UsageError(
                f"'{name}' is shipped inside the program and is not removed",
                hint="only models in your own models folder can be removed",
            )

    def remove(self, name: str) -> int:
        """Remove the user's bundle of this name and nothing else; give the freed bytes.

        It leaves the shelf in one step, before its files go. A link goes alone, not what it names.
        Raises as `removable` does.
        """
        self.removable(name)
        gone = self.models / f".{name}.removed-{os.getpid()}"
        (self.models / name).rename(gone)  # whatever else is called so: only what lies here
        flush_folder(self.models)
        freed = _remove(gone)
        for old in self.models.glob(".*.removed-*"):  # what a killed removal left
            shutil.rmtree(old, ignore_errors=True)
        return freed

    def forget_hashes(self) -> None:
        """Forget remembered hashes: one of them called a damaged file good."""
        self.hash_cache.unlink(missing_ok=True)

    @staticmethod
    def _in(folder: Path, *, shipped: bool) -> Iterator[ShelfEntry]:
        try:
            children = sorted(folder.iterdir())
        except OSError:
            return
        for child in children:
            if child.is_dir() and set(child.name) <= _NAME_CHARACTERS and child.name[0] not in "._":
                yield ShelfEntry(child.name, child, shipped)


def _remove(path: Path) -> int:
    """Remove a folder or a link, and give the bytes of its files."""
    if path.is_symlink():
        path.unlink()
        return 0
    freed = sum(each.lstat().st_size for each in path.rglob("*") if each.is_file())
    shutil.rmtree(path)
    return freed


def _shipped_folder() -> Path:
    return Path(__file__).with_name("models")
