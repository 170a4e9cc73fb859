"""Takes a ready bundle onto the shelf: copied beside, read back and verified, then given its name.

Killed half-way it leaves a hidden folder, which no verb takes for a bundle and the next `add` of
the same name removes.
"""

import os
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from engine.durable import flush_folder
from safelight.exits import UsageError

if TYPE_CHECKING:
    from engine import Bundle

__all__ = ["Progress", "beside", "copy_files", "take_in"]

FILES_LIMIT = 1024  # files in a bundle, as the engine has it; ours have 20
ENTRIES_LIMIT = 4096  # files and folders looked at, hidden ones too
CHUNK = 1 << 22  # bytes
COPY_SHARE = 0.7  # of the progress; the rest is reading back
WEIGHTS = (".safetensors", ".ckpt", ".bin", ".pt", ".pth", ".pkl")
Progress = Callable[[str, float], None]  # what it does, done fraction of the whole


def take_in(source: Path, target: Path, progress: Progress) -> "Bundle":
    """Copy the bundle in `source` to the new folder `target` and open it there.

    A folder with safelight.json must be what that says, file by file; one without is a plain
    optimum export. Raises UsageError for what is no bundle, BundleError for a damaged one; then
    nothing is left behind.
    """
    from engine import Bundle

    _check_kind(source, target.name)
    files = list(_files(source))
    with beside(target) as partial:
        copy_files(source, files, partial, progress)
        progress("verify the copy", COPY_SHARE)
        bundle = Bundle.open(partial, hash_cache=None)
        for folder in (*(path for path in partial.rglob("*") if path.is_dir()), partial):
            flush_folder(folder)
        if target.exists():
            raise UsageError(f"a model '{target.name}' has come meanwhile; it is not overwritten")
        partial.rename(target)
        flush_folder(target.parent)
    return replace(bundle, path=target)


def _check_kind(source: Path, name: str) -> None:
    """Let bundles and plain exports pass; say of a checkpoint which verb takes it."""
    from engine.manifest import MANIFEST_NAME

    if not source.exists():
        raise FileNotFoundError(2, "there is no file or folder of that name", str(source))
    if source.is_dir():
        if (source / MANIFEST_NAME).exists() or (source / "unet" / "model.onnx").exists():
            return
        checkpoint = (source / "model_index.json").exists() or _has_weights(source)
    else:
        checkpoint = source.suffix.lower() in WEIGHTS
    if checkpoint:
        raise UsageError(
            f"'{source.name}' is a checkpoint, not a bundle; `safelight export` turns it into one",
            hint=f"safelight export {source} --to {name}",
        )
    raise UsageError(
        f"'{source.name}' is no bundle: it has neither safelight.json nor unet/model.onnx",
        hint="a bundle's folder, or optimum's ONNX export of Stable Diffusion 1.x",
    )


def _has_weights(folder: Path) -> bool:
    return any(path.suffix.lower() in WEIGHTS for path in folder.iterdir())


def _files(source: Path) -> Iterator[str]:
    """Yield the relative names of all files that are not hidden; refuse links and special files."""
    waiting, seen, found = [source], 0, 0
    while waiting:
        folder = waiting.pop()
        for entry in sorted(os.scandir(folder), key=lambda each: each.name):
            seen += 1
            if seen > ENTRIES_LIMIT or found > FILES_LIMIT:
                raise UsageError(
                    f"'{source.name}' has more than {FILES_LIMIT} files, so it is no bundle"
                )
            if entry.name.startswith("."):
                continue  # a bundle has none, and the engine looks at none
            path = folder / entry.name
            name = path.relative_to(source).as_posix()
            mode = entry.stat(follow_symlinks=False).st_mode
            if stat.S_ISDIR(mode):
                waiting.append(path)
            elif stat.S_ISREG(mode):
                found += 1
                yield name
            else:
                what = "a symbolic link" if stat.S_ISLNK(mode) else "no ordinary file"
                raise UsageError(
                    f"'{name}' in '{source.name}' is {what}; only ordinary files are taken",
                    hint="make a copy with the files themselves first (cp -rL)",
                )


def copy_files(source: Path, files: list[str], partial: Path, progress: Progress) -> None:
    """Copy named files of a folder into another one and bring them to the disk."""
    total = sum((source / name).stat().st_size for name in files) or 1
    done = 0
    for name in files:
        target = partial / name
        target.parent.mkdir(parents=True, exist_ok=True)
        # O_NOFOLLOW: what was a file when it was listed may be a link by now.
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(source / name, flags), "rb") as read, target.open("xb") as written:
            while data := read.read(CHUNK):
                written.write(data)
                done += len(data)
                progress(f"copy {name}", COPY_SHARE * min(done / total, 1.0))
            written.flush()
            os.fsync(written.fileno())


@contextmanager
def beside(target: Path) -> Iterator[Path]:
    """Give a new folder beside `target`, and remove it unless it was renamed away."""
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    for old in target.parent.glob(f".{target.name}.partial-*"):
        if not _is_alive(old.name.rpartition("-")[2]):
            shutil.rmtree(old, ignore_errors=True)  # of an add or an export that was killed
    partial = target.parent / f".{target.name}.partial-{os.getpid()}"
    with suppress(FileNotFoundError):
        shutil.rmtree(partial)  # of a process that had this number
    partial.mkdir()
    try:
        yield partial
    finally:
        if partial.exists():
            shutil.rmtree(partial)


def _is_alive(number: str) -> bool:
    """Say whether a process of this number may run; on Windows, where asking ends it, always."""
    if sys.platform == "win32" or not number.isdecimal():
        return sys.platform == "win32"
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True  # of another user
    return True
