"""Operators that are part of something larger: attention, normalisation, GELU, SiLU, linear layers.

The exporter spells these out; here torch's own function comes back, known by how a value was made.
Each is built (builder, node, inputs) -> outputs.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from engine.backends.torchbuilder import (
    Builder,
    Value,
    epsilon_of,
    integer,
    integers,
    numbers_of,
    scalar,
    shape_of,
)
from engine.onnxgraph import Node

__all__ = ["FUSING"]

HALF_GELU: Final = 1.0 / math.sqrt(2.0)


def _add(builder: Builder, _node: Node, inputs: Sequence[Any]) -> list[Any]:
    for one, other in (inputs, reversed(inputs)):
        found = _added(builder, one, other) if isinstance(one, Value) else None
        if found is not None:
            return [found]
    result = builder.emit(builder.torch.add, *builder.alike(*inputs))
    for one, other in (inputs, reversed(inputs)):
        if isinstance(one, Value) and one.made[0] == "scores" and isinstance(result, Value):
            result.made = ("masked", *one.made[1:], other)
    return [result]


def _added(builder: Builder, one: Value, other: Any) -> Any:
    """Take a bias into the linear layer or normalisation before it."""
    torch = builder.torch
    functional = torch.nn.functional
    word = one.made[0]
    if word == "linear" and not isinstance(other, Value) and other.ndim == 1:
        _, x, weight = one.made
        return builder.emit(functional.linear, x, weight, builder.wide(other))
    if word == "group_norm":
        _, x, groups, epsilon, weight = one.made
        bias = vector(other, x.shape[1], len(x.shape) - 2)
        if weight is not None and bias is not None:
            given = builder.wide(weight), builder.wide(bias)
            return builder.emit(functional.group_norm, x, groups, *given, epsilon)
    if word == "Erf" and scalar(other) == 1.0 and one.made[1].made[0] == "divided":
        result = builder.emit(torch.add, *builder.alike(one, other))
        result.made = ("one_and_erf", one.made[1].made[1])
        return result
    return None


def _mul(builder: Builder, _node: Node, inputs: Sequence[Any]) -> list[Any]:
    for one, other in (inputs, reversed(inputs)):
        found = _multiplied(builder, one, other) if isinstance(one, Value) else None
        if found is not None:
            return [found]
    result = builder.emit(builder.torch.mul, *builder.alike(*inputs))
    for one, other in (inputs, reversed(inputs)):
        if isinstance(one, Value) and isinstance(result, Value):
            result.made = _product(one, other) or result.made
    return [result]


def _multiplied(builder: Builder, one: Value, other: Any) -> Any:
    """End a SiLU or GELU, or take a weight into the normalisation before it."""
    functional = builder.torch.nn.functional
    word = one.made[0]
    if word == "Sigmoid" and one.made[1] is other:
        return builder.emit(functional.silu, other)
    if word == "half_and_erf" and one.made[1] is other:
        return builder.emit(functional.gelu, other)
    if word == "x_and_erf" and scalar(other) == 0.5:
        return builder.emit(functional.gelu, one.made[1])
    if word == "group_norm" and one.made[4] is None and not isinstance(other, Value):
        _, x, groups, epsilon, _ = one.made
        weight = vector(other, x.shape[1], len(x.shape) - 2)
        if weight is not None:
            given = builder.wide(weight)
            result = builder.emit(functional.group_norm, x, groups, given, None, epsilon)
            result.made = ("group_norm", x, groups, epsilon, weight)
            return result
    return None


def _product(one: Value, other: Any) -> tuple[Any, ...] | None:
    """Say what a product may be a part of."""
    number = None if isinstance(other, Value) else scalar(other)
    if one.made[0] == "one_and_erf" and one.made[1] is other:
        return ("x_and_erf", other)
    if number is None:
        return None
    if one.made[0] == "one_and_erf" and number == 0.5:
        return ("half_and_erf", one.made[1])
    if one.made[0] == "scores":
        return (*one.made[:3], one.made[3] * number)
    if len(one.shape) == 4:
        return ("scaled", one, number)
    return ("divided", one) if abs(number - HALF_GELU) < 1e-6 else None


def vector(value: Any, channels: int, behind: int) -> Any:
    """Give a known [C, 1, ...] with `behind` ones as [C], or None."""
    if isinstance(value, Value) or tuple(value.shape) != (channels,) + (1,) * behind:
        return None
    return value.reshape(-1)


def _div(builder: Builder, _node: Node, inputs: Sequence[Any]) -> list[Any]:
    one, other = builder.alike(*inputs)
    known = one.meta if isinstance(one, Value) else one
    if not known.dtype.is_floating_point:
        return [builder.emit(builder.torch.div, one, other, rounding_mode="trunc")]
    result = builder.emit(builder.torch.div, one, other)
    number = scalar(other)
    if isinstance(result, Value) and number is not None and abs(number - 2**0.5) < 1e-3:
        result.made = ("divided", one)
    return [result]


def _matmul(builder: Builder, _node: Node, inputs: Sequence[Any]) -> list[Any]:
    torch = builder.torch
    one, other = map(builder.wide, inputs)
    if isinstance(one, Value) and one.made[0] == "weights":
        _, q, transposed, scale, mask = one.made
        k = builder.emit(torch.transpose, transposed, -1, -2)
        if mask is not None:
            mask = builder.wide(mask)
        attention = torch.nn.functional.scaled_dot_product_attention
        return [builder.emit(attention, q, k, other, attn_mask=mask, scale=scale)]
    if isinstance(one, Value) and not isinstance(other, Value) and other.ndim == 2:
        weight = other.t()
        builder.kept.setdefault(id(weight), (weight, weight))
        result = builder.emit(torch.nn.functional.linear, one, weight)
        result.made = ("linear", one, weight)
        return [result]
    result = builder.emit(torch.matmul, one, other)
    if isinstance(one, Value) and isinstance(other, Value) and len(one.shape) == 4:
        scale = 1.0
        pair: list[Value] = []
        for each in (one, other):
            scaled = each.made[0] == "scaled"
            scale *= each.made[2] if scaled else 1.0
            pair.append(each.made[1] if scaled else each)
        result.made = ("scores", *pair, scale)
    return [result]


def _softmax(builder: Builder, node: Node, inputs: Sequence[Any]) -> list[Any]:
    x = inputs[0]
    axis = integer(node, "axis", -1)
    result = builder.emit(builder.torch.softmax, x, axis)
    if isinstance(result, Value) and axis in {-1, len(x.shape) - 1}:
        if x.made[0] == "scores":
            result.made = ("weights", *x.made[1:], None)
        elif x.made[0] == "masked":
            result.made = ("weights", *x.made[1:])
    return [result]


def _reshape(builder: Builder, node: Node, inputs: Sequence[Any]) -> list[Any]:
    x = inputs[0]
    wanted = numbers_of(inputs[1], node)
    old = shape_of(x)
    if not integer(node, "allowzero", 0):
        wanted = [old[place] if side == 0 else side for place, side in enumerate(wanted)]
    if isinstance(x, Value) and -1 not in wanted:
        word = x.made[0]
        if word == "normed" and tuple(wanted) == x.made[1].shape:
            _, whole, groups, epsilon = x.made
            norm = builder.torch.nn.functional.group_norm
            result = builder.emit(norm, whole, groups, None, None, epsilon)
            result.made = ("group_norm", whole, groups, epsilon, None)
            return [result]
        if word == "turned" and tuple(wanted) == _turned(x.made[1].shape):
            return [builder.emit(builder.torch.transpose, x.made[1], -1, -2)]
    result = builder.emit(builder.torch.reshape, x, tuple(wanted))
    if isinstance(x, Value):
        result.made = ("reshaped", x)
    return [result]


def _turned(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape[:-2], shape[-1], shape[-2])


def _transpose(builder: Builder, node: Node, inputs: Sequence[Any]) -> list[Any]:
    x = inputs[0]
    order = integers(node, "perm") or tuple(reversed(range(len(shape_of(x)))))
    result = builder.emit(builder.torch.permute, x, order)
    if isinstance(x, Value) and order == (0, 2, 1) and x.made[0] == "reshaped":
        whole = x.made[1]
        if whole.shape[-2:] == x.shape[-2:]:
            result.made = ("turned", whole)
    return [result]


def _instance_norm(builder: Builder, node: Node, inputs: Sequence[Any]) -> list[Any]:
    x, weight, bias = map(builder.wide, inputs)
    norm = builder.torch.nn.functional.group_norm
    result = builder.emit(norm, x, shape_of(x)[1], weight, bias, epsilon_of(node))
    plain = not isinstance(weight, Value) and bool((weight == 1).all() and (bias == 0).all())
    if plain and x.made[0] == "reshaped" and x.made[1].shape[0] == x.shape[0]:
        result.made = ("normed", x.made[1], x.shape[1], epsilon_of(node))
    return [result]


FUSING: Final[Mapping[str, Callable[[Builder, Node, Sequence[Any]], list[Any]]]] = {
    "Add": _add,
    "Div": _div,
    "InstanceNormalization": _instance_norm,
    "MatMul": _matmul,
    "Mul": _mul,
    "Reshape": _reshape,
    "Softmax": _softmax,
    "Transpose": _transpose,
}
