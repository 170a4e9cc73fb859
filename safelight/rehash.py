"""Reads every file of a bundle again and compares it with the manifest, whatever is remembered."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.manifest import FileEntry, Manifest

__all__ = ["rehash"]

CHUNK = 1 << 22  # bytes
UNTIL = 0.999  # of the progress: a job of less than a second then says nothing
SHOWN = 5  # faults named in a message; the number of all stands beside
Progress = Callable[[str, float], None]  # what it reads, done fraction of the bytes


def rehash(folder: Path, manifest: "Manifest", progress: Progress) -> None:
    """Hash every file that the manifest names. Raises BundleError that names what differs."""
    from engine.errors import BundleError

    total = sum(entry.bytes for entry in manifest.files.values()) or 1
    done = 0
    faults: list[str] = []
    for name, entry in manifest.files.items():

        def advance(count: int, name: str = name) -> None:
            nonlocal done
            done += count
            progress(f"hash {name}", min(done / total, UNTIL))

        if fault := _fault(folder / name, entry, advance):
            faults.append(f"{name} {fault}")
    if faults:
        more = f" and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        raise BundleError(
            f"the bundle is not what its manifest says: {', '.join(faults[:SHOWN])}{more}",
            hint="it is damaged or was changed: export or fetch it again",
        )


def _fault(path: Path, entry: "FileEntry", advance: Callable[[int], None]) -> str:
    """Say in a few words what is wrong with a file, or nothing."""
    hashing = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            size = path.stat().st_size
            if size != entry.bytes:
                return f"has {size} bytes, not {entry.bytes}"
            while data := stream.read(CHUNK):
                hashing.update(data)
                advance(len(data))
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return "" if hashing.hexdigest() == entry.sha256 else "has another sha256"
