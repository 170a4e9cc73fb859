"""Decodes and encodes large pictures in tiles, so that memory does not grow with the picture.

Each tile is of one shape, so one network is loaded. What tiles cannot know of each other is their
brightness, since group normalisation takes its statistics from the tile: `engine.seams` evens that
out, and `engine.tiles` fades one tile into the next. engine/DESIGN.md has the error that is left.
The network's memory is that of one tile; the tiles themselves are kept, 15 bytes a pixel.
"""

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from engine.errors import BundleError
from engine.seams import corrections
from engine.tiles import Grid, blend, make_grid

__all__ = ["TILINGS", "decode_tiled", "encode_tiled", "is_tiled", "tile_grid"]

Float32 = NDArray[np.float32]
Run = Callable[[Float32], Float32]
Progress = Callable[[float], None]

TILINGS: Final = ("auto", "off", "on")
SIDE: Final = 64  # latents a tile; 512 pixels, what the decoders of SD 1.x and XL were trained on
OVERLAP: Final = 16  # latents; half of it fades, a quarter at each edge is thrown away
# Pixels; above them `auto` tiles. SDXL's own sizes stay whole, and in fp32 this takes about as much
# memory as such a model's unet; 4 times as many would take more than most machines have.
WHOLE_LIMIT: Final = 1536 * 1024


def is_tiled(choice: str, width: int, height: int) -> bool:
    """Say whether a picture of width x height pixels is decoded in tiles; choice: of TILINGS."""
    return choice == "on" or (choice == "auto" and width * height > WHOLE_LIMIT)


def tile_grid(height: int, width: int) -> Grid:
    """Lay tiles over height x width latents; one alone where that is all there is."""
    return make_grid((height, width), (min(SIDE, height), min(SIDE, width)), OVERLAP)


def decode_tiled(
    latents: Float32, decode: Run, progress: Progress = lambda _: None, *, factor: int = 8
) -> Float32:
    """Decode f32[1, 4, h, w] into f32[1, 3, factor h, factor w].

    decode: does so with a tile of `tile_grid(h, w)`, and may give a buffer that it uses again.
    progress: called with the done fraction, 0..1, after each tile; an exception out of it ends the
    work. Raises BundleError where a tile has another shape than it should.
    """
    grid = tile_grid(*latents.shape[2:])
    high, wide = grid.tile

    def run(top: int, left: int) -> Float32:
        return decode(np.ascontiguousarray(latents[:, :, top : top + high, left : left + wide]))

    return _joined(grid, factor, run, progress)


def encode_tiled(
    sample: Float32, encode: Run, progress: Progress = lambda _: None, *, factor: int = 8
) -> Float32:
    """Encode f32[1, 3, factor h, factor w] into what the network gives, f32[1, C, h, w].

    As `decode_tiled`; a tile has factor times as many pixels as `tile_grid(h, w)` has latents.
    """
    height, width = (side // factor for side in sample.shape[2:])
    grid = tile_grid(height, width)
    high, wide = (side * factor for side in grid.tile)

    def run(top: int, left: int) -> Float32:
        y, x = top * factor, left * factor
        return encode(np.ascontiguousarray(sample[:, :, y : y + high, x : x + wide]))

    return _joined(grid, 1, run, progress)


def _joined(
    grid: Grid, scale: int, run: Callable[[int, int], Float32], progress: Progress
) -> Float32:
    """Run every tile, even them out, and fade them together."""
    tiles: dict[tuple[int, int], Float32] = {}
    size = (grid.tile[0] * scale, grid.tile[1] * scale)
    for top in grid.rows:
        for left in grid.columns:
            found = run(top, left)
            if found.ndim != 4 or (len(found), *found.shape[2:]) != (1, *size):
                raise BundleError(f"the VAE gives {found.shape} for a tile of {size}")
            tiles[top, left] = found[0].copy()
            progress(len(tiles) / grid.count)
    _even_out(grid, scale, tiles)
    bands = list(blend(grid, scale, lambda top, left: tiles[top, left]))
    return np.concatenate(bands, axis=1)[None]


def _even_out(grid: Grid, scale: int, tiles: Mapping[tuple[int, int], Float32]) -> None:
    """Correct every tile in place."""
    small = {corner: _shrunk(tile, scale) for corner, tile in tiles.items()}
    for corner, (gain, bias) in corrections(grid, small).items():
        tiles[corner][...] *= gain[:, None, None]
        tiles[corner][...] += bias[:, None, None]


def _shrunk(tile: Float32, factor: int) -> Float32:
    """Take means over factor x factor values of f32[C, h, w]."""
    channels, height, width = tile.shape
    parts = tile.reshape(channels, height // factor, factor, width // factor, factor)
    return parts.mean(axis=(2, 4), dtype=np.float32)
