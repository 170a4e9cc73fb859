"""A checkpoint that is drawn with as it is, by torch: no graph is made of it, and nothing proven.

What the engine reads from a bundle's folder (tokenizers, configurations) is written into the cache,
under the checkpoint's own hash. The weights stay where they are.
"""

import os
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from engine.backends.torch import TorchBackend
from engine.bundle import Bundle
from engine.errors import DeviceError
from export.checkpoint import Checkpoint, fingerprint
from export.description import describe_checkpoint
from export.errors import SourceError
from export.ingredients import Ingredients
from export.sidefiles import side_files

if TYPE_CHECKING:
    from engine.devices import Choice

__all__ = ["UNPROVEN", "Unexported", "not_torch"]

NEEDED = ("torch", "diffusers", "transformers")
UNPROVEN = "the checkpoint as it is, never exported: there is no parity report"


@dataclass(frozen=True, kw_only=True)
class Unexported:
    """An opened checkpoint. bundle: describes it to the engine; its hash is the checkpoint's, which
    the bundle of an export names as its source's. Only `on` gives what can run it.
    """

    bundle: Bundle
    checkpoint: Checkpoint
    source: Path

    @classmethod
    def open(cls, source: Path, *, cache: Path, hash_cache: Path | None = None) -> "Unexported":
        """Open a diffusers folder or a single .safetensors file; weights are only hashed.

        cache: the application's folder for what can be made again. hash_cache: a file that
        remembers hashes by size, times and inode. Raises SourceError, MissingError for what is no
        whole checkpoint, DeviceError where a library is missing.
        """
        if missing := [name for name in NEEDED if find_spec(name) is None]:
            raise DeviceError(
                f"a checkpoint that was never exported needs {', '.join(missing)}",
                hint="pip install 'safelight[export]'",
            )
        checkpoint = Ingredients(source=source).open()
        if checkpoint.recipe.add_on:
            raise SourceError(
                f"'{source.name}' is a ControlNet: it draws no picture alone",
                hint=f"`safelight export {quote(str(source))} --to NAME`, then --control",
            )
        identity = fingerprint(checkpoint, hash_cache)
        place = cache / "checkpoints"
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = place / identity
        for name, content in side_files(checkpoint):
            _keep(folder / name, content)
        bundle = Bundle.described(folder, describe_checkpoint(checkpoint, identity), identity)
        return cls(bundle=bundle, checkpoint=checkpoint, source=source)

    def on(self, choice: "Choice") -> "Choice":
        """Give the choice that runs it on the device of `choice`, which must be torch's.

        Raises DeviceError for any other.
        """
        if not isinstance(choice.backend, TorchBackend):
            raise not_torch(self.source, choice.backend.name)
        from export.checkpointbackend import CheckpointBackend

        backend = CheckpointBackend(choice.backend, self.checkpoint, self.bundle)
        return replace(choice, backend=backend, reason=f"{choice.reason}; {UNPROVEN}")


def not_torch(source: Path, device: str) -> DeviceError:
    """Give the error for a device that cannot run a checkpoint as it is."""
    return DeviceError(
        f"'{source.name}' is a checkpoint that was never exported: torch alone runs it, and the"
        f" device is {device}",
        hint=f"--device torch; or `safelight export {quote(str(source))} --to NAME` makes a bundle",
    )


def _keep(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, unless it is there already, byte for byte."""
    if path.is_file() and path.read_bytes() == content:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_bytes(content)
    partial.replace(path)
