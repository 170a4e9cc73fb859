"""Resampling of latents and pictures: one matrix a side, whose rows are a filter's weights.

Filters and borders are Pillow's and torch's (`antialias=True`): centres lie at half pixels, a
filter is stretched when it makes smaller, and what falls over the border is left out.
"""

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["FILTERS", "blur", "resize"]

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

BLUR_REACH = 3.0  # standard deviations; what lies beyond is 0.3 % of a Gaussian


def _triangle(x: Float64) -> Float64:
    return np.maximum(0.0, 1.0 - np.abs(x))


def _lanczos(x: Float64) -> Float64:
    """Give the sinc that is windowed by a sinc three times as wide."""
    return np.where(np.abs(x) < 3.0, np.sinc(x) * np.sinc(x / 3.0), 0.0)


FILTERS: Final[Mapping[str, tuple[Callable[[Float64], Float64], float]]] = {
    "bilinear": (_triangle, 1.0),
    "lanczos": (_lanczos, 3.0),
}


def resize(values: Float32, height: int, width: int, kind: str) -> Float32:
    """Resample f32[..., h, w] to f32[..., height, width] by a filter of FILTERS."""
    down = _weights(values.shape[-2], height, kind)  # (height, h)
    across = _weights(values.shape[-1], width, kind)  # (width, w)
    return np.ascontiguousarray(down @ (values @ across.T), dtype=np.float32)


def blur(values: Float32, deviation: float) -> Float32:
    """Blur f32[h, w] by a Gaussian of this standard deviation in pixels; 0 leaves it as it is.

    Nothing reaches farther than three deviations; borders are continued outwards.
    """
    if deviation <= 0.0:
        return values
    reach = int(np.ceil(BLUR_REACH * deviation))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / deviation) ** 2)
    kernel /= kernel.sum()
    for axis in (0, 1):
        sides = [(0, 0), (0, 0)]
        sides[axis] = (reach, reach)
        padded = np.pad(values, sides, mode="edge")
        length = values.shape[axis]
        blurred = np.zeros(values.shape, np.float64)
        for place, weight in enumerate(kernel.tolist()):
            blurred += weight * padded.take(range(place, place + length), axis=axis)
        values = blurred.astype(np.float32)
    return values


def _weights(old: int, new: int, kind: str) -> Float32:
    """Weigh `old` samples for each of `new` ones: f32[new, old], every row sums to 1."""
    shape, support = FILTERS[kind]
    scale = old / new
    stretch = max(scale, 1.0)
    centres = (np.arange(new) + 0.5) * scale
    places = np.arange(old) + 0.5
    distances = (places[None] - centres[:, None]) / stretch
    weights = np.where(np.abs(distances) < support, shape(distances), 0.0)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
