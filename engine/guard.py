"""The guard against NaN and Inf: low precision can overflow, and that spreads to all pixels."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["DECODE_REPAIR", "DENOISE_REPAIR", "finite"]

# How a picture's record names what had to be done again.
DENOISE_REPAIR = "denoise in fp32"
DECODE_REPAIR = "decode in fp32"


def finite(values: NDArray[np.float32]) -> bool:
    """Say whether every value is finite: one pass, once a picture and stage."""
    return bool(np.isfinite(values).all())
