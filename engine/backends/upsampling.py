"""Doubling a picture and a 3x3 convolution of it: one operation with four ninths of the products.

Nearest neighbours give each pixel four times, so of nine weights those that meet the same pixel are
added beforehand: what is left is the transposed convolution by the weights' sums, 4x4, stride 2.
"""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["doubled_picture", "fold_upsampling", "only_reader", "plain_weight"]

# Ways to say that pixel i of the doubled picture is pixel i // 2.
_HALVING: Final = {
    ("asymmetric", "floor"),
    ("half_pixel", "round_prefer_floor"),
    ("half_pixel", "round_prefer_ceil"),
}


def fold_upsampling(op: Any, graph: Any) -> Iterator[str]:
    """Replace each place; gives their names."""
    for node in list(graph.get_ordered_ops()):
        weight = plain_weight(node)
        x = None if weight is None else doubled_picture(node)
        if weight is None or x is None:
            continue
        kernel = _kernel(np.asarray(weight, np.float32))
        stride, one = [2, 2], [1, 1]
        result = op.convolution_backprop_data(
            x, op.constant(kernel), stride, pads_begin=one, pads_end=one, dilations=one
        )
        node.output(0).replace(result.output(0))
        yield node.get_friendly_name()


def _kernel(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Add the weights that meet the same pixel: [out, in, 3, 3] -> [in, out, 4, 4]."""
    for axis in (2, 3):
        first, middle, last = (weight.take(place, axis) for place in range(3))
        weight = np.stack([last, middle + last, first + middle, first], axis)
    return np.ascontiguousarray(weight.transpose(1, 0, 2, 3))


def doubled_picture(convolution: Any) -> Any:
    """Give the output that is doubled, by nearest neighbours, to what a convolution takes alone;
    None where there is none.
    """
    node = convolution.input_value(0).get_node()
    reader = convolution
    while _keeps_all(node) and only_reader(node) == reader:
        node, reader = node.input_value(0).get_node(), node
    if node.get_type_name() != "Interpolate" or only_reader(node) != reader:
        return None
    how = node.get_attributes()
    x = node.input_value(0)
    if how["mode"] != "nearest" or any(how["pads_begin"]) or any(how["pads_end"]):
        return None
    if (how["coordinate_transformation_mode"], how["nearest_mode"]) not in _HALVING:
        return None
    if x.get_partial_shape().is_dynamic or node.get_output_partial_shape(0).is_dynamic:
        return None
    before, after = list(x.get_shape()), list(node.output(0).get_shape())
    if len(before) != 4 or after != [*before[:2], 2 * before[2], 2 * before[3]]:
        return None
    return x


def _keeps_all(node: Any) -> bool:
    """Say whether a node cuts nothing off: exporters write a slice to the size that it has."""
    if node.get_type_name() not in {"Slice", "StridedSlice"}:
        return False
    return node.get_input_partial_shape(0) == node.get_output_partial_shape(0)


def plain_weight(node: Any) -> NDArray[Any] | None:
    """Give the weights, as they are stored, of a plain 3x3 convolution that pads by one."""
    if node.get_type_name() != "Convolution":
        return None
    how = node.get_attributes()
    ones = ("strides", "dilations", "pads_begin", "pads_end")
    if any(list(how[name]) != [1, 1] for name in ones):
        return None
    value = node.input_value(1).get_node()
    if value.get_type_name() == "Convert":
        value = value.input_value(0).get_node()
    return (
        value.data
        if value.get_type_name() == "Constant" and value.data.shape[2:] == (3, 3)
        else None
    )


def only_reader(node: Any) -> Any:
    """Give the one node that reads values; those that ask for the shape are nobody's."""
    found = [each.get_node() for each in node.output(0).get_target_inputs()]
    found = [each for each in found if each.get_type_name() != "ShapeOf"]
    return found[0] if len(found) == 1 else None
