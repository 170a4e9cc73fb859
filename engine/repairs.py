"""What is done again when a picture overflowed or did not fit, recorded in the picture."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from engine.errors import OutOfMemoryError
from engine.guard import DECODE_REPAIR, finite
from engine.memory import smaller_size
from engine.tiling import decode_tiled

if TYPE_CHECKING:
    from engine.decoders import Decoder
    from engine.request import GenerationRequest
    from engine.stages import Stages

__all__ = ["TILES_REPAIR", "Decoded", "decode_repaired", "room_to_draw"]

Float32 = NDArray[np.float32]
Decoded = tuple[Float32, tuple[str, ...]]
TILES_REPAIR: Final = "decode in tiles"  # how a picture's record names it


def decode_repaired(
    decoder: "Decoder", latents: Float32, stages: "Stages", exact: Callable[[], "Stages"]
) -> Decoded:
    """Decode f32[1, 4, h, w] into f32[1, 3, 8 h, 8 w] and say what had to be repaired.

    Without memory for the whole, it is decoded in tiles; where NaN or Inf comes out, once more in
    fp32. exact: gives the stages in fp32, or raises NotFiniteError where they are what failed. What
    comes out may still not be finite: the caller looks. Raises OutOfMemoryError where a tile does
    not fit either.
    """
    repairs: tuple[str, ...] = ()
    decode = _whole
    try:
        decoded = decode(stages, decoder, latents)
    except (OutOfMemoryError, MemoryError):
        decode, repairs = _in_tiles, (TILES_REPAIR,)
        decoded = decode(stages, decoder, latents)
    if not finite(decoded):
        repairs = (*repairs, DECODE_REPAIR)
        decoded = decode(exact(), decoder, latents)
    return decoded, repairs


def _whole(stages: "Stages", decoder: "Decoder", latents: Float32) -> Float32:
    return stages.decode(decoder, latents)


def _in_tiles(stages: "Stages", decoder: "Decoder", latents: Float32) -> Float32:
    factor = stages.bundle.manifest.vae_scale_factor
    return decode_tiled(latents, lambda tile: stages.decode(decoder, tile), factor=factor)


@contextmanager
def room_to_draw(request: "GenerationRequest") -> Generator[None]:
    """Say of want of memory within for which picture it was, and which smaller one to ask for."""
    try:
        yield
    except (OutOfMemoryError, MemoryError) as error:
        width, height = request.width, request.height
        fits = smaller_size(width, height)
        # numpy names the array that it could not have
        requested = error.requested if isinstance(error, OutOfMemoryError) else 0
        what = str(error) or "none is left"
        raise OutOfMemoryError(
            f"there is no memory for a picture of {width}x{height} pixels: {what}",
            hint=f"{fits[0]}x{fits[1]} takes at most half as much"
            if fits != (width, height)
            else "other programs may hold what is missing; or take a smaller model",
            requested=requested,
        ) from error
