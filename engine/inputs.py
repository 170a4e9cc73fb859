"""Pictures that go in with a request: what is painted over, where, and what steers."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["NO_INPUTS", "Inputs"]

UInt8 = NDArray[np.uint8]
NO_PICTURE = np.zeros((0, 0, 3), dtype=np.uint8)
NO_MASK = np.zeros((0, 0), dtype=np.uint8)


@dataclass(frozen=True, kw_only=True, slots=True)
class Inputs:
    """Pictures beside a request, which itself stays text and numbers.

    init: uint8[H, W, 3], what img2img and inpainting begin with. mask: uint8[H, W], 255 where to
    paint. controls: uint8[H, W, 3] for each of the request's ControlNets, of the proportion to draw
    and of any size. Empty arrays: none.
    """

    init: UInt8 = field(default_factory=lambda: NO_PICTURE, repr=False)
    mask: UInt8 = field(default_factory=lambda: NO_MASK, repr=False)
    controls: tuple[UInt8, ...] = field(default=(), repr=False)


NO_INPUTS = Inputs()
