"""The table that a sampler becomes for a fixed schedule.

Every sampler here is linear in what it has seen. One row is one network evaluation:

    denoised[0] = denoise(x[0], sigma, timestep)
    x'          = sum_k c_k * term_k   over  x[0], x[1], ... | denoised[0], denoised[1], ... | noise

x[1] is the latents before x[0] (the previous row's input), denoised[1] the previous prediction.
x lives in the variance-exploding space of k-diffusion: x = x0 + sigma * eps, the network sees
x / sqrt(sigma**2 + 1). Samplers with two evaluations a step (Heun) are two rows.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.schedule import Schedule

__all__ = ["Schedule", "Table"]

Float64 = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """All rows of a sampler on one schedule, float64 on the host, applied in float32.

    sigmas, timesteps: f64[rows], where each row evaluates the network. steps: int64[rows], which
    step (from 0) the row belongs to. x: f64[rows, X], denoised: f64[rows, D], noise: f64[rows], the
    coefficients; noise is drawn only where it is not 0. initial_scale: as in the schedule.
    final_scale: the result is x * final_scale (1 unless a sampler ends at a sigma above 0).
    """

    sigmas: Float64
    timesteps: Float64
    steps: NDArray[np.int64]
    x: Float64
    denoised: Float64
    noise: Float64
    initial_scale: float
    final_scale: float = 1.0
