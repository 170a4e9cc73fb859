"""One random tiny checkpoint and its bundle, made once a run, whichever worker needs it first.

An export takes half a minute. Tests only read here.
"""

import fcntl
import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from pytest import TempPathFactory  # noqa: PT013 - the type alone

from export import Ingredients, Options, export_checkpoint
from export.architectures import TINY, write_random_checkpoint

__all__ = ["CREATED", "tiny_bundle", "tiny_checkpoint", "tiny_progress"]

CREATED = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


def tiny_checkpoint(factory: TempPathFactory) -> Path:
    """Give a diffusers folder with random fp16 weights, some odd parts, and a notice."""
    return _made_once(factory, "tiny-checkpoint", _checkpoint) / "tiny source"


def tiny_bundle(factory: TempPathFactory) -> Path:
    """Give the bundle of `tiny_checkpoint`."""
    return _export(factory) / "models" / "tiny"


def tiny_progress(factory: TempPathFactory) -> list[tuple[str, float]]:
    """Give what the export of `tiny_bundle` reported."""
    progress = json.loads((_export(factory) / "progress.json").read_text())
    return [(stage, fraction) for stage, fraction in progress]


def _checkpoint(folder: Path) -> None:
    source = folder / "tiny source"
    write_random_checkpoint(source, TINY, seed=1)
    (source / "LICENSE.md").write_text("Do what you like.\n")
    (source / "README.md").write_text("not carried over\n")


def _export(factory: TempPathFactory) -> Path:
    source = tiny_checkpoint(factory)

    def export(folder: Path) -> None:
        progress: list[tuple[str, float]] = []
        export_checkpoint(
            Ingredients(source=source),
            folder / "models" / "tiny",
            name="tiny",
            licence="CC0-1.0",
            progress=lambda stage, fraction: progress.append((stage, fraction)),
            options=Options(steps=12, guidance_scale=4.0, now=lambda: CREATED),
        )
        (folder / "progress.json").write_text(json.dumps(progress))

    return _made_once(factory, "tiny-export", export)


def _made_once(factory: TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """Return a folder that `make` filled, in this process or in another worker's."""
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # a worker's own lies in that of the run
    folder, made = base / name, base / f"{name}.made"
    with (base / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            folder.mkdir()
            make(folder)
            made.touch()
    return folder
