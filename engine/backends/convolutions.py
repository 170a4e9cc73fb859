"""3x3 convolutions in a graph by our own kernel (Winograd's algorithm), in fp32, channels last.

The plugin's own convolutions multiply all nine weights; the kernel does with a quarter of these
products. They leave their pictures channels last as well, so the transpositions here are none.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from engine.backends.ownoperations import channels_last, keep
from engine.backends.upsampling import doubled_picture, only_reader, plain_weight
from engine.kernels.library import Convolution, Kernels
from engine.kernels.winograd import packed

__all__ = ["CONVOLUTION", "convolution_operation", "convolve_by_kernel"]

CONVOLUTION: Final = "SafelightConvolution"  # the operation's name in a graph
# Where the kernel is faster: products of a convolution with many and with few pixels of all
# pictures (`winograd.c` has another way for these), and channels.
FEW_PIXELS: Final = 2048
LEAST: Final = 3 << 30
LEAST_OF_FEW: Final = 3 << 29
LEAST_CHANNELS: Final = 128
_FIELDS: Final = ("batches", "height", "width", "inputs", "outputs", "doubled", "half")


@dataclass(frozen=True, kw_only=True)
class _Found:
    x: Any
    last: Any  # the node whose output is replaced
    weight: NDArray[Any]
    bias: NDArray[np.float32]  # [outputs]
    shift: Any  # what is added to each channel of a picture beside it [batches, outputs, 1, 1]
    more: Any  # what is added to each value
    sizes: Convolution


def convolution_operation(ov: Any, kernels: Kernels) -> type:
    """Give the operation's class for `ov`, the openvino module; `Core.add_extension` takes it."""

    class SafelightConvolution(ov.Op):
        """Take x f32[batches, height, width, inputs], the bytes of weights as
        `engine.kernels.winograd` packs them, bias f32[batches, outputs] and, if there is any, what
        is added to the result.
        """

        def __init__(self, inputs: Any = None, fields: Any = None) -> None:
            super().__init__(self)  # pyright: ignore[reportUnknownMemberType]
            keep(self)
            self.fields: dict[str, Any] = dict(fields) if fields else {}
            for name in _FIELDS:
                self.fields.setdefault(name, 0)
            if inputs is not None:
                self.set_arguments(inputs)
                self.constructor_validate_and_infer_types()

        def validate_and_infer_types(self) -> None:
            shape = [self.fields[name] for name in ("batches", "height", "width", "outputs")]
            self.set_output_type(0, ov.Type.f32, ov.PartialShape(shape))

        def clone_with_new_inputs(self, inputs: Any) -> Any:
            return SafelightConvolution(inputs, self.fields)

        def visit_attributes(self, visitor: Any) -> bool:
            visitor.on_attributes(self.fields)
            return True

        def has_evaluate(self) -> bool:
            return True

        def evaluate(self, outputs: Any, inputs: Any) -> bool:
            x, weights, bias, *more = (each.data.ctypes.data for each in inputs)
            addresses = (x, outputs[0].data.ctypes.data, weights, bias, more[0] if more else 0)
            kernels.convolve(Convolution(**self.fields), addresses)
            return True

    return SafelightConvolution


def convolve_by_kernel(ov: Any, graph: Any, made: type) -> int:
    """Replace what is worth it; gives how many. made: what `convolution_operation` gave."""
    op, many = ov.opset13, 0
    for found in _convolutions(graph):  # one by one: what one reads may be what another gives
        sizes = found.sizes
        bias = op.constant(np.tile(found.bias, (sizes.batches, 1))).output(0)
        if found.shift is not None:
            flat = op.constant(np.array([sizes.batches, sizes.outputs]))
            bias = op.add(op.reshape(found.shift, flat, False), bias).output(0)
        inputs = [
            channels_last(op, found.x),
            # As bytes: the plugin would make f32 of fp16.
            op.constant(packed(found.weight).reshape(-1).view(np.uint8)).output(0),
            bias,
        ]
        if found.more is not None:
            inputs.append(channels_last(op, found.more))
        node = made(inputs, {name: getattr(sizes, name) for name in _FIELDS})
        back = op.transpose(node, op.constant(np.array([0, 3, 1, 2])))
        found.last.output(0).replace(back.output(0))
        many += 1
    return many


def _convolutions(graph: Any) -> Iterator[_Found]:
    for node in graph.get_ordered_ops():
        weight = plain_weight(node)
        if weight is None or node.get_output_partial_shape(0).is_dynamic:
            continue
        batches, inputs, height, width = node.input_value(0).get_shape()
        half = doubled_picture(node)
        outputs: int = weight.shape[0]
        pixels = batches * height * width
        if inputs % 8 or outputs % 8 or min(inputs, outputs) < LEAST_CHANNELS:
            continue
        few = pixels < FEW_PIXELS
        if 9 * pixels * inputs * outputs < (LEAST_OF_FEW if few else LEAST):
            continue
        last, bias, shift, more = _added(node, outputs)
        sizes = Convolution(
            batches=batches,
            height=height,
            width=width,
            inputs=inputs,
            outputs=outputs,
            doubled=int(half is not None),
            half=int(weight.dtype == np.float16),
        )
        x = node.input_value(0) if half is None else half
        yield _Found(x=x, last=last, weight=weight, bias=bias, shift=shift, more=more, sizes=sizes)


def _added(node: Any, outputs: int) -> tuple[Any, NDArray[np.float32], Any, Any]:
    """Follow the sums behind a convolution: gives the last one, what is added to each channel, to
    each channel of each picture and to each value; the last two are None where there is nothing.
    """
    bias, shift, more = np.zeros(outputs, np.float32), None, None
    whole = list(node.output(0).get_shape())
    while more is None and (add := only_reader(node)) is not None:
        if add.get_type_name() != "Add":
            break
        other = add.input_value(1 if add.input_value(0).get_node() == node else 0)
        shape, value = other.get_partial_shape(), _constant(other)
        size = None if shape.is_dynamic else list(shape.to_shape())
        if value is not None and size in ([1, outputs, 1, 1], [outputs, 1, 1]):
            bias = bias + np.asarray(value, np.float32).ravel()
        elif shift is None and size == [whole[0], outputs, 1, 1]:
            shift = other
        elif size == whole:
            more = other
        else:
            break
        node = add
    return node, bias, shift, more


def _constant(output: Any) -> Any:
    """Give a constant's numbers as they are stored, or None for what is computed."""
    node = output.get_node()
    while node.get_type_name() in {"Convert", "Reshape", "Unsqueeze"}:
        node = node.input_value(0).get_node()
    return node.data if node.get_type_name() == "Constant" else None
