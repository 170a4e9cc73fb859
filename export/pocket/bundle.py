"""Stage `bundle`: the finished folder, exported and proven; beside it the card and the sheets.

The card cannot lie in the bundle: a bundle holds what its manifest names, and nothing else.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from export.build import Options, export_checkpoint
from export.errors import ExportError
from export.ingredients import Ingredients
from export.pocket.sampling import GUIDANCE, STEPS

__all__ = ["LARGEST", "build"]

LARGEST = 20_000_000  # bytes of all files: it travels in the wheel
_QUALITY = 82  # of WebP
_SHEETS = {"grid-pocket.png": "grid.webp", "nearest-pocket.png": "nearest.webp"}


def build(work: Path, say: Callable[[str], None]) -> None:
    """Write `WORK/models`: the bundle `pocket` and its card, as they ship.

    Raises ExportError when they are larger than 20 MB together, or when a sheet is lacking.
    """
    source, target = work / "pocket", work / "models"
    lacking = [name for name in _SHEETS if not (work / name).is_file()]
    if lacking:
        raise ExportError(f"there is no {lacking[0]} in WORK", hint="run the stage grid first")
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    export_checkpoint(
        Ingredients(source=source),
        target / "pocket",
        name="pocket",
        licence="MIT",
        progress=lambda stage, done: say(f"bundle: {stage} {done:.0%}"),
        options=Options(steps=STEPS, guidance_scale=GUIDANCE),
    )
    for name in ("README.md", "concepts.txt"):
        shutil.copyfile(source / name, target / name)
    for name, shown in _SHEETS.items():
        _slim(work / name, target / shown)
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    if size > LARGEST:
        raise ExportError(f"the bundle has {size} bytes, more than {LARGEST}")
    say(f"bundle: {size / 1e6:.2f} MB; it ships as safelight/models")


def _slim(sheet: Path, target: Path) -> None:
    """Write a sheet as WebP, a fifth as large; a palette would draw edges that nobody drew."""
    with Image.open(sheet) as image:
        image.convert("RGB").save(target, quality=_QUALITY, method=6)
