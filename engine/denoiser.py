"""The denoiser: what the network predicts, guidance and input scaling, behind one call."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from engine.errors import BundleError
from engine.training import PREDICTION_TYPES

__all__ = ["Denoiser", "Predict"]

Float32 = NDArray[np.float32]
Predict = Callable[[Float32, float], Float32]


class Denoiser:
    """Give the clean latents that the network believes in: `(x, sigma, timestep) -> denoised`.

    predict(x2 f32[2 | 1, 4, h, w], timestep) -> f32 of the same shape: the network on the
    unconditional half first and the conditional one second, or with guidance_scale 1 on the
    conditional one alone. x lives at x0 + sigma * eps; the network sees x / sqrt(sigma**2 + 1).
    One denoiser serves one picture at a time: its buffers are reused.
    """

    def __init__(self, predict: Predict, prediction_type: str, guidance_scale: float) -> None:
        """Raise BundleError for a prediction type that is not one of PREDICTION_TYPES."""
        if prediction_type not in PREDICTION_TYPES:
            raise BundleError(
                f"unknown prediction type '{prediction_type}'",
                hint=f"one of: {', '.join(PREDICTION_TYPES)}",
            )
        self._predict = predict
        self._prediction_type = prediction_type
        self._guidance = np.float32(guidance_scale)
        self._halves = 1 if guidance_scale == 1.0 else 2
        self._input = np.empty((0, 0, 0, 0), dtype=np.float32)
        self._denoised = self._input
        self._term = self._input

    def __call__(self, x: Float32, sigma: float, timestep: float) -> Float32:
        """Denoise x f32[1, 4, h, w]; the result is a buffer that the next call overwrites."""
        if self._denoised.shape != x.shape:
            self._input = np.empty((self._halves, *x.shape[1:]), dtype=np.float32)
            self._denoised = np.empty(x.shape, dtype=np.float32)
            self._term = np.empty(x.shape, dtype=np.float32)
        np.multiply(x, np.float32(1.0 / math.sqrt(sigma**2 + 1.0)), out=self._input)
        prediction = self._predict(self._input, timestep)  # (2, 4, h, w), or (1, 4, h, w)
        c_skip, c_out = _scalings(self._prediction_type, sigma)
        denoised, term = self._denoised, self._term
        if self._halves == 2:
            unconditional, conditional = prediction[:1], prediction[1:]
            np.subtract(conditional, unconditional, out=denoised)
            np.multiply(denoised, self._guidance, out=denoised)
            np.add(denoised, unconditional, out=denoised)
            np.multiply(denoised, np.float32(c_out), out=denoised)
        else:
            np.multiply(prediction, np.float32(c_out), out=denoised)
        np.multiply(x, np.float32(c_skip), out=term)
        return np.add(denoised, term, out=denoised)


def _scalings(prediction_type: str, sigma: float) -> tuple[float, float]:
    """Give c_skip and c_out of denoised = c_skip * x + c_out * prediction."""
    if prediction_type == "epsilon":
        return 1.0, -sigma
    if prediction_type == "v_prediction":  # arXiv 2202.00512, appendix D
        return 1.0 / (sigma**2 + 1.0), -sigma / math.sqrt(sigma**2 + 1.0)
    return 0.0, 1.0
