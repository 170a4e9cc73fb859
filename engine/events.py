"""What the engine yields while it works: steps, and at the end of each picture the picture."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from engine.request import GenerationRequest

__all__ = ["Event", "PeakMemory", "Picture", "Seconds", "Step"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One network evaluation is done: `index` of `count` (from 0), of picture `picture` (from 0).

    seconds: what this evaluation took. preview() -> uint8[H/8, W/8, 3], a coarse look at the
    denoised latents made on demand, or uint8[H, W, 3] where previews by the tiny decoder were asked
    for; call it before the next event is asked for, since it reads the loop's own buffer. It is the
    only copy and costs nothing when not called: who shows pictures sets the rate, by asking at each
    k-th step or when a clock says so. No safety checker looks at it. What is left of the picture
    takes about `count - index - 1` times the `seconds` of the last steps.
    """

    picture: int
    index: int
    count: int
    seconds: float
    preview: Callable[[], NDArray[np.uint8]] = field(repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Seconds:
    """Where the time of one picture went, in seconds. load: about 0 where it was loaded already.
    decode: with the safety checker and the upscaler.
    """

    load: float
    text: float
    denoise: float
    decode: float


@dataclass(frozen=True, kw_only=True, slots=True)
class PeakMemory:
    """The most memory in use during each stage of `Seconds`, in bytes; 0 where that is not told.

    of: what is counted: `vram` (of the card, by whomever), `torch` (what torch's allocator held of
    the card), `rss` (the process's resident set), or nothing where none is told. `engine.usage`
    says how each is measured; all but torch's are lower bounds.
    """

    of: str = ""
    load: int = 0
    text: int = 0
    denoise: int = 0
    decode: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """A finished picture and everything needed to make it again.

    pixels: uint8[H, W, 3]. request: the one asked for, with this picture's own seed and count 1.
    backend, device, precision: what really ran, for example openvino, CPU, bf16. reason: why
    that device. repairs: what the NaN guard had to do, for example ('denoise in fp32',).
    libraries: name -> version of what computed. model: the bundle's name. model_hash: Bundle.hash.
    tiles: that it was decoded in, 1 for the whole at once.
    flagged: the bundle's own safety checker flagged the picture, so that its pixels are black.
    beside: name -> Bundle.hash of the ControlNets, refiner and upscaler that took part.
    """

    pixels: NDArray[np.uint8] = field(repr=False)
    request: GenerationRequest
    model: str
    model_hash: str
    backend: str
    device: str
    precision: str
    reason: str
    seconds: Seconds
    peak_memory: PeakMemory = PeakMemory()
    repairs: tuple[str, ...] = ()
    libraries: tuple[tuple[str, str], ...] = ()
    flagged: bool = False
    tiles: int = 1
    beside: tuple[tuple[str, str], ...] = ()


Event = Step | Picture
