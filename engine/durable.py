"""Brings files and folders to the disk, so that what has its final name outlives a power cut."""

import os
from pathlib import Path

__all__ = ["flush_folder", "flush_tree"]


def flush_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk (fsync); Windows opens no folders and keeps them."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def flush_tree(folder: Path) -> None:
    """Bring every file and folder below `folder`, and itself, to the disk."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb+") as file:
                os.fsync(file.fileno())
        else:
            flush_folder(path)
    flush_folder(folder)
