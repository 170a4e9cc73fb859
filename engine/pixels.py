"""From what the networks speak to what eyes see: decoded pictures and quick previews."""

import numpy as np
from numpy.typing import NDArray

from engine.manifest import LatentRgb

__all__ = ["preview", "to_pixels"]

Float32 = NDArray[np.float32]


def to_pixels(decoded: Float32) -> NDArray[np.uint8]:
    """Turn the decoder's f32[1, 3, H, W] in -1..1 into uint8[H, W, 3].

    Arithmetic and rounding (half to even, in float32) as diffusers' VaeImageProcessor does it.
    """
    scaled = decoded[0] * np.float32(0.5)  # (3, H, W)
    scaled += np.float32(0.5)
    np.clip(scaled, 0.0, 1.0, out=scaled)
    scaled *= np.float32(255.0)
    np.rint(scaled, out=scaled)
    return np.ascontiguousarray(scaled.astype(np.uint8).transpose(1, 2, 0))


def preview(latents: Float32, latent_rgb: LatentRgb) -> NDArray[np.uint8]:
    """Colour latents f32[1, 4, h, w] by the bundle's linear map: uint8[h, w, 3].

    Values that are not finite come out black.
    """
    factors = np.array(latent_rgb.factors, dtype=np.float32)
    with np.errstate(invalid="ignore"):
        colours = np.tensordot(latents[0], factors, axes=(0, 0))  # (h, w, 3)
    colours += np.array(latent_rgb.bias, dtype=np.float32)
    np.clip(np.nan_to_num(colours, nan=0.0), 0.0, 1.0, out=colours)
    return np.rint(colours * 255.0).astype(np.uint8)
