"""Guidance that a distilled network takes as an input: the scale, written as an embedding.

A latent consistency model was distilled from guided predictions, with the scale told to the network
beside the timestep (Luo et al., arXiv 2310.04378, section 4.2). It runs once a step: there is no
unconditional half, and so no place for a negative prompt.
"""

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["guidance_embedding"]

_MAX_PERIOD = 10_000.0  # of the sinusoids, as for timesteps
_SCALE = 1000.0  # guidance is stretched to the range of timesteps


def guidance_embedding(guidance_scale: float, dim: int) -> NDArray[np.float32]:
    """Embed a guidance scale (1 = off) as the network's `timestep_cond`: f32[1, dim], dim >= 4.

    Sines, then cosines, of 1000 * (scale - 1) at falling frequencies; an odd dim ends in a zero.
    Computed in float32, as the networks were trained: at the highest frequency the angle is some
    thousands, so that a rounding of it shows in the fourth decimal.
    """
    half = dim // 2
    step = np.float32(math.log(_MAX_PERIOD)) / np.float32(half - 1)
    frequencies = np.exp(np.arange(half, dtype=np.float32) * -step)
    angles = np.float32(guidance_scale - 1.0) * np.float32(_SCALE) * frequencies
    both = np.concatenate([np.sin(angles), np.cos(angles), np.zeros(dim % 2, np.float32)])
    return both[None].astype(np.float32)
