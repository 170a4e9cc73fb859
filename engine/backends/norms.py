"""Group normalisation in a graph by our own kernel, with gain, bias and SiLU, channels last.

The plugin normalises groups channels first and so turns pictures around before and after; taken
apart (`rewrites`) it reads and writes them six times. The kernel reads twice and writes once, where
convolutions leave a picture and take it: the transpositions here are none for the plugin.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from engine.backends.bf16 import as_bf16, as_f32
from engine.backends.convolutions import CONVOLUTION
from engine.backends.ownoperations import channels_last, keep
from engine.backends.rewrites import group_norm
from engine.kernels.library import Kernels, Norm

__all__ = ["norm_operation", "normalise_by_kernel"]

LEAST: Final = 1 << 18  # values: below, starting threads costs more than it saves
_CHANNELS: Final = 4096
_WHOLE: Final = ("batches", "pixels", "channels", "groups", "silu")


@dataclass(frozen=True, kw_only=True)
class _Found:
    x: Any
    last: Any  # the node whose output is replaced
    gain: NDArray[np.float32]
    bias: NDArray[np.float32]
    sizes: Norm


def norm_operation(ov: Any, kernels: Kernels, *, bf16: bool = True) -> type:
    """Give the operation's class for `ov`, the openvino module; `Core.add_extension` takes it.

    bf16: else it takes and gives f32.
    """

    class SafelightNorm(ov.Op):
        """Take x with memory as [batches, pixels, channels], gain and bias f32[channels]."""

        def __init__(self, inputs: Any = None, fields: Any = None) -> None:
            super().__init__(self)  # pyright: ignore[reportUnknownMemberType]
            keep(self)
            self.fields: dict[str, Any] = dict(fields) if fields else {}
            for name in _WHOLE:
                self.fields.setdefault(name, 0)
            self.fields.setdefault("epsilon", 0.0)
            if inputs is not None:
                self.set_arguments(inputs)
                self.constructor_validate_and_infer_types()

        def validate_and_infer_types(self) -> None:
            shape = list(self.get_input_partial_shape(0).to_shape())
            if bf16:
                shape = [1] * (7 - len(shape)) + shape
            kind = ov.Type.bf16 if bf16 else ov.Type.f32
            self.set_output_type(0, kind, ov.PartialShape(shape))

        def clone_with_new_inputs(self, inputs: Any) -> Any:
            return SafelightNorm(inputs, self.fields)

        def visit_attributes(self, visitor: Any) -> bool:
            visitor.on_attributes(self.fields)
            return True

        def has_evaluate(self) -> bool:
            return True

        def evaluate(self, outputs: Any, inputs: Any) -> bool:
            x, gain, bias = (each.data.ctypes.data for each in inputs)
            addresses = (x, outputs[0].data.ctypes.data, gain, bias)
            kernels.normalise(Norm(**self.fields), addresses, bf16=bf16)
            return True

    return SafelightNorm


def normalise_by_kernel(ov: Any, graph: Any, made: type, *, bf16: bool = True) -> int:
    """Replace what is worth it; gives how many. made: what `norm_operation` gave, for the same
    `bf16`. In f32 that is between convolutions of our own: pictures need not be turned there.
    """
    op, many = ov.opset13, 0
    if not bf16 and all(node.get_type_name() != CONVOLUTION for node in graph.get_ordered_ops()):
        return 0
    for found in list(_norms(graph)):
        if not bf16 and found.sizes.channels % 8:
            continue
        batches, channels, height, width = found.x.get_shape()
        order = op.constant(np.array([0, 2, 3, 1]))
        if not bf16:
            inputs = [channels_last(op, found.x)]
        elif found.x.get_node().get_type_name() == "Add":
            # Added within a convolution: a transposition right behind that is done, and badly.
            inputs = [op.transpose(op.convert(found.x, "bf16"), order).output(0)]
        else:
            inputs = [as_bf16(op, op.transpose(found.x, order).output(0))]
        inputs += [op.constant(each).output(0) for each in (found.gain, found.bias)]
        fields = {name: getattr(found.sizes, name) for name in (*_WHOLE, "epsilon")}
        result = made(inputs, fields)
        if bf16:
            result = as_f32(op, result, [batches, height, width, channels])
        back = op.transpose(result, op.constant(np.array([0, 3, 1, 2])))
        found.last.output(0).replace(back.output(0))
        many += 1
    return many


def _norms(graph: Any) -> Iterator[_Found]:
    for node in graph.get_ordered_ops():
        found: tuple[Any, tuple[int, int], int] | None = group_norm(node)
        if found is not None:
            x, (batches, channels), groups = found
            height, width = x.get_shape()[2:]
            pixels: int = height * width
            if batches * channels * pixels >= LEAST and channels <= _CHANNELS:
                last, gain, bias = _gain_and_bias(node, channels, groups)
                if last is None:
                    continue
                end = _silu(last)
                sizes = Norm(
                    batches=batches,
                    pixels=pixels,
                    channels=channels,
                    groups=groups,
                    epsilon=float(node.get_attributes()["eps"]),
                    silu=int(end is not None),
                )
                yield _Found(x=x, last=end or last, gain=gain, bias=bias, sizes=sizes)


def _gain_and_bias(
    node: Any, channels: int, groups: int
) -> tuple[Any, NDArray[np.float32], NDArray[np.float32]]:
    """Follow factors and summands of groups and channels; gives the last node that is [B, C, H, W],
    None where there is none.
    """
    gain, bias = np.ones(channels, np.float32), np.zeros(channels, np.float32)
    last: Any = None
    so_far: tuple[Any, NDArray[np.float32], NDArray[np.float32]] = (None, gain, bias)
    while (reader := _reader(node)) is not None:
        kind: str = reader.get_type_name()
        if kind in {"Multiply", "Add"}:
            other = reader.input_value(1 if reader.input_value(0).get_node() == node else 0)
            values = _values(other, channels, groups if last is None else channels)
            if values is None:
                break
            gain, bias = (
                (gain * values, bias * values) if kind == "Multiply" else (gain, bias + values)
            )
        elif kind == "Reshape" and last is None and len(reader.output(0).get_shape()) == 4:
            last = reader
        else:
            break
        node = reader
        if last is not None:
            so_far = (node, gain, bias)
    return so_far


def _values(output: Any, channels: int, size: int) -> NDArray[np.float32] | None:
    """Give a value a channel where `output` is a constant of `size` values (channels or groups)."""
    node = output.get_node()
    while node.get_type_name() in {"Convert", "Reshape", "Unsqueeze"}:
        node = node.input_value(0).get_node()
    if node.get_type_name() != "Constant" or node.data.size != size:
        return None
    return np.repeat(np.asarray(node.data, np.float32).ravel(), channels // size)


def _silu(node: Any) -> Any:
    """Give the node that multiplies `node` by its own sigmoid, where nobody else reads it."""
    readers = _readers(node)
    kinds = sorted(each.get_type_name() for each in readers)
    if kinds == ["Swish"]:
        return readers[0]
    if kinds != ["Multiply", "Sigmoid"]:
        return None
    product, sigmoid = sorted(readers, key=lambda each: each.get_type_name())
    sources = {product.input_value(place).get_node() for place in (0, 1)}
    return product if sources == {node, sigmoid} and _reader(sigmoid) == product else None


def _readers(node: Any) -> list[Any]:
    """Give the nodes that read values; those that ask for the shape are nobody's."""
    found = [each.get_node() for each in node.output(0).get_target_inputs()]
    return [each for each in found if each.get_type_name() != "ShapeOf"]


def _reader(node: Any) -> Any:
    readers = _readers(node)
    return readers[0] if len(readers) == 1 else None
