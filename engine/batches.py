"""Several pictures of one request drawn at once: which go together, and what they begin with.

A network that is shown several pictures fills a machine better than one, small ones most of all.
Each picture keeps its own seed and stream of noise. Its numbers are those of the picture made alone
up to rounding: libraries add in another order where there are more rows.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from engine.beginning import Beginning
from engine.interval import limits_guidance
from engine.loop import NoiseSource

if TYPE_CHECKING:
    from engine.request import GenerationRequest

__all__ = ["joined", "why_alone"]

Float32 = NDArray[np.float32]


def why_alone(request: "GenerationRequest") -> str:
    """Say why the pictures of a request are drawn one at a time; '' where several can be."""
    reasons = {
        "ControlNets steer it": bool(request.controls),
        "a refiner takes part": bool(request.refiner),
        "deep features are reused": request.reuse_every > 1,
        "guidance ends within it": limits_guidance(request),
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


class _Streams:
    """Noise of several pictures, each from its own source."""

    def __init__(self, sources: Sequence[NoiseSource]) -> None:
        self._sources = sources

    def normal(self, shape: tuple[int, ...]) -> Float32:
        """Draw f32[p, ...], the next piece of each source; p is the number of sources."""
        return np.concatenate([source.normal((1, *shape[1:])) for source in self._sources])


def joined(begun: Sequence[Beginning]) -> Beginning:
    """Give what several pictures of one request begin with as one: p rows where each has its own.

    The mask is the request's, and stays one.
    """
    if len(begun) == 1:
        return begun[0]
    return Beginning(
        start=np.concatenate([each.start for each in begun]),
        noise=_Streams([each.noise for each in begun]),
        first=np.concatenate([each.first for each in begun]),
        beside=np.concatenate([each.beside for each in begun]),
        mask=begun[0].mask,
        known=np.concatenate([each.known for each in begun]),
    )
