"""How each ONNX operator becomes a function of torch: (builder, node, inputs) -> outputs."""

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from engine.backends.torchbuilder import (
    Builder,
    Value,
    epsilon_of,
    floats_of,
    integer,
    integers,
    numbers_of,
    scalar,
    shape_of,
    tensor_of,
)
from engine.backends.torchfusions import FUSING
from engine.errors import BundleError
from engine.onnxgraph import Node

__all__ = ["OPERATORS", "PLAIN"]

DTYPES: Final[Mapping[int, str]] = {
    1: "float32",
    6: "int32",
    7: "int64",
    9: "bool",
    10: "float16",
    11: "float64",
}
# Operators that are one function of torch, number by number.
PLAIN: Final[Mapping[str, str]] = {
    "And": "logical_and",
    "Cos": "cos",
    "Equal": "eq",
    "Erf": "erf",
    "Exp": "exp",
    "Greater": "gt",
    "GreaterOrEqual": "ge",
    "Less": "lt",
    "LessOrEqual": "le",
    "Neg": "neg",
    "Not": "logical_not",
    "Pow": "pow",
    "Relu": "relu",
    "Round": "round",
    "Sigmoid": "sigmoid",
    "Sin": "sin",
    "Sqrt": "sqrt",
    "Sub": "sub",
    "Tanh": "tanh",
}


def _layer_norm(builder: Builder, node: Node, inputs: Sequence[Any]) -> list[Any]:
    x = builder.wide(inputs[0])
    weight, bias = (*map(builder.wide, inputs[1:]), None)[:2]
    axis = integer(node, "axis", -1)
    shape = shape_of(x)[axis:]
    norm = builder.torch.nn.functional.layer_norm
    return [builder.emit(norm, x, shape, weight, bias, epsilon_of(node))]


def _conv(builder: Builder, node: Node, inputs: Sequence[Any]) -> list[Any]:
    torch = builder.torch
    x, weight, bias = (*map(builder.wide, inputs), None)[:3]
    rank = len(shape_of(x)) - 2
    pads = integers(node, "pads") or (0,) * (2 * rank)
    before, after = pads[:rank], pads[rank:]
    if before != after:  # F.pad counts from the last side on
        sides = [each for pair in zip(before, after, strict=True) for each in pair]
        ordered = [side for place in reversed(range(rank)) for side in sides[2 * place :][:2]]
        x = builder.emit(torch.nn.functional.pad, x, tuple(ordered))
        before = (0,) * rank
    strides = integers(node, "strides") or (1,) * rank
    dilations = integers(node, "dilations") or (1,) * rank
    convolve = getattr(torch.nn.functional, f"conv{rank}d")
    groups = integer(node, "group", 1)
    return [builder.emit(convolve, x, weight, bias, strides, before, dilations, groups)]


def _gemm(builder: Builder, node: Node, inputs: Sequence[Any]) -> list[Any]:
    x, weight, bias = (*map(builder.wide, inputs), None)[:3]
    plain = all(node.attributes.get(name, 1.0) == 1.0 for name in ("alpha", "beta"))
    if not plain or integer(node, "transA", 0):
        raise BundleError("the graph has a Gemm with factors, which this back end does not know")
    if not integer(node, "transB", 0):
        weight = builder.emit(builder.torch.t, weight)
    return [builder.emit(builder.torch.nn.functional.linear, x, weight, bias)]


def _cast(builder: Builder, node: Node, inputs: Sequence[Any]) -> list[Any]:
    x = inputs[0]
    torch = builder.torch
    known = x.meta if isinstance(x, Value) else x
    wanted = getattr(torch, DTYPES[integer(node, "to", 1)])
    if known.dtype.is_floating_point and wanted.is_floating_point:
        return [x]  # the precision is chosen here, not by the graph
    if wanted.is_floating_point and not isinstance(x, Value):
        wanted = torch.float32
    return [builder.emit(torch.Tensor.to, x, wanted)]


def _shape(builder: Builder, node: Node, inputs: Sequence[Any]) -> list[Any]:
    shape = shape_of(inputs[0])
    start = integer(node, "start", 0)
    end = integer(node, "end", len(shape))
    return [builder.torch.tensor(shape[start:end], dtype=builder.torch.int64)]


def _slice(builder: Builder, node: Node, inputs: Sequence[Any]) -> list[Any]:
    x = inputs[0]
    starts, ends = numbers_of(inputs[1], node), numbers_of(inputs[2], node)
    given = list(inputs[3:])
    axes = numbers_of(given[0], node) if given and given[0] is not None else range(len(starts))
    steps = numbers_of(given[1], node) if len(given) > 1 else [1] * len(starts)
    cuts = [slice(None)] * len(shape_of(x))
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        if step < 0:
            raise BundleError("the graph slices backwards, which this back end does not know")
        side = shape_of(x)[axis]
        low, high = (max(0, each + side) if each < 0 else min(each, side) for each in (start, end))
        cuts[axis] = slice(low, high, step)
    return [builder.emit(operator.getitem, x, tuple(cuts))]


def _concat(builder: Builder, node: Node, inputs: Sequence[Any]) -> list[Any]:
    return [builder.emit(builder.torch.cat, builder.alike(*inputs), integer(node, "axis", 0))]


