"""Masks: where to paint in latents, what an inpainting unet sees, and the seam in the picture."""

import numpy as np
from numpy.typing import NDArray

from engine.encoding import to_sample
from engine.modes import PAINTED
from engine.resample import blur

__all__ = ["latent_mask", "masked_sample", "paste"]

Float32 = NDArray[np.float32]
UInt8 = NDArray[np.uint8]


def latent_mask(mask: UInt8, factor: int) -> Float32:
    """Reduce a mask uint8[H, W] to latents: f32[1, 1, H/factor, W/factor], 1 where to paint.

    By the nearest pixel, as diffusers reduces it.
    """
    return (mask[::factor, ::factor] >= PAINTED).astype(np.float32)[None, None]


def masked_sample(init: UInt8, mask: UInt8) -> Float32:
    """Give the picture around the mask, f32[1, 3, H, W] in -1..1, 0 where it is painted over."""
    return to_sample(init) * (mask < PAINTED).astype(np.float32)


def paste(painted: UInt8, init: UInt8, mask: UInt8, deviation: float) -> UInt8:
    """Lay what was painted over the init picture, uint8[H, W, 3] both, through the mask.

    The seam fades within the mask, over about `deviation` pixels: outside of it every byte is the
    init picture's.
    """
    inside = (mask >= PAINTED).astype(np.float32)
    # Half of a blurred edge lies inside; stretched, it begins with 0 where the mask does.
    share = np.clip(2.0 * blur(inside, deviation) - 1.0, 0.0, 1.0) if deviation else inside
    share = (share * inside)[..., None]  # (H, W, 1)
    mixed = init + share * (painted.astype(np.float32) - init)
    return np.rint(mixed).astype(np.uint8)
