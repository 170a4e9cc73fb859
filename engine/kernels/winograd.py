"""The weights of a 3x3 convolution as `winograd.c` takes them."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["COLUMNS", "packed", "transformed"]

COLUMNS: Final = 16  # outputs that lie together
_R: Final = 2.0**0.5
# Rows: the points 0, r, -r, 1/r, -1/r and infinity, divided by what the inputs' side leaves out.
_G: Final = np.array(
    [
        [1.0, 0.0, 0.0],
        [1 / 6, _R / 6, 1 / 3],
        [1 / 6, -_R / 6, 1 / 3],
        [-2 / 3, -_R / 3, -1 / 3],
        [-2 / 3, _R / 3, -1 / 3],
        [0.0, 0.0, 1.0],
    ]
)


def transformed(weight: NDArray[Any]) -> NDArray[np.float32]:
    """Give f32[36, outputs / 16, inputs, 16] of weights [outputs, inputs, 3, 3]; outputs that are
    no multiple of 16 are filled up with zeros.
    """
    outputs, inputs = weight.shape[:2]
    groups = -(-outputs // COLUMNS)
    made = np.zeros((36, groups, inputs, COLUMNS), np.float32)
    for group in range(groups):  # in parts: in float64, all of it is eight times the weights
        part = weight[group * COLUMNS : (group + 1) * COLUMNS].astype(np.float64)
        spread = np.tensordot(np.tensordot(part, _G, (2, 1)), _G, (2, 1))  # [out, in, 6, 6]
        made[:, group, :, : len(part)] = spread.transpose(2, 3, 1, 0).reshape(36, inputs, -1)
    return made


def packed(weight: NDArray[Any]) -> NDArray[np.float32]:
    """Give f32[outputs / 16, inputs, 9, 16] of weights [outputs, inputs, 3, 3], not transformed;
    filled up as `transformed` does.
    """
    outputs, inputs = weight.shape[:2]
    made = np.zeros((-(-outputs // COLUMNS) * COLUMNS, inputs, 9), np.float32)
    made[:outputs] = weight.reshape(outputs, inputs, 9)
    return np.ascontiguousarray(made.reshape(-1, COLUMNS, inputs, 9).transpose(0, 2, 3, 1))