def _split(builder: Builder, node: Node, inputs: Sequence[Any]) -> list[Any]:
    x = inputs[0]
    axis = integer(node, "axis", 0)
    side = shape_of(x)[axis]
    count = len(node.outputs)
    sizes = numbers_of(inputs[1], node) if len(inputs) > 1 else []
    if not sizes:
        each = -(-side // count)
        sizes = [min(each, side - each * place) for place in range(count)]
    ends = np.cumsum(sizes).tolist()
    before = (slice(None),) * (axis % len(shape_of(x)))
    return [
        builder.emit(operator.getitem, x, (*before, slice(end - size, end)))
        for size, end in zip(sizes, ends, strict=True)
    ]


def _unsqueeze(builder: Builder, node: Node, inputs: Sequence[Any]) -> list[Any]:
    shape = list(shape_of(inputs[0]))
    axes = numbers_of(inputs[1], node)
    rank = len(shape) + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        shape.insert(axis, 1)
    return [builder.emit(builder.torch.reshape, inputs[0], tuple(shape))]


def _squeeze(builder: Builder, node: Node, inputs: Sequence[Any]) -> list[Any]:
    shape = shape_of(inputs[0])
    given = numbers_of(inputs[1], node) if len(inputs) > 1 else []
    axes = {axis % len(shape) for axis in given}
    kept = [side for place, side in enumerate(shape) if (place not in axes if axes else side != 1)]
    return [builder.emit(builder.torch.reshape, inputs[0], tuple(kept))]


def _gather(builder: Builder, node: Node, inputs: Sequence[Any]) -> list[Any]:
    x, places = builder.wide(inputs[0]), inputs[1]
    axis = integer(node, "axis", 0) % len(shape_of(x))
    torch = builder.torch
    if not isinstance(places, Value):
        places = torch.where(places < 0, places + shape_of(x)[axis], places)
    picked = builder.emit(torch.index_select, x, axis, builder.emit(torch.reshape, places, (-1,)))
    shape = (*shape_of(x)[:axis], *shape_of(places), *shape_of(x)[axis + 1 :])
    return [builder.emit(torch.reshape, picked, shape)]


def _expand(builder: Builder, node: Node, inputs: Sequence[Any]) -> list[Any]:
    x = inputs[0]
    shape = builder.torch.broadcast_shapes(shape_of(x), tuple(numbers_of(inputs[1], node)))
    return [builder.emit(builder.torch.broadcast_to, x, tuple(shape))]


def _where(builder: Builder, _node: Node, inputs: Sequence[Any]) -> list[Any]:
    return [builder.emit(builder.torch.where, inputs[0], *builder.alike(*inputs[1:]))]


def _reduced(name: str) -> Callable[[Builder, Node, Sequence[Any]], list[Any]]:
    def reduce(builder: Builder, node: Node, inputs: Sequence[Any]) -> list[Any]:
        given = numbers_of(inputs[1], node) if len(inputs) > 1 else list(integers(node, "axes"))
        axes = tuple(given or range(len(shape_of(inputs[0]))))
        keep = bool(integer(node, "keepdims", 1))
        return [builder.emit(getattr(builder.torch, name), inputs[0], axes, keepdim=keep)]

    return reduce


def _argmax(builder: Builder, node: Node, inputs: Sequence[Any]) -> list[Any]:
    axis, keep = integer(node, "axis", 0), bool(integer(node, "keepdims", 1))
    return [builder.emit(builder.torch.argmax, inputs[0], axis, keepdim=keep)]


def _resize(builder: Builder, node: Node, inputs: Sequence[Any]) -> list[Any]:
    x = inputs[0]
    scales, sizes = (*inputs, None, None)[2:4]
    old = shape_of(x)
    if sizes is not None:
        new = numbers_of(sizes, node)
    else:
        new = [int(side * each) for side, each in zip(old, floats_of(scales), strict=False)]
    whole = len(old) == len(new) == 4 and all(w % s == 0 for s, w in zip(old, new, strict=True))
    if node.attributes.get("mode", "nearest") != "nearest" or not whole:
        raise BundleError("the graph resizes by other than whole numbers of the nearest pixels")
    resize = builder.torch.nn.functional.interpolate
    return [builder.emit(resize, x, size=tuple(new[2:]), mode="nearest")]


def _range(builder: Builder, node: Node, inputs: Sequence[Any]) -> list[Any]:
    start, end, step = (numbers_of(each, node)[0] for each in inputs)
    return [builder.torch.arange(start, end, step, dtype=inputs[0].dtype)]


def _filled(builder: Builder, node: Node, inputs: Sequence[Any]) -> list[Any]:
    value = node.attributes.get("value", np.zeros(1, np.float32))
    number = tensor_of(builder.torch, value)
    return [number.reshape(-1)[0].expand(tuple(numbers_of(inputs[0], node))).clone()]


def _constant(builder: Builder, node: Node, _inputs: Sequence[Any]) -> list[Any]:
    name, value = next(iter(node.attributes.items()))
    kind = np.float32 if "float" in name else np.int64
    array = value if isinstance(value, np.ndarray) else np.array(value, dtype=kind)
    return [tensor_of(builder.torch, array)]


def _identity(_builder: Builder, _node: Node, inputs: Sequence[Any]) -> list[Any]:
    return [inputs[0]]


def _clip(builder: Builder, _node: Node, inputs: Sequence[Any]) -> list[Any]:
    x, least, most = (*inputs, None, None)[:3]
    return [builder.emit(builder.torch.clamp, x, scalar(least), scalar(most))]


OPERATORS: Final[Mapping[str, Callable[[Builder, Node, Sequence[Any]], list[Any]]]] = {
    **FUSING,
    "ArgMax": _argmax,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": _concat,
    "Constant": _constant,
    "ConstantOfShape": _filled,
    "Conv": _conv,
    "Expand": _expand,
    "Gather": _gather,
    "Gemm": _gemm,
    "Identity": _identity,
    "LayerNormalization": _layer_norm,
    "Range": _range,
    "ReduceMean": _reduced("mean"),
    "ReduceSum": _reduced("sum"),
    "Resize": _resize,
    "Shape": _shape,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Where": _where,
}
