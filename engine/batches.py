"""Several pictures drawn at once: which go together, what they begin with, and their texts.

A network that is shown several pictures fills a machine better than one, small ones most of all.
Each picture keeps its own seed and stream of noise. Its numbers are those of the picture made alone
up to rounding: libraries add in another order where there are more rows.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from engine.beginning import Beginning
from engine.conditioning import Conditioning, Shown
from engine.interval import limits_guidance
from engine.loop import NoiseSource
from engine.moment import Moment

if TYPE_CHECKING:
    from engine.request import GenerationRequest

__all__ = ["Together", "are_alike", "joined", "why_alone"]

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


def are_alike(one: "GenerationRequest", other: "GenerationRequest") -> bool:
    """Say whether two requests differ in prompts, seeds and number of pictures alone."""
    same = replace(
        one,
        prompt=other.prompt,
        negative_prompt=other.negative_prompt,
        seed=other.seed,
        variation_seed=other.variation_seed,
        count=other.count,
    )
    return same == other


class Together:
    """The texts of several pictures as one: each picture's first text, then each one's second."""

    def __init__(self, texts: Sequence[Shown]) -> None:
        """texts: of as many rows and tokens each."""
        self._texts = texts
        self._parts = [Conditioning(each.embeds, each.pooled) for each in texts]
        self._first = self._now = _interleaved(self._parts)

    @property
    def embeds(self) -> Float32:
        """Give those of the first step: f32[n * p, T, C]."""
        return self._first.embeds

    @property
    def pooled(self) -> Float32 | None:
        """Give those of the first step: f32[n * p, P]."""
        return self._first.pooled

    def at(self, moment: Moment) -> Conditioning:
        """Give what is shown at a moment; the same arrays until a text changes."""
        parts = [each.at(moment) for each in self._texts]
        if any(now is not before for now, before in zip(parts, self._parts, strict=True)):
            self._parts, self._now = parts, _interleaved(parts)
        return self._now


def _interleaved(parts: Sequence[Conditioning]) -> Conditioning:
    pooled = [each.pooled for each in parts if each.pooled is not None]
    return Conditioning(_rows([each.embeds for each in parts]), _rows(pooled) if pooled else None)


def _rows(texts: Sequence[Float32]) -> Float32:
    """Give f32[n * p, ...] of p times f32[n, ...]."""
    stacked = np.stack(texts, axis=1)
    return stacked.reshape(-1, *stacked.shape[2:])


class _Streams:
    """Noise of several pictures, each from its own source."""

    def __init__(self, sources: Sequence[NoiseSource]) -> None:
        self._sources = sources

    def normal(self, shape: tuple[int, ...]) -> Float32:
        """Draw f32[p, ...], the next piece of each source; p is the number of sources."""
        return np.concatenate([source.normal((1, *shape[1:])) for source in self._sources])


def joined(begun: Sequence[Beginning]) -> Beginning:
    """Give what several pictures begin with as one: p rows where each has its own.

    The mask is one for all.
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
