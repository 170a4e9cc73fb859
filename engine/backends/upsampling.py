"""Doubling a picture and a 3x3 convolution of it: one operation with four ninths of the products.

Nearest neighbours give each pixel four times, so of nine weights those that meet the same pixel are
added beforehand: what is left is the transposed convolution by the weights' sums, 4x4, stride 2.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["fold_upsampling"]

# Ways to say that pixel i of the doubled picture is pixel i // 2.
_HALVING: Final = {
    ("asymmetric", "floor"),
    ("half_pixel", "round_prefer_floor"),
    ("half_pixel", "round_prefer_ceil"),
}


@dataclass(frozen=True, kw_only=True)
class _Found:
    x: Any
    weight: NDArray[np.float32]  # [out, in, 3, 3]
    last: Any


def fold_upsampling(op: Any, graph: Any) -> Iterator[str]:
    """Replace each place; gives their names."""
    for node in list(graph.get_ordered_ops()):
        found = _doubled(node)
        if found is None:
            continue
        kernel = _kernel(found.weight)
        stride, one = [2, 2], [1, 1]
        result = op.convolution_backprop_data(
            found.x, op.constant(kernel), stride, pads_begin=one, pads_end=one, dilations=one
        )
        found.last.output(0).replace(result.output(0))
        yield found.last.get_friendly_name()


def _kernel(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Add the weights that meet the same pixel: [out, in, 3, 3] -> [in, out, 4, 4]."""
    for axis in (2, 3):
        first, middle, last = (weight.take(place, axis) for place in range(3))
        weight = np.stack([last, middle + last, first + middle, first], axis)
    return np.ascontiguousarray(weight.transpose(1, 0, 2, 3))


def _doubled(interpolate: Any) -> _Found | None:
    if interpolate.get_type_name() != "Interpolate":
        return None
    how = interpolate.get_attributes()
    x = interpolate.input_value(0)
    if how["mode"] != "nearest" or any(how["pads_begin"]) or any(how["pads_end"]):
        return None
    if (how["coordinate_transformation_mode"], how["nearest_mode"]) not in _HALVING:
        return None
    if x.get_partial_shape().is_dynamic or interpolate.get_output_partial_shape(0).is_dynamic:
        return None
    before, after = list(x.get_shape()), list(interpolate.output(0).get_shape())
    if len(before) != 4 or after != [*before[:2], 2 * before[2], 2 * before[3]]:
        return None
    convolution = _reader(interpolate)
    while convolution is not None and _keeps_all(convolution):
        convolution = _reader(convolution)
    weight = _weight(convolution)
    return None if weight is None else _Found(x=x, weight=weight, last=convolution)


def _keeps_all(node: Any) -> bool:
    """Say whether a node cuts nothing off: exporters write a slice to the size that it has."""
    same = node.get_input_partial_shape(0) == node.get_output_partial_shape(0)
    return node.get_type_name() in {"Slice", "StridedSlice"} and same


def _weight(convolution: Any) -> NDArray[np.float32] | None:
    """Give the weights of a plain 3x3 convolution that pads by one."""
    if convolution is None or convolution.get_type_name() != "Convolution":
        return None
    how = convolution.get_attributes()
    if any(
        list(how[name]) != [1, 1] for name in ("strides", "dilations", "pads_begin", "pads_end")
    ):
        return None
    node = convolution.input_value(1).get_node()
    if node.get_type_name() == "Convert":
        node = node.input_value(0).get_node()
    if node.get_type_name() != "Constant" or node.data.shape[2:] != (3, 3):
        return None
    return np.asarray(node.data, np.float32)


def _reader(node: Any) -> Any:
    """Give the one node that reads values; those that ask for the shape are nobody's."""
    found = [each.get_node() for each in node.output(0).get_target_inputs()]
    found = [each for each in found if each.get_type_name() != "ShapeOf"]
    return found[0] if len(found) == 1 else None
