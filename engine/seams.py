"""Makes tiles of one picture agree in colour before they are faded together.

A VAE's group normalisation sees a tile alone, so each comes out with a brightness and contrast of
its own. Where two tiles overlap both show the same thing: gain and bias of each channel of each
tile are chosen so that they agree there, and are near 1 and 0 where that costs little. It is the
gain compensation of panoramas: Brown and Lowe, "Automatic panoramic image stitching using invariant
features", IJCV 74 (2007), section 6, with a bias beside the gain.
"""

from collections.abc import Mapping
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from engine.tiles import Grid

__all__ = ["Correction", "corrections"]

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Corner = tuple[int, int]
Correction = tuple[Float32, Float32]

# Against the square of what overlaps differ by, in parts of a tile and of a channel's variance.
# Of 0.05 to 0.5 the one with the least error against the whole (engine/DESIGN.md); with far less,
# tiles drift off together, since nothing but this holds their common brightness.
PRIOR = 0.1


def corrections(grid: Grid, tiles: Mapping[Corner, Float32]) -> dict[Corner, Correction]:
    """Choose (gain f32[C], bias f32[C]) for every tile, to be applied as gain * tile + bias.

    tiles: by their (top, left), f32[C, height, width] at the grid's own resolution. Values that are
    not finite leave all as it is.
    """
    corners = list(tiles)
    values = np.stack([tiles[each] for each in corners]).astype(np.float64)  # (n, C, h, w)
    count, channels = values.shape[:2]
    ones, zeros = np.ones((channels, count)), np.zeros((channels, count))
    if count == 1 or not np.isfinite(values).all():
        return _by_corner(corners, ones, zeros)
    mean = values.mean(axis=(0, 2, 3))[:, None]  # (C, 1)
    spread = np.maximum(values.std(axis=(0, 2, 3)), 1e-6)[:, None]
    values = (values - mean[..., None]) / spread[..., None]
    # Unknowns of a channel: gain and bias of tile 0, of tile 1, ...; least squares.
    matrix = np.tile(PRIOR * np.eye(2 * count), (channels, 1, 1))
    wanted = np.zeros((channels, 2 * count, 1))
    wanted[:, ::2] = PRIOR
    for one, other in combinations(range(count), 2):
        shared = _shared(corners[one], corners[other], grid.tile)
        if shared.size:
            ours, theirs = (_cut(values[each], corners[each], shared) for each in (one, other))
            even = np.ones_like(ours)
            terms = np.stack((ours, even, -theirs, -even), axis=1)  # (C, 4, N)
            place = np.array([2 * one, 2 * one + 1, 2 * other, 2 * other + 1])
            matrix[:, place[:, None], place] += np.einsum("cin,cjn->cij", terms, terms) / (
                grid.tile[0] * grid.tile[1]
            )
    found: Float64 = np.linalg.solve(matrix, wanted)[..., 0].astype(np.float64)
    gain, bias = found[:, ::2], found[:, 1::2]  # (C, n)
    return _by_corner(corners, gain, mean * (1.0 - gain) + spread * bias)


def _by_corner(corners: list[Corner], gain: Float64, bias: Float64) -> dict[Corner, Correction]:
    return {
        corner: (gain[:, place].astype(np.float32), bias[:, place].astype(np.float32))
        for place, corner in enumerate(corners)
    }


def _shared(one: Corner, other: Corner, tile: tuple[int, int]) -> NDArray[np.intp]:
    """Give [[top, bottom], [left, right]] of what two tiles share and blending uses, or nothing.

    Its outer quarters are left out: there one of the two is near its edge, and saw padding.
    """
    sides: list[tuple[int, int]] = []
    for a, b, length in zip(one, other, tile, strict=True):
        low, high = max(a, b), min(a, b) + length
        margin = (high - low) // 4 if a != b else 0
        if low + margin >= high - margin:
            return np.empty((0, 2), np.intp)
        sides.append((low + margin, high - margin))
    return np.array(sides)


def _cut(tile: Float64, corner: Corner, shared: NDArray[np.intp]) -> Float64:
    """Give the shared part of f64[C, h, w] as f64[C, N]."""
    (top, bottom), (left, right) = shared - np.array(corner)[:, None]
    return tile[:, top:bottom, left:right].reshape(len(tile), -1)
