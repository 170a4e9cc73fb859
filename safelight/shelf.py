"""The model shelf: the bundle in the package (`pocket`) and those in the user's models folder."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

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
        self._hash_cache = cache / "hashes.json"

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

        return Bundle.open(self.find(name).path, hash_cache=self._hash_cache)

    @staticmethod
    def _in(folder: Path, *, shipped: bool) -> Iterator[ShelfEntry]:
        try:
            children = sorted(folder.iterdir())
        except OSError:
            return
        for child in children:
            if child.is_dir() and set(child.name) <= _NAME_CHARACTERS and child.name[0] not in "._":
                yield ShelfEntry(child.name, child, shipped)


def _shipped_folder() -> Path:
    return Path(__file__).with_name("models")
