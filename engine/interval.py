"""The guidance interval: beyond it the prompt is followed without guidance, for half the work.

Guidance at high noise costs variety and at low noise changes little (Kynkäänniemi et al., arXiv
2404.07724). The paper bounds sigma; here the bounds are fractions of the steps, as diffusers'
guiders and everybody's ControlNets count, since they mean the same with every model and schedule.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from engine.conditioning import Conditioning, Shown
from engine.denoiser import Predict
from engine.moment import Moment
from engine.request import GenerationRequest

__all__ = ["GuidanceInterval", "OneText", "each_text", "limits_guidance"]

Float32 = NDArray[np.float32]


def limits_guidance(request: GenerationRequest) -> bool:
    """Say whether some steps of the request may go without guidance."""
    return request.guidance_start > 0.0 or request.guidance_end < 1.0


class OneText:
    """One of the texts that the network is shown, as views: it changes when they do."""

    def __init__(self, text: Shown, place: int) -> None:
        self._text = text
        self._place = place
        self._all = Conditioning(text.embeds, text.pooled)
        self._now = self._cut()

    @property
    def embeds(self) -> Float32:
        """Give those of the first step: f32[1, n * L, C]."""
        place = self._place
        return self._text.embeds[place : place + 1]

    @property
    def pooled(self) -> Float32 | None:
        """Give those of the first step: f32[1, P]."""
        pooled = self._text.pooled
        return None if pooled is None else pooled[self._place : self._place + 1]

    def at(self, moment: Moment) -> Conditioning:
        """Give what is shown at a moment; the same arrays until a text changes."""
        now = self._text.at(moment)
        if now is not self._all:
            self._all = now
            self._now = self._cut()
        return self._now

    def _cut(self) -> Conditioning:
        embeds, pooled = self._all
        cut = slice(self._place, self._place + 1)
        return Conditioning(embeds[cut], None if pooled is None else pooled[cut])


def each_text(text: Shown) -> list[OneText]:
    """Give each of n texts alone, in their order."""
    return [OneText(text, place) for place in range(len(text.embeds))]


class GuidanceInterval:
    """Answers (x f32[1, 4, h, w], moment) with f32[n, 4, h, w] within the interval, the
    unconditional prediction first, and with one prediction f32[1, 4, h, w] outside: that of the
    prompt, or what a guidance scale of 1 makes of several weighted ones.

    Texts are asked in turn, of networks that share one session of one text: a second session of n
    would double the memory, and two runs of one text take 1.02 to 1.08 of the work of one run of
    two. One interval serves one picture at a time: its buffer is reused.
    """

    def __init__(
        self, texts: Sequence[Predict], start: float, end: float, weights: Sequence[float] = (1.0,)
    ) -> None:
        """texts: the unconditional network and the conditional ones, whose weights are as in
        `Denoiser`. start, end: a step is guided when of all steps a fraction from start to below
        end is done before it.
        """
        self._texts = tuple(texts)
        self._start, self._end = start, end
        self._weights = np.array(weights, dtype=np.float32)[:, None, None, None]
        self._alone = tuple(weights) == (1.0,)
        self._all = np.empty((0, 0, 0, 0), dtype=np.float32)

    def __call__(self, x: Float32, moment: Moment) -> Float32:
        """Predict; whatever the networks raise."""
        guided = self._start <= moment.fraction < self._end
        if not guided and self._alone:
            return self._texts[-1](x, moment)
        shape = (len(self._texts), *x.shape[1:])
        if self._all.shape != shape:
            self._all = np.empty(shape, dtype=np.float32)
        for place, predict in enumerate(self._texts):
            np.copyto(self._all[place : place + 1], predict(x, moment))
        if guided:
            return self._all
        unconditional, conditional = self._all[:1], self._all[1:]
        pull = (self._weights * (conditional - unconditional)).sum(axis=0, keepdims=True)
        return unconditional + pull
