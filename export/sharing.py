"""Copies a file without copying its bytes where the file system can.

A reflink (Btrfs, XFS, bcachefs) shares blocks until one side is written to. A hard link would do on
more systems, but onnx refuses external data that has two names.
"""

import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path

__all__ = ["duplicate"]

FICLONE = 0x40049409  # linux/fs.h: _IOW(0x94, 9, int)


def duplicate(source: Path, target: Path) -> None:
    """Put the content of `source` at the new `target`, on the disk when this ends.

    Either may be written to afterwards without changing the other. Raises OSError.
    """
    if not _reflink(source, target):
        shutil.copyfile(source, target)
    with target.open("rb+") as file:
        os.fsync(file.fileno())


def _reflink(source: Path, target: Path) -> bool:
    if sys.platform != "linux":
        return False
    from fcntl import ioctl

    with source.open("rb") as old, target.open("xb") as new, suppress(OSError):
        ioctl(new.fileno(), FICLONE, old.fileno())
        return True
    target.unlink()
    return False
