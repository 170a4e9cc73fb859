"""Cuts what is too large for a network into tiles that overlap, and fades their results together.

Blending holds a row of tiles, whatever the size. Where tiles overlap one fades into the next over
the middle half of what they share; what lies near a tile's edge, where the network saw padding, is
not used at all.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Grid", "blend", "make_grid", "round_up"]

Float32 = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """Where tiles lie, in whatever unit they were planned: pixels or latents.

    rows, columns: where they begin, from 0, ascending. tile: height and width of each.
    """

    rows: tuple[int, ...]
    columns: tuple[int, ...]
    tile: tuple[int, int]

    @property
    def count(self) -> int:
        """Count the tiles."""
        return len(self.rows) * len(self.columns)

    @property
    def height(self) -> int:
        """Give the height that the tiles cover together."""
        return self.rows[-1] + self.tile[0]

    @property
    def width(self) -> int:
        """Give the width that the tiles cover together."""
        return self.columns[-1] + self.tile[1]


def make_grid(size: tuple[int, int], tile: tuple[int, int], overlap: int, *, unit: int = 1) -> Grid:
    """Lay tiles over `size` (height, width), neighbours sharing at least `overlap`.

    size: at least the tile's, and a multiple of `unit` along each axis where the tile is one, in
    which case tiles begin at multiples of it.
    """
    rows, columns = (_starts(*axis, overlap, unit) for axis in zip(size, tile, strict=True))
    return Grid(rows=rows, columns=columns, tile=tile)


def blend(
    grid: Grid,
    scale: int,
    run: Callable[[int, int], Float32],
    progress: Callable[[float], None] = lambda _: None,
) -> Iterator[Float32]:
    """Yield the result in bands from the top, f32[C, h, grid.width * scale], as they are finished.

    scale: of the result against the grid's unit. run: gives the tile that begins at (top, left) of
    the grid, f32[C, tile height * scale, tile width * scale], which may be a buffer that it uses
    again. progress: called with the done fraction, 0..1, after each tile; an exception out of it
    ends the work.
    """
    high, wide = (side * scale for side in grid.tile)
    done = 0
    kept = np.empty((0, 0, 0), np.float32)  # what the row before gave, and this one fades from
    for place, top in enumerate(grid.rows):
        band = np.empty((0, 0, 0), np.float32)
        filled = 0
        for left in grid.columns:
            tile = run(top, left)
            if not filled:
                band = np.empty((len(tile), high, grid.width * scale), np.float32)
            at = left * scale
            _lay(band[:, :, at:], tile, filled - at)
            filled = at + wide
            done += 1
            progress(done / grid.count)
        if place:
            shared = kept.shape[1]
            fade = _ramp(shared)[:, None]
            band[:, :shared] = kept + fade * (band[:, :shared] - kept)
        last = place + 1 == len(grid.rows)
        final = high if last else (grid.rows[place + 1] - top) * scale
        yield band[:, :final]
        kept = band[:, final:]


def round_up(size: int, unit: int) -> int:
    """Give the least multiple of `unit` that holds `size`."""
    return -(-size // unit) * unit


def _starts(size: int, tile: int, overlap: int, unit: int) -> tuple[int, ...]:
    """Give where tiles begin along an axis: evenly, with at least `overlap` between neighbours."""
    unit = unit if tile % unit == 0 else 1
    way, step = (size - tile) // unit, max(1, (tile - min(overlap, tile // 2)) // unit)
    count = math.ceil(way / step)
    return (0, *(place * way // count * unit for place in range(1, count + 1)))


def _ramp(length: int) -> Float32:
    """Fade from 0 to 1 over the middle half of an overlap: f32[length]."""
    margin = length // 4
    place = np.arange(length, dtype=np.float32) + np.float32(0.5 - margin)
    return np.clip(place / np.float32(max(1, length - 2 * margin)), 0.0, 1.0)


def _lay(band: Float32, tile: Float32, shared: int) -> None:
    """Lay a tile at the beginning of f32[C, h, w]; its first `shared` columns fade in."""
    shared = max(0, shared)
    old = band[:, :, :shared]
    old += _ramp(shared) * (tile[:, :, :shared] - old)
    band[:, :, shared : tile.shape[2]] = tile[:, :, shared:]
