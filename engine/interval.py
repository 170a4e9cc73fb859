"""The guidance interval: beyond it the prompt is followed without guidance, for half the work.

Guidance at high noise costs variety and at low noise changes little (Kynkäänniemi et al., arXiv
2404.07724). The paper bounds sigma; here the bounds are fractions of the steps, as diffusers'
guiders and everybody's ControlNets count, since they mean the same with every model and schedule.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from engine.conditioning import Conditioning
from engine.denoiser import Predict
from engine.moment import Moment
from engine.request import GenerationRequest

__all__ = ["GuidanceInterval", "each_text", "limits_guidance"]

Float32 = NDArray[np.float32]


def limits_guidance(request: GenerationRequest) -> bool:
    """Say whether some steps of the request may go without guidance."""
    return request.guidance_start > 0.0 or request.guidance_end < 1.0


def each_text(text: Conditioning) -> list[Conditioning]:
    """Give each of n texts alone, in their order, as views."""
    return [
        Conditioning(
            text.embeds[place : place + 1],
            None if text.pooled is None else text.pooled[place : place + 1],
        )
        for place in range(len(text.embeds))
    ]


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
