"""The other half of `safelight export`: a bundle on the shelf and LoRAs become a new bundle."""

from pathlib import Path
from typing import TYPE_CHECKING

from safelight.console import note
from safelight.exits import UsageError
from safelight.shelf import Shelf

if TYPE_CHECKING:
    from engine.manifest import Manifest

__all__ = ["base_bundle", "reweight"]


def base_bundle(shelf: Shelf, source: Path) -> Path | None:
    """Give the folder of the bundle that `source` means, or None where it means a checkpoint.

    A file or folder of that name goes first, so that no bundle hides a checkpoint.
    """
    from engine.manifest import MANIFEST_NAME

    if source.exists():
        return source if (source / MANIFEST_NAME).is_file() else None
    names = {entry.name: entry.path for entry in shelf.entries()}
    return names.get(str(source))


def reweight(
    shelf: Shelf,
    base: Path,
    name: str,
    loras: tuple[tuple[Path, float], ...],
    licence: str | None,
) -> "Manifest":
    """Add LoRAs to a bundle, as the new bundle `name`. Raises UsageError where there is another."""
    from export import Options, Reweighting, is_reweighted, reweight_bundle
    from safelight.progress import StageProgress

    if not loras:
        raise UsageError(
            f"'{base.name}' is a bundle already; only LoRAs can be added to it",
            hint="--lora FILE or --lora FILE:0.8, or name a checkpoint to export",
        )
    order = Reweighting(base=base, loras=loras)
    target = shelf.models / name
    if target.exists():
        if not is_reweighted(order, target, hash_cache=shelf.hash_cache):
            raise UsageError(
                f"there is a model '{name}' already, made of something else; it is not overwritten",
                hint=f"choose another name, or `safelight models rm {name}` first",
            )
        note(f"Nothing has changed: '{name}' is what this would make.")
        return shelf.open(name).manifest
    shelf.models.mkdir(parents=True, exist_ok=True, mode=0o700)
    with StageProgress() as progress:
        manifest = reweight_bundle(
            order,
            target,
            name=name,
            licence=licence,
            progress=progress.stage,
            options=Options(hash_cache=shelf.hash_cache),
        )
    note(f"Bundle '{name}' is on the shelf: {base.name}'s graphs with the LoRAs added.")
    note(f"Its parity report is {base.name}'s; `safelight models verify {name}` measures its own.")
    return manifest
