"""`safelight models verify`: every hash again, and the parity gate again."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from safelight.cli.card import measures_table
from safelight.cli.options import Json
from safelight.console import line, note
from safelight.settings import load_settings
from safelight.shelf import Shelf

if TYPE_CHECKING:
    from engine import Bundle
    from engine.manifest import Measure
    from safelight.progress import StageProgress

__all__ = ["verify"]


def verify(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A model on the shelf.")],
    quick: Annotated[
        bool, typer.Option("--quick", help="Hashes alone, without the comparison with torch.")
    ] = False,
    json: Json = False,
) -> None:
    """Compare a model's files with its hashes, its graphs with torch."""
    from safelight.progress import StageProgress

    settings = load_settings()
    shelf = Shelf(settings.models, settings.cache)
    folder = shelf.find(name).path
    with StageProgress() as progress:
        bundle = _hashes(shelf, folder, progress)
    measures, skipped = None, "--quick"
    if not quick:
        with StageProgress() as progress:
            measures, skipped = _parity(folder, bundle.manifest.family, progress)
    count = len(bundle.manifest.files)
    if json:
        fields: dict[str, Any] = {"name": name, "files": count, "bytes": bundle.bytes}
        fields["parity"] = None if measures is None else [asdict(each) for each in measures]
        line(fields | ({"parity_skipped": skipped} if measures is None else {}))
        return
    note(f"'{name}' is what its manifest says: {count} files, {bundle.bytes / 1e6:.1f} MB.")
    if measures is not None:
        measures_table(measures)
        note("Its graphs compute what torch computes from their weights.")
    elif not quick:
        note(f"Its graphs were not compared with torch: {skipped}.")


def _hashes(shelf: Shelf, folder: Path, progress: "StageProgress") -> "Bundle":
    """Read all files; raises BundleError, after remembered hashes are forgotten."""
    from engine.errors import BundleError
    from engine.manifest import MANIFEST_NAME, read_manifest
    from safelight.rehash import rehash

    if not (folder / MANIFEST_NAME).is_file():
        raise BundleError(
            f"'{folder.name}' is a plain ONNX export: without {MANIFEST_NAME} there is nothing to"
            " verify it against",
            hint="`safelight export` makes a bundle with hashes from the checkpoint",
        )
    try:
        rehash(folder, read_manifest(folder), progress.stage)
        return shelf.open(folder.name)  # what lies beside the files, and graphs against manifest
    except BundleError:
        shelf.forget_hashes()
        raise


def _parity(
    folder: Path, family: str, progress: "StageProgress"
) -> "tuple[tuple[Measure, ...] | None, str]":
    """Give the measures, or None and the reason why there are none."""
    from engine.manifest import UPSCALER

    if family == UPSCALER:
        return None, "an upscaler comes as a graph, and no module of torch stands behind it"
    try:
        from export import missing_for_recheck, recheck_bundle
    except ImportError as error:
        return None, f"{error.name} is not installed"
    if missing := missing_for_recheck():
        hint = "pip install 'safelight[cpu,export]'"
        return None, f"it needs {', '.join(missing)} ({hint})"
    return recheck_bundle(folder, progress.stage), ""
