"""Enlarging finished pixels on the way: by an upscaler bundle, stopped between tiles when asked to.

The end of a generation takes the upscaler's own scale; a second pass over a larger picture takes
the size that it needs, and what the network gives is resized to it.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from engine.upscale import Upscaler

__all__ = ["Cancelled", "enlarge", "enlarge_to"]

UInt8 = NDArray[np.uint8]


class Cancelled(Exception):  # noqa: N818 - it is no error: the caller asked for it
    """Somebody asked for the end of the work between two tiles."""


def enlarge(
    pixels: UInt8, upscaler: Upscaler, cancelled: Callable[[], bool] = lambda: False
) -> UInt8:
    """Enlarge uint8[H, W, 3] by the upscaler's scale.

    cancelled is asked after each tile; where it says yes, Cancelled is raised. Raises as
    `Upscaler.upscale` does.
    """

    def look(_done: float) -> None:
        if cancelled():
            raise Cancelled

    return upscaler.upscale(pixels, look)


def enlarge_to(
    pixels: UInt8,
    upscaler: Upscaler,
    size: tuple[int, int],
    cancelled: Callable[[], bool] = lambda: False,
) -> UInt8:
    """Enlarge uint8[H, W, 3] to size, (height, width) in pixels, by any factor.

    The network runs as often as it takes to be as large, once at least, and its result is resized
    with Lanczos' filter where it is larger. Raises as `enlarge` does.
    """
    from PIL import Image

    height, width = size
    pixels = enlarge(pixels, upscaler, cancelled)
    while pixels.shape[0] < height or pixels.shape[1] < width:
        pixels = enlarge(pixels, upscaler, cancelled)
    if pixels.shape[:2] == (height, width):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS))
