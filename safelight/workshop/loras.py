"""LoRAs of the user's folder, and bundles to which they are added: what the studio's list does."""

import hashlib
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from safelight.exits import UsageError

if TYPE_CHECKING:
    from safelight.shelf import Shelf

__all__ = ["Loras"]

SUFFIX: Final = ".safetensors"
MOST: Final = 500  # files that are listed
AT_ONCE: Final = 8  # LoRAs of one bundle
_PLAIN: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789._-")  # characters of a name
STRONGEST: Final = 10.0  # scale; beyond, pictures are noise
Progress = Callable[[str, float], None]


class Loras:
    """The LoRA files of a folder. Safe from several threads: one bundle is made at a time."""

    def __init__(self, folder: Path, shelf: "Shelf") -> None:
        self.folder = folder
        self._shelf = shelf
        self._turn = threading.Lock()

    def names(self) -> list[str]:
        """List the files by name, without their suffix. A folder that is not there has none."""
        try:
            found = sorted(each.stem for each in self.folder.iterdir() if each.suffix == SUFFIX)
        except OSError:
            return []
        return found[:MOST]

    def add(self, base: str, scales: Mapping[str, float], progress: Progress) -> str:
        """Make a bundle of `base` with LoRAs added, or find the one that is there; gives its name.

        scales: by LoRA's name, as it is listed. progress: called with a stage's name and the done
        fraction, 0..1. Raises UsageError, and what the exporter raises: its libraries are missing,
        a LoRA does not fit.
        """
        from export import Options, Reweighting, is_reweighted, reweight_bundle

        files = tuple((self._file(name), _checked(name, scale)) for name, scale in scales.items())
        if not 0 < len(files) <= AT_ONCE:
            raise UsageError(f"{len(files)} LoRAs are chosen", hint=f"choose 1 to {AT_ONCE}")
        name = _name(base, scales)
        order = Reweighting(base=self._shelf.find(base).path, loras=files)
        target = self._shelf.models / name
        cache = self._shelf.hash_cache
        with self._turn:
            if target.exists():
                if is_reweighted(order, target, hash_cache=cache):
                    return name
                raise UsageError(
                    f"there is a model '{name}' already, made of something else",
                    hint=f"`safelight models rm {name}` makes room for it",
                )
            self._shelf.models.mkdir(parents=True, exist_ok=True, mode=0o700)
            options = Options(hash_cache=cache)
            reweight_bundle(
                order, target, name=name, licence=None, progress=progress, options=options
            )
        return name

    def _file(self, name: str) -> Path:
        if name not in self.names():  # which also keeps every path inside the folder
            raise UsageError("there is no such LoRA in the folder")
        return self.folder / f"{name}{SUFFIX}"


def _checked(name: str, scale: float) -> float:
    if not -STRONGEST <= scale <= STRONGEST or scale == 0:
        raise UsageError(
            f"the scale of LoRA '{name}' is {scale:g}",
            hint=f"from {-STRONGEST:g} to {STRONGEST:g}, and not 0",
        )
    return scale


def _name(base: str, scales: Mapping[str, float]) -> str:
    """Give the bundle's name: what it is made of, as far as a folder's name can say that."""
    from safelight.shelf import MAX_NAME

    parts = [base, *(f"{name}-{scale:g}" for name, scale in scales.items())]
    whole = "-".join(parts)
    plain = "".join(each if each in _PLAIN else "-" for each in whole.lower()).rstrip(".")
    if plain == whole and len(plain) <= MAX_NAME:
        return plain
    mark = hashlib.sha256(whole.encode()).hexdigest()[:6]  # two that read alike are two
    return f"{plain[: MAX_NAME - 7]}-{mark}"
