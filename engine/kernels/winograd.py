"""The weights of a 3x3 convolution as `winograd.c` takes them."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["COLUMNS", "packed"]

COLUMNS: Final = 16  # outputs that lie together


def packed(weight: NDArray[np.floating]) -> NDArray[np.floating]:
    """Give [outputs / 16, inputs, 9, 16] of weights [outputs, inputs, 3, 3], f16 as f16 and all
    else as f32; outputs that are no multiple of 16 are filled up with zeros.
    """
    outputs, inputs = weight.shape[:2]
    kept = weight.dtype if weight.dtype == np.float16 else np.float32
    made = np.zeros((-(-outputs // COLUMNS) * COLUMNS, inputs, 9), kept)
    made[:outputs] = weight.reshape(outputs, inputs, 9)
    return np.ascontiguousarray(made.reshape(-1, COLUMNS, inputs, 9).transpose(0, 2, 3, 1))
