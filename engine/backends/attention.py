"""Attention in a graph by our own kernel: found by structure, replaced by one operation.

Exporters write q k^T, a scale, Softmax, and the product with v, with reshapes and transpositions
that bring heads to the front and back. The kernel reads heads where they lie, so those go too.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from engine.backends.bf16 import as_bf16, as_f32
from engine.backends.ownoperations import keep
from engine.kernels.library import Attention, Kernels, Tensor

__all__ = ["attend_by_kernel", "attention_operation"]

# Where the kernels are faster than OpenVINO's own: values of a head, keys, and queries times keys;
# in f32, products of either multiplication.
WIDTHS: Final = range(32, 81)
LEAST_KEYS: Final = 64
LEAST_SCORES: Final = 256 * 256
WIDTHS_F32: Final = range(32, 161, 8)
LEAST_F32: Final = 1 << 26
_FIELDS: Final = ("batches", "heads", "queries", "keys", "width")


@dataclass(frozen=True, kw_only=True)
class _Found:
    q: Any
    k: Any
    v: Any
    last: Any  # the node whose output is replaced: [batches, queries, heads, width]
    sizes: Attention


def attention_operation(ov: Any, kernels: Kernels, *, bf16: bool = True) -> type:
    """Give the operation's class for `ov`, the openvino module; `Core.add_extension` takes it.

    bf16: else it takes and gives f32.
    """

    class SafelightAttention(ov.Op):
        """Take q, k, v and give o, all with memory as [batches, length, heads, width]."""

        def __init__(self, inputs: Any = None, fields: Any = None) -> None:
            super().__init__(self)  # pyright: ignore[reportUnknownMemberType]
            keep(self)
            self.fields: dict[str, Any] = dict(fields) if fields else {}
            for name in _FIELDS:
                self.fields.setdefault(name, 0)
            self.fields.setdefault("scale", 0.0)
            if inputs is not None:
                self.set_arguments(inputs)
                self.constructor_validate_and_infer_types()

        def validate_and_infer_types(self) -> None:
            shape = [self.fields[name] for name in ("batches", "queries", "heads", "width")]
            if bf16:
                self.set_output_type(0, ov.Type.bf16, ov.PartialShape([1, 1, 1, *shape]))
            else:
                self.set_output_type(0, ov.Type.f32, ov.PartialShape(shape))

        def clone_with_new_inputs(self, inputs: Any) -> Any:
            return SafelightAttention(inputs, self.fields)

        def visit_attributes(self, visitor: Any) -> bool:
            visitor.on_attributes(self.fields)
            return True

        def has_evaluate(self) -> bool:
            return True

        def evaluate(self, outputs: Any, inputs: Any) -> bool:
            sizes = Attention(**self.fields)
            row = sizes.heads * sizes.width
            lengths = (sizes.queries, sizes.keys, sizes.keys, sizes.queries)
            tensors = [
                Tensor(tensor.data.ctypes.data, length * row, row, sizes.width)
                for tensor, length in zip((*inputs, outputs[0]), lengths, strict=True)
            ]
            q, k, v, o = tensors
            kernels.attend(sizes, (q, k, v, o), bf16=bf16)
            return True

    return SafelightAttention


def attend_by_kernel(ov: Any, graph: Any, made: type, *, bf16: bool = True) -> int:
    """Replace what the kernel takes; gives how many. made: what `attention_operation` gave, for the
    same `bf16`.
    """
    op, many = ov.opset13, 0
    for found in list(_attentions(graph, bf16=bf16)):
        inputs = [found.q, found.k, found.v]
        fields = {name: getattr(found.sizes, name) for name in (*_FIELDS, "scale")}
        if bf16:
            node = made([as_bf16(op, each) for each in inputs], fields)
            node = as_f32(op, node, list(found.last.output(0).get_shape()))
        else:
            node = made(inputs, fields)
        found.last.output(0).replace(node.output(0))
        many += 1
    return many


def _attentions(graph: Any, *, bf16: bool) -> Iterator[_Found]:
    for node in graph.get_ordered_ops():
        if node.get_type_name() in {"Softmax", "SoftMax"}:
            found = _attention(node)
            if found is not None and _worth_it(found.sizes, bf16=bf16):
                yield found


def _worth_it(sizes: Attention, *, bf16: bool) -> bool:
    scores = sizes.queries * sizes.keys
    if bf16:
        good = sizes.width in WIDTHS and scores >= LEAST_SCORES
    else:
        products = sizes.batches * sizes.heads * sizes.width * scores
        good = sizes.width in WIDTHS_F32 and products >= LEAST_F32
    return good and sizes.keys >= LEAST_KEYS


def _attention(softmax: Any) -> _Found | None:
    """Match softmax(scale q k^T) v, laid out as tokens with heads side by side."""
    joined = _products(softmax)
    if joined is None:
        return None
    product, value, last, scale = joined
    batches, heads, queries, keys = softmax.output(0).get_shape()
    width: int = value.output(0).get_shape()[3]
    b, h, d = ("b", batches), ("h", heads), ("d", width)
    q = _tokens(product.input_value(0), [b, h, ("n", queries), d])
    k = _tokens(product.input_value(1), [b, h, d, ("n", keys)])
    v = _tokens(value.input_value(1), [b, h, ("n", keys), d])
    if q is None or k is None or v is None or v[1] != 1.0:
        return None
    sizes = Attention(
        batches=batches,
        heads=heads,
        queries=queries,
        keys=keys,
        width=width,
        scale=scale * q[1] * k[1],
    )
    return _Found(q=q[0], k=k[0], v=v[0], last=last, sizes=sizes)


def _products(softmax: Any) -> tuple[Any, Any, Any, float] | None:
    """Give the product before, the one after, what brings its heads back, and the scale between."""
    shape = _static(softmax.output(0))
    value = _only_reader(softmax)
    if shape is None or len(shape) != 4 or softmax.get_attributes()["axis"] not in {3, -1}:
        return None
    if not _plain_product(value) or value.input_value(0).get_node() != softmax:
        return None
    scores, scale = _unscaled(softmax.input_value(0))
    last = _only_reader(value)
    if not _plain_product(scores.get_node()) or last is None or _order(last) != [0, 2, 1, 3]:
        return None
    return scores.get_node(), value, last, scale


def _tokens(output: Any, axes: list[tuple[str, int]]) -> tuple[Any, float] | None:
    """Follow transpositions, reshapes and scalar factors up to where memory has the order of
    [batches, length, heads, width]; gives that output and the product of the factors.

    axes: name and size of each axis of `output`.
    """
    factor = 1.0
    groups = [[each] for each in axes]
    while [name for group in groups for name, _ in group] != ["b", "n", "h", "d"]:
        output, more = _unscaled(output)
        factor *= more
        node = output.get_node()
        order = _order(node)
        if order is not None:
            groups = [groups[order.index(place)] for place in range(len(order))]
        elif node.get_type_name() == "Reshape":
            shape = _static(node.input_value(0))
            regrouped = None if shape is None else _regrouped(groups, shape)
            if regrouped is None:
                return None
            groups = regrouped
        else:
            return None
        output = node.input_value(0)
    return output, factor


def _regrouped(
    groups: list[list[tuple[str, int]]], shape: list[int]
) -> list[list[tuple[str, int]]] | None:
    """Deal the axes out anew, in the same order, over dimensions of `shape`; None if one is cut."""
    rest = [each for group in groups for each in group]
    dealt: list[list[tuple[str, int]]] = []
    for size in shape:
        group: list[tuple[str, int]] = []
        while rest and math.prod(many for _, many in group) * rest[0][1] <= size:
            if group and math.prod(many for _, many in group) == size:
                break
            group.append(rest.pop(0))
        if math.prod(many for _, many in group) != size:
            return None
        dealt.append(group)
    return None if rest else dealt


def _unscaled(output: Any) -> tuple[Any, float]:
    """Pass over factors that are one number."""
    factor = 1.0
    while output.get_node().get_type_name() in {"Multiply", "Divide"}:
        node = output.get_node()
        value = _number(node.input_value(1))
        if value is None or value == 0.0:
            break
        factor *= value if node.get_type_name() == "Multiply" else 1.0 / value
        output = node.input_value(0)
    return output, factor


def _number(output: Any) -> float | None:
    node = output.get_node()
    if node.get_type_name() == "Convert":
        node = node.input_value(0).get_node()
    if node.get_type_name() != "Constant" or node.data.size != 1:
        return None
    return float(np.asarray(node.data).ravel()[0])


def _order(node: Any) -> list[int] | None:
    """Give the order of a transposition that is known."""
    if node.get_type_name() != "Transpose":
        return None
    order = node.input_value(1).get_node()
    return order.data.tolist() if order.get_type_name() == "Constant" else None


def _plain_product(node: Any) -> bool:
    if node is None or node.get_type_name() != "MatMul":
        return False
    attributes = node.get_attributes()
    return not attributes["transpose_a"] and not attributes["transpose_b"]


def _static(output: Any) -> list[int] | None:
    shape = output.get_partial_shape()
    return None if shape.is_dynamic else list(shape.to_shape())


def _only_reader(node: Any) -> Any:
    readers = list(node.output(0).get_target_inputs())
    return readers[0].get_node() if len(readers) == 1 else None
