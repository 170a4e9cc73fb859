"""How the building of a bundle is shared between processes: tracing is one thread of Python."""

import os
from collections.abc import Sequence

from export.recipes import Part

__all__ = ["split", "tracing_share"]

# Tracing time in proportion: a UNet has several times the nodes of the others together.
SHARES = {"controlnet": 3, "unet": 6}
# Bytes of free memory from which two build at once. SD 1.5's unet takes 2.5 GB, the rest 1.5.
ROOM = 8 << 30


def tracing_share(part: Part) -> int:
    """Give the time that tracing a component takes, in proportion to the others."""
    return SHARES.get(part.home, 1)


def split(parts: Sequence[Part], available: int) -> list[list[str]]:
    """Name the components of one process, or of two that build at the same time, the longer first.

    Components that share a file stay together. available: bytes of free memory.
    """
    names = [part.name for part in parts]
    homes = {part.home for part in parts}
    if (os.cpu_count() or 1) < 2 or available < ROOM or len(homes) < 2:
        return [names]
    longest = max(parts, key=tracing_share).home
    first = [part.name for part in parts if part.home == longest]
    return [first, [name for name in names if name not in first]]
