"""Weights in bf16 in the graph itself, where OpenVINO's CPU plugin computes with them in bf16.

The plugin rounds them so in any case, each time that it reads a compiled graph: kept as f32 they
are twice the bytes on the disk and twice the bytes to read at every start.
"""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["round_to_bf16", "weights_to_bf16"]

# Operation -> the inputs that are its weights.
_PRODUCTS: Final = {
    "MatMul": (0, 1),
    "Convolution": (1,),
    "ConvolutionBackpropData": (1,),
    "GroupConvolution": (1,),
}
_LEAST: Final = 1024  # values: smaller ones are not worth a node
_NAN: Final = 0x7FC0
# OpenVINO's mark of a Convert that stands for how weights are kept: it is not folded into them.
_KEPT_SO: Final = "decompression_0"


def weights_to_bf16(ov: Any, graph: Any) -> int:
    """Keep the weights of products as bf16, in place; gives how many. ov: the openvino module.

    The results are those of the f32 weights, bit for bit, where the plugin computes in bf16.
    """
    made = 0
    for node in list(graph.get_ordered_ops()):
        values = _weights(node)
        if values is None:
            continue
        kept = ov.opset13.constant(_as_tensor(ov, values), shared_memory=True)
        wide = ov.opset13.convert(kept, "f32")
        wide.get_rt_info()[_KEPT_SO] = True
        node.output(0).replace(wide.output(0))
        made += 1
    return made


def round_to_bf16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Round f32 to the nearest bf16, ties to even, and give its 16 bits; NaN stays NaN."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = bits >> 16  # in place from here on: an array of a network's weights is large
    rounded &= 1
    rounded += 0x7FFF
    rounded += bits  # wraps for NaN alone
    rounded >>= 16
    result = rounded.astype(np.uint16)
    if np.isnan(np.min(values, initial=0.0)):
        result[np.isnan(values)] = _NAN
    return result


def _weights(node: Any) -> NDArray[np.float32] | None:
    """Give the values of f32 weights, or of f16 that a Convert widens, where all that takes them
    are products.
    """
    kept = node.input_value(0).get_node() if node.get_type_name() == "Convert" else node
    if kept.get_type_name() != "Constant" or node.get_output_size() != 1:
        return None
    kinds = [each.get_element_type().get_type_name() for each in (kept, node)]
    if kinds not in (["f32", "f32"], ["f16", "f32"]) or kept.data.size < _LEAST:
        return None
    places = list(_places(node))
    if not places or not all(number in _PRODUCTS.get(kind, ()) for kind, number in places):
        return None
    return kept.data.astype(np.float32, copy=False)


def _places(node: Any) -> Iterator[tuple[str, int]]:
    """Give type and input number of all that takes the node's output."""
    for place in node.output(0).get_target_inputs():
        yield place.get_node().get_type_name(), int(place.get_index())


def _as_tensor(ov: Any, values: NDArray[np.float32]) -> Any:
    tensor = ov.Tensor(ov.Type.bf16, ov.Shape(values.shape))
    tensor.data.view(np.uint16)[...] = round_to_bf16(values)
    return tensor
