"""What `--model` names: a bundle on the shelf, or a checkpoint that was never exported."""

import os
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from safelight.exits import UsageError

if TYPE_CHECKING:
    from engine import Bundle, Choice
    from export import Unexported
    from safelight.settings import Settings
    from safelight.shelf import Shelf

__all__ = ["Model", "open_model"]

SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")  # the pickles to be refused by name


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """An opened model. unexported: the checkpoint, where it is one that torch runs as it is."""

    bundle: "Bundle"
    unexported: "Unexported | None" = None

    def choose(self, settings: "Settings") -> "Choice":
        """Choose what computes. Raises DeviceError where it cannot be had for this model."""
        from engine import choose

        choice = choose(settings["device"], settings["precision"], settings.cache)
        return choice if self.unexported is None else self.unexported.on(choice)


def open_model(settings: "Settings", shelf: "Shelf") -> Model:
    """Open the model of the settings and verify it; a name on the shelf goes before a file's.

    Raises BundleError, and for a checkpoint DeviceError where another device than torch is asked
    for or a library is missing, and what `export` raises for what it cannot read.
    """
    name = settings["model"]
    source = None if _on_shelf(name, shelf) else _checkpoint(name)
    if source is None:
        return Model(bundle=shelf.open(name))
    from engine.devicenames import parse_device
    from export.child import OFFLINE
    from export.unexported import Unexported, not_torch

    device = parse_device(settings["device"])
    if device.kind != "torch":
        raise not_torch(source, str(device))
    for variable, value in OFFLINE.items():  # before the libraries are imported
        os.environ.setdefault(variable, value)
    opened = Unexported.open(source, cache=settings.cache, hash_cache=shelf.hash_cache)
    return Model(bundle=opened.bundle, unexported=opened)


def _on_shelf(name: str, shelf: "Shelf") -> bool:
    return any(entry.name == name for entry in shelf.entries())


def _checkpoint(name: str) -> Path | None:
    """Give the checkpoint that a text names by its path, or None where it names none."""
    path = Path(name)
    try:
        is_bundle = (path / "safelight.json").is_file()
        is_folder = (path / "model_index.json").is_file()
        is_one_file = path.suffix.lower() in SUFFIXES and path.is_file()
    except OSError:  # too long for a file's name, or not to be looked at
        return None
    if is_bundle:
        raise UsageError(
            f"'{path.name}' is a bundle: models are named as they are on the shelf",
            hint=f"`safelight models add {quote(str(path))} --to NAME` puts it there",
        )
    return path if is_folder or is_one_file else None
