"""The denoiser: what the network predicts, guidance and input scaling, behind one call."""

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from engine.errors import BundleError
from engine.moment import Moment
from engine.training import PREDICTION_TYPES

__all__ = ["Denoiser", "Predict", "scalings"]

Float32 = NDArray[np.float32]
Predict = Callable[[Float32, Moment], Float32]


class Denoiser:
    """Give the clean latents that the network believes in: `(x, moment) -> denoised`.

    predict(x f32[p, 4, h, w], moment) -> f32[n * p, 4, h, w], of p pictures at once: with n of 1
    the predictions as they are, else the unconditional ones first and conditional ones behind them,
    each pulling away from its first with guidance_scale times its weight. x lives at
    x0 + sigma * eps; the network sees x / sqrt(sigma**2 + 1). Its buffers are reused.
    """

    def __init__(
        self,
        predict: Predict,
        prediction_type: str,
        guidance_scale: float,
        weights: Sequence[float] = (1.0,),
    ) -> None:
        """weights: of the conditional predictions, n - 1 of them (Liu et al., arXiv 2206.01714).
        Raises BundleError for a prediction type that is not one of PREDICTION_TYPES.
        """
        if prediction_type not in PREDICTION_TYPES:
            raise BundleError(
                f"unknown prediction type '{prediction_type}'",
                hint=f"one of: {', '.join(PREDICTION_TYPES)}",
            )
        self._predict = predict
        self._prediction_type = prediction_type
        self._guidance = tuple(np.float32(guidance_scale * weight) for weight in weights)
        self._input = np.empty((0, 0, 0, 0), dtype=np.float32)
        self._denoised = self._input
        self._term = self._input

    def __call__(self, x: Float32, moment: Moment) -> Float32:
        """Denoise x f32[p, 4, h, w]; the result is a buffer that the next call overwrites."""
        if self._denoised.shape != x.shape:
            self._input, self._denoised, self._term = (
                np.empty(x.shape, dtype=np.float32) for _ in range(3)
            )
        sigma = moment.sigma
        np.multiply(x, np.float32(1.0 / math.sqrt(sigma**2 + 1.0)), out=self._input)
        prediction = self._predict(self._input, moment)  # (n * p, 4, h, w)
        c_skip, c_out = scalings(self._prediction_type, sigma)
        denoised, term = self._denoised, self._term
        if len(prediction) == len(x):
            np.multiply(prediction, np.float32(c_out), out=denoised)
        else:
            self._guide(prediction)
            np.multiply(denoised, np.float32(c_out), out=denoised)
        np.multiply(x, np.float32(c_skip), out=term)
        return np.add(denoised, term, out=denoised)

    def _guide(self, prediction: Float32) -> None:
        denoised, term = self._denoised, self._term
        pictures = len(denoised)
        unconditional = prediction[:pictures]
        for place, guidance in enumerate(self._guidance, start=1):
            into = denoised if place == 1 else term
            start = place * pictures
            np.subtract(prediction[start : start + pictures], unconditional, out=into)
            np.multiply(into, guidance, out=into)
            if place > 1:
                np.add(denoised, term, out=denoised)
        np.add(denoised, unconditional, out=denoised)


def scalings(prediction_type: str, sigma: float) -> tuple[float, float]:
    """Give c_skip and c_out of denoised = c_skip * x + c_out * prediction."""
    if prediction_type == "epsilon":
        return 1.0, -sigma
    if prediction_type == "v_prediction":  # arXiv 2202.00512, appendix D
        return 1.0 / (sigma**2 + 1.0), -sigma / math.sqrt(sigma**2 + 1.0)
    return 0.0, 1.0
