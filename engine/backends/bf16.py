"""How an operation of our own gets bf16 from OpenVINO's CPU plugin, and gives it back, uncopied.

In a graph everything is f32; the plugin computes in bf16 what it can. An operation that it does not
know gets the type that the graph says, so there is a Convert at its border, which converts nothing
then. The plugin drops it as such, unless it was made into code of its own before: a copy of the
whole tensor. Tensors of seven dimensions it does not make into code.
"""

from typing import Any, Final

import numpy as np

__all__ = ["as_bf16", "as_f32"]

_RANK: Final = 7


def as_bf16(op: Any, output: Any) -> Any:
    """Give `output`, f32 of a known shape, as bf16[1, ..., the last dimensions]."""
    shape = list(output.get_shape())
    shape = [1] * (_RANK - len(shape)) + shape
    return op.convert(op.reshape(output, op.constant(np.array(shape)), False), "bf16").output(0)


def as_f32(op: Any, node: Any, shape: list[int]) -> Any:
    """Give the node's bf16 output as f32 of `shape`."""
    return op.reshape(op.convert(node, "f32"), op.constant(np.array(shape)), False)
