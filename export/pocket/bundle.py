"""Stage `bundle`: the finished folder, exported and proven, with its card, sheets and licences."""

import shutil
from collections.abc import Callable
from pathlib import Path

from export.build import export_folder
from export.errors import ExportError

__all__ = ["LARGEST", "build"]

LARGEST = 20_000_000  # bytes of all files: it travels in the wheel
_SHEETS = {"grid-pocket.png": "grid.png", "nearest-pocket.png": "nearest.png"}


def build(work: Path, say: Callable[[str], None]) -> None:
    """Write `WORK/bundle`; raises ExportError when it is larger than 20 MB, or lacks a sheet."""
    source, target = work / "pocket", work / "bundle"
    lacking = [name for name in _SHEETS if not (work / name).is_file()]
    if lacking:
        raise ExportError(f"there is no {lacking[0]} in WORK", hint="run the stage grid first")
    shutil.rmtree(target, ignore_errors=True)
    export_folder(
        source,
        target,
        name="pocket",
        licence="MIT",
        progress=lambda stage, done: say(f"bundle: {stage} {done:.0%}"),
    )
    shutil.copyfile(source / "README.md", target / "README.md")
    for name, shown in _SHEETS.items():
        shutil.copyfile(work / name, target / shown)
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    if size > LARGEST:
        raise ExportError(f"the bundle has {size} bytes, more than {LARGEST}")
    say(f"bundle: {size / 1e6:.2f} MB; it ships as safelight/models/pocket")
