"""How two pictures differ, pixel by pixel, computed in memory."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Figures", "difference", "figures"]

_BAND = 256  # rows that are measured at once
LONGEST = 2048  # pixels of the map's longer side
# The map's colours from no difference to all there can be: black, red, orange, near white
_STOPS = np.array([0.0, 0.25, 0.6, 1.0])
_COLOURS = np.array([(8, 6, 6), (150, 24, 10), (255, 138, 60), (255, 246, 232)], float)
_GAIN = 0.5  # exponent: small differences are shown larger than they are


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """psnr: decibels, infinite for equal pictures. changed: fraction of pixels that differ at all.

    largest: 0 to 255. resized: the second picture was brought to the first one's size.
    """

    psnr: float
    changed: float
    largest: int
    resized: bool

    @property
    def equal(self) -> bool:
        """Say whether no pixel differs."""
        return self.largest == 0


def figures(first: "NDArray[np.uint8]", second: "NDArray[np.uint8]") -> Figures:
    """Measure how uint8[H, W, 3] and another picture differ."""
    other, resized = _alike(first, second)
    square, changed, largest = 0.0, 0, 0
    for top in range(0, len(first), _BAND):  # a large picture takes no more memory than a small one
        here, there = first[top : top + _BAND], other[top : top + _BAND]
        apart = _apart(here, there)
        square += float(np.sum(np.square(here.astype(np.float32) - there), dtype=np.float64))
        changed += int(np.count_nonzero(apart))
        largest = max(largest, int(apart.max(initial=0)))
    mean = square / max(1, first.size)
    return Figures(
        psnr=math.inf if mean == 0 else 10 * math.log10(255**2 / mean),
        changed=changed / max(1, first.shape[0] * first.shape[1]),
        largest=largest,
        resized=resized,
    )


def difference(first: "NDArray[np.uint8]", second: "NDArray[np.uint8]") -> "NDArray[np.uint8]":
    """Return the map of differences, uint8[h, w, 3]: dark is equal; at most 2048 pixels a side."""
    apart = _apart(first, _alike(first, second)[0])
    step = max(1, -(-max(apart.shape) // LONGEST))
    # The largest difference of each block: a single pixel must not vanish.
    height, width = (-(-side // step) * step for side in apart.shape)
    padded = np.zeros((height, width), np.uint8)
    padded[: apart.shape[0], : apart.shape[1]] = apart
    small = padded.reshape(height // step, step, width // step, step).max(axis=(1, 3))
    table = (np.arange(256) / 255.0) ** _GAIN
    colours = np.stack([np.interp(table, _STOPS, _COLOURS[:, c]) for c in range(3)], axis=1)
    return colours.astype(np.uint8)[small]


def _alike(
    first: "NDArray[np.uint8]", second: "NDArray[np.uint8]"
) -> "tuple[NDArray[np.uint8], bool]":
    """Return the second picture at the first one's size, and whether it was resized."""
    if first.shape == second.shape:
        return second, False
    from PIL import Image

    size = (first.shape[1], first.shape[0])
    return np.asarray(Image.fromarray(second).resize(size, Image.Resampling.LANCZOS)), True


def _apart(first: "NDArray[np.uint8]", second: "NDArray[np.uint8]") -> "NDArray[np.uint8]":
    """Return the largest difference of the three channels, uint8[H, W]."""
    return np.max(np.maximum(first, second) - np.minimum(first, second), axis=2)
