"""Turns a checkpoint folder into a bundle: build beside it, prove, write the manifest, rename.

A half bundle never looks whole: until the last rename it has another name and no manifest.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

from engine.durable import flush_folder, flush_tree
from engine.manifest import (
    MANIFEST_NAME,
    FileEntry,
    LatentRgb,
    Manifest,
    Measure,
    Parity,
    read_manifest,
    write_manifest,
)
from export.checkpoint import Checkpoint, fingerprint
from export.child import run_job, run_jobs
from export.description import describe_checkpoint
from export.errors import ExportError, SourceError
from export.ingredients import Ingredients
from export.sidefiles import side_files
from export.thresholds import THRESHOLDS, Bound, bounds_of, judge
from export.versions import library_versions
from export.workload import split

__all__ = ["Options", "beside", "export_checkpoint", "is_current"]

Progress = Callable[[str, float], None]
BUILD_SHARE = 0.6  # of the progress; the rest is the gate
NEEDED = ("torch", "diffusers", "transformers", "onnx", "onnxscript", "psutil")


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What an export takes beside its source. steps, guidance_scale: defaults of the bundle;
    None: what the family and the way it was made ask for (`engine.usual`).

    thresholds: precision -> subject -> Bound, the gate's table. now: the clock for `created`.
    hash_cache: a file that remembers the source's hashes, so that `is_current` is quick.
    together_from: bytes of the source from which two processes build at the same time; below that,
    starting the second one costs what it gains.
    """

    steps: int | None = None
    guidance_scale: float | None = None
    thresholds: Mapping[str, Mapping[str, Bound]] = field(default_factory=lambda: THRESHOLDS)
    now: Callable[[], datetime] = _now
    hash_cache: Path | None = None
    together_from: int = 1 << 30


def export_checkpoint(
    source: Ingredients,
    out: Path,
    *,
    name: str,
    licence: str | None,
    progress: Progress,
    options: Options = Options(),
) -> Manifest:
    """Export a checkpoint to the new bundle folder `out`; proven or not at all.

    progress: called with a stage's name and the done fraction, 0..1, of the whole. Raises
    SourceError, MissingError, GraphError, ParityError; then nothing is left behind.
    """
    _check_libraries()
    if out.exists():
        raise SourceError(f"'{out.name}' exists already", hint="remove it first or choose a name")
    checkpoint = source.open()
    with beside(out) as folder:
        job = source.job() | {"out": str(folder.absolute())}
        cache = options.hash_cache
        job["hash_cache"] = None if cache is None else str(cache.absolute())
        for side_file, content in side_files(checkpoint):
            target = folder / side_file
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(content)
        if checkpoint.pieces.words:
            from export.additions import teach

            teach(checkpoint.pieces.words, folder)
        built = _build(checkpoint, job, options, lambda s, f: progress(s, f * BUILD_SHARE))
        measured = run_job(
            job | {"task": "measure"},
            lambda s, f: progress(s, BUILD_SHARE + f * (1 - BUILD_SHARE)),
        )
        precision = "fp16" if "fp16" in _dict(built["precisions"]).values() else "fp32"
        measures = tuple(
            Measure(**item) for item in cast("list[dict[str, Any]]", measured["measures"])
        )
        parts = {part.name for part in checkpoint.recipe.components}
        judge(measures, bounds_of(options.thresholds[precision], parts))
        manifest = _manifest(
            checkpoint,
            folder,
            facts=_dict(built) | _dict(measured),
            parity=Parity(precision=precision, measures=measures),
            labels=(name, licence or checkpoint.pieces.licence),
            options=options,
        )
        (folder / MANIFEST_NAME).write_bytes(write_manifest(manifest))
        flush_tree(folder)
        folder.rename(out)
        flush_folder(out.parent)
    progress("done", 1.0)
    return manifest


