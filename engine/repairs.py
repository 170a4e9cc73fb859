"""What is done again when a picture overflowed or did not fit, recorded in the picture."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from engine.errors import OutOfMemoryError
from engine.guard import DECODE_REPAIR, finite
from engine.memory import smaller_size

if TYPE_CHECKING:
    from engine.decoders import Decoder
    from engine.request import GenerationRequest
    from engine.stages import Stages

__all__ = [
    "BATCH_REPAIR",
    "ENCODE_REPAIR",
    "HIRES_REPAIR",
    "TILES_REPAIR",
    "Decoded",
    "decode_fitting",
    "decode_repaired",
    "room_to_draw",
    "whole_or_tiled",
]

Float32 = NDArray[np.float32]
Decoded = tuple[Float32, tuple[str, ...]]
BATCH_REPAIR: Final = "fewer at once"  # how a picture's record names it
TILES_REPAIR: Final = "decode in tiles"
HIRES_REPAIR: Final = "decode the first pass in tiles"
ENCODE_REPAIR: Final = "encode in tiles"


def decode_repaired(
    decoder: "Decoder",
    latents: Float32,
    stages: "Stages",
    exact: Callable[[], "Stages"],
    *,
    tiled: bool = False,
    progress: Callable[[float], None] = lambda _: None,
) -> Decoded:
    """Decode f32[1, 4, h, w] into f32[1, 3, 8 h, 8 w] and say what had to be repaired.

    Without memory for the whole, it is decoded in tiles; where NaN or Inf comes out, once more in
    fp32. exact: gives the stages in fp32, or raises NotFiniteError where they are what failed. What
    comes out may still not be finite: the caller looks. tiled: in tiles from the start. progress:
    as `Stages.decode` has it. Raises OutOfMemoryError where a tile does
    not fit either.
    """
    decoded, in_tiles = decode_fitting(decoder, latents, stages, tiled=tiled, progress=progress)
    repairs = (TILES_REPAIR,) if in_tiles and not tiled else ()
    if not finite(decoded):
        repairs = (*repairs, DECODE_REPAIR)
        decoded = exact().decode(decoder, latents, tiled=in_tiles, progress=progress)
    return decoded, repairs


def decode_fitting(
    decoder: "Decoder",
    latents: Float32,
    stages: "Stages",
    *,
    tiled: bool = False,
    progress: Callable[[float], None] = lambda _: None,
) -> tuple[Float32, bool]:
    """Decode as `Stages.decode` does, in tiles where there is no memory for the whole; say whether
    it was in tiles. Raises OutOfMemoryError where a tile does not fit either.
    """
    return whole_or_tiled(
        lambda in_tiles: stages.decode(decoder, latents, tiled=in_tiles, progress=progress),
        tiled=tiled or not stages.has_room(decoder, latents),
    )


def whole_or_tiled(run: Callable[[bool], Float32], *, tiled: bool) -> tuple[Float32, bool]:
    """Give what `run` makes of the whole (False) or, for want of memory, of tiles (True), and
    which of them it was. tiled: in tiles from the start.
    """
    try:
        return run(tiled), tiled
    except (OutOfMemoryError, MemoryError):
        if tiled:
            raise
        return run(True), True


@contextmanager
def room_to_draw(request: "GenerationRequest") -> Generator[None]:
    """Say of want of memory within for which picture it was, and which smaller one to ask for.

    Sizes are the last pass's: it takes the most.
    """
    try:
        yield
    except (OutOfMemoryError, MemoryError) as error:
        width, height = request.final_size
        fits = smaller_size(width, height)
        enlarged = "" if request.hires_scale == 1.0 else " after hires_scale"
        # numpy names the array that it could not have
        requested = error.requested if isinstance(error, OutOfMemoryError) else 0
        what = str(error) or "none is left"
        raise OutOfMemoryError(
            f"there is no memory for a picture of {width}x{height} pixels: {what}",
            hint=f"{fits[0]}x{fits[1]}{enlarged} takes at most half as much"
            if fits != (width, height)
            else "other programs may hold what is missing; or take a smaller model",
            requested=requested,
        ) from error
