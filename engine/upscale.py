"""Enlarges a finished picture by an upscaling network, in tiles that overlap (`engine.tiles`)."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from engine.errors import BundleError, NotFiniteError, RequestError
from engine.jsonfile import Fields, read_json
from engine.manifest import UPSCALER
from engine.tiles import blend, make_grid, round_up

if TYPE_CHECKING:
    from engine.backends import Backend, Session
    from engine.bundle import Bundle

__all__ = ["MAX_SIDE", "SCALES", "Upscaler", "read_scale"]

Float32 = NDArray[np.float32]
SCALES = (2, 3, 4, 8)
CONFIG_LIMIT = 4096  # bytes of the configuration; ours has 20
MAX_SIDE = 16_384  # pixels of the result; 800 MB at most
UNIT = 8  # pixels; tiles begin at multiples, since some networks fold pixels in pairs or windows


def read_scale(bundle: "Bundle") -> int:
    """Read by how much an upscaler enlarges. Raises BundleError where the bundle is none."""
    if bundle.manifest.family != UPSCALER:
        raise BundleError(
            f"'{bundle.name}' is of family {bundle.manifest.family}; an upscaler is needed",
            hint="`safelight models add FILE.onnx --to NAME` takes one in",
        )
    config = Fields(
        read_json(bundle.path / UPSCALER / "config.json", CONFIG_LIMIT), f"{UPSCALER}/config.json"
    )
    scale = config.integer("scale", SCALES[0], SCALES[-1])
    config.done()
    return scale


class Upscaler:
    """Enlarges pictures with one bundle on one back end.

    tile: pixels a side of what the network sees at once, unless its graph has a fixed size.
    overlap: pixels that neighbouring tiles share at least; half of that should be what the network
    looks at around a pixel, or seams are soft instead of gone. It holds the loaded network.
    """

    def __init__(
        self, bundle: "Bundle", backend: "Backend", *, tile: int = 256, overlap: int = 32
    ) -> None:
        """Read the scale. Raises BundleError for a bundle of another kind, RequestError for sizes
        that are not multiples of 8 or leave no tile.
        """
        if tile % UNIT or overlap % UNIT or not 0 <= 2 * overlap <= tile or tile == 0:
            raise RequestError(
                f"tile is {tile} and overlap {overlap}; multiples of {UNIT} are needed, overlap at"
                " most half of the tile"
            )
        self.scale = read_scale(bundle)
        self._bundle = bundle
        self._backend = backend
        self._overlap = overlap
        part = bundle.manifest.components[UPSCALER]
        ((self._input, spec),) = part.inputs.items()
        self._fixed = tuple(size if isinstance(size, int) else 0 for size in spec.shape[2:])
        self._tile = tile
        self._loaded: tuple[tuple[int, int], Session] | None = None

    def upscale(
        self, pixels: NDArray[np.uint8], progress: Callable[[float], None] = lambda _: None
    ) -> NDArray[np.uint8]:
        """Turn uint8[H, W, 3] into uint8[s H, s W, 3].

        progress: called with the done fraction, 0..1; an exception out of it ends the work. Raises
        RequestError for a picture whose result would be too large, BundleError, DeviceError, and
        NotFiniteError where a tile has NaN or Inf in fp32 as well.
        """
        height, width = pixels.shape[:2]
        most = MAX_SIDE // self.scale
        if max(height, width) > most:
            raise RequestError(
                f"the picture has {width}x{height} pixels; at most {most} a side can be made"
                f" {self.scale} times as large"
            )
        tile = self._tile_of(height, width)
        padded = _padded(pixels, tile)
        grid = make_grid((padded.shape[0], padded.shape[1]), tile, self._overlap, unit=UNIT)

        def run(top: int, left: int) -> Float32:
            return self._run(padded[top : top + tile[0], left : left + tile[1]])

        result = np.empty((height * self.scale, width * self.scale, 3), np.uint8)
        top = 0
        for band in blend(grid, self.scale, run, progress):
            _write(result[top:], band)
            top += band.shape[1]
        return result

    def _tile_of(self, height: int, width: int) -> tuple[int, int]:
        free = (min(self._tile, round_up(size, UNIT)) for size in (height, width))
        high, wide = (fixed or own for fixed, own in zip(self._fixed, free, strict=True))
        return high, wide

    def _run(self, part: NDArray[np.uint8]) -> Float32:
        """Enlarge one tile: uint8[h, w, 3] -> f32[3, s h, s w], about 0..1."""
        height, width = part.shape[:2]
        given = np.ascontiguousarray(part.transpose(2, 0, 1)[None], dtype=np.float32)
        given /= np.float32(255.0)
        found = self._session((height, width)).run({self._input: given})
        wanted = (1, 3, height * self.scale, width * self.scale)
        if found.shape != wanted:
            raise BundleError(f"the upscaler gives {found.shape}; {wanted} was expected")
        if not np.isfinite(found).all():
            found = self._again({self._input: given}, (height, width))
        return found[0]

    def _again(self, given: dict[str, Float32], size: tuple[int, int]) -> Float32:
        """Repeat a tile that overflowed in fp32."""
        if self._backend.precision != "fp32":
            self._backend, self._loaded = self._backend.exact(), None  # and stay there
            found = self._session(size).run(given)
            if np.isfinite(found).all():
                return found
        raise NotFiniteError(
            "the upscaled picture came out as NaN or Inf, in fp32 as well",
            hint="the model may be damaged: safelight models verify",
        )

    def _session(self, size: tuple[int, int]) -> "Session":
        if self._loaded is None or self._loaded[0] != size:
            self._loaded = None  # give its memory back first
            session = self._backend.load(
                self._bundle.model(UPSCALER),
                {self._input: (1, 3, *size)},
                identity=f"{self._bundle.hash}/{UPSCALER}",
            )
            self._loaded = (size, session)
        return self._loaded[1]


def _padded(pixels: NDArray[np.uint8], tile: tuple[int, int]) -> NDArray[np.uint8]:
    """Repeat the last row and column until whole tiles fit."""
    height, width = (
        max(side, round_up(size, UNIT) if side % UNIT == 0 else size)
        for size, side in zip(pixels.shape[:2], tile, strict=True)
    )
    more = ((0, height - pixels.shape[0]), (0, width - pixels.shape[1]), (0, 0))
    return np.pad(pixels, more, mode="edge")


def _write(result: NDArray[np.uint8], band: Float32) -> None:
    """Round f32[3, h, w] into the rows of the result that are there."""
    height, width = min(result.shape[0], band.shape[1]), result.shape[1]
    colours = np.clip(band[:, :height, :width], 0.0, 1.0) * np.float32(255.0)
    result[:height] = np.rint(colours).astype(np.uint8).transpose(1, 2, 0)