def _build(
    checkpoint: Checkpoint, job: Mapping[str, object], options: Options, progress: Progress
) -> Mapping[str, object]:
    """Write the components; give the precision of each, and the source's sha256."""
    from psutil import virtual_memory

    parts = checkpoint.recipe.components
    stored = sum(path.stat().st_size for path in checkpoint.pieces.origins.values())
    room = virtual_memory().available if stored >= options.together_from else 0
    shares = split(parts, room)
    last = len(shares) - 1  # it has the least to do
    jobs = [
        {**job, "task": "build", "parts": share, "identify": place == last}
        for place, share in enumerate(shares)
    ]
    built = run_jobs(jobs, progress)
    precisions = {
        name: each for found in built for name, each in _dict(found["precisions"]).items()
    }
    return {
        "precisions": {part.name: precisions[part.name] for part in parts},
        "sha256": built[last]["sha256"],
    }


def is_current(
    source: Ingredients, bundle: Path, *, licence: str | None, hash_cache: Path | None
) -> bool:
    """Say whether `bundle` is what an export of `source` would make: same files, same libraries.

    Raises SourceError, MissingError for a source that cannot be exported, BundleError for a damaged
    manifest.
    """
    _check_libraries()
    if not (bundle / MANIFEST_NAME).is_file():
        return False
    manifest = read_manifest(bundle)
    checkpoint = source.open()
    return (
        manifest.source.sha256 == fingerprint(checkpoint, hash_cache)
        and dict(manifest.exporter) == library_versions()
        and manifest.prediction_type == checkpoint.training.prediction_type
        and {name: list(each.outputs) for name, each in manifest.components.items()}
        == {part.name: [p.name for p in part.outputs] for part in checkpoint.recipe.components}
        and manifest.licence == (licence or checkpoint.pieces.licence)
    )


def _check_libraries() -> None:
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise ExportError(
            f"export needs {', '.join(missing)}", hint="pip install 'safelight[export]'"
        )
    if find_spec("onnxruntime") is None and find_spec("openvino") is None:
        raise ExportError("the parity gate needs a runtime", hint="pip install 'safelight[cpu]'")


@contextmanager
def beside(out: Path) -> Iterator[Path]:
    """Give a new folder beside `out`, and remove it unless it was renamed away."""
    from psutil import pid_exists  # of the `export` extra; os.kill(pid, 0) would kill on Windows

    out.parent.mkdir(parents=True, exist_ok=True)
    for old in out.parent.glob(f".{out.name}.partial-*"):
        number = old.name.rpartition("-")[2]
        if not number.isdecimal() or int(number) == os.getpid() or not pid_exists(int(number)):
            shutil.rmtree(old)  # of an export that was killed
    folder = out.parent / f".{out.name}.partial-{os.getpid()}"
    folder.mkdir()
    try:
        yield folder
    finally:
        if folder.exists():
            shutil.rmtree(folder)


def _manifest(
    checkpoint: Checkpoint,
    folder: Path,
    *,
    facts: Mapping[str, object],
    parity: Parity,
    labels: tuple[str, str],
    options: Options,
) -> Manifest:
    rgb = _dict(facts["latent_rgb"])
    described = describe_checkpoint(checkpoint, str(facts["sha256"]))
    given = {"steps": options.steps, "guidance_scale": options.guidance_scale}
    chosen = {key: value for key, value in given.items() if value is not None}
    return replace(
        described,
        name=labels[0],
        licence=labels[1],
        defaults=replace(described.defaults, **chosen),
        latent_rgb=LatentRgb(
            factors=tuple(tuple(row) for row in rgb["factors"]), bias=tuple(rgb["bias"])
        ),
        components={
            name: replace(each, precision=_dict(facts["precisions"])[name])
            for name, each in described.components.items()
        },
        files=dict(_entries(folder)),
        parity=parity,
        exporter=library_versions(),
        created=options.now().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    )


def _entries(folder: Path) -> Iterator[tuple[str, FileEntry]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            name = path.relative_to(folder).as_posix()
            yield name, FileEntry(bytes=path.stat().st_size, sha256=digest)


def _dict(value: object) -> dict[str, Any]:
    return cast("dict[str, Any]", value)
