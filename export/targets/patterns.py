"""Recognises, in the graphs that our exporter traces, what a GPU computes in one kernel.

onnxruntime.transformers looks for the node sequences of torch's old tracer, and finds neither
attention nor GEGLU here; these are those of `torch.onnx.export(dynamo=True)` with opset 18. Each
function takes the node in the middle of a pattern and gives what the fused operator needs, or None.
"""

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

__all__ = [
    "Attention",
    "GatedGelu",
    "Gelu",
    "GroupNorm",
    "attention_at",
    "constant",
    "gated_gelu_at",
    "gelu_at",
    "group_norm_at",
    "made_by",
    "other_input",
    "sole_user",
]

SMALL = 1 << 20  # elements of a constant that is looked at; a causal mask of 77 has 5929
HEADS_FIRST = [0, 2, 1, 3]
KEY_UPRIGHT = [0, 2, 3, 1]


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupNorm:
    """x f[N, C, H, W] -> end, by `groups`, times scale f[C] plus shift f[C]; swish: then SiLU."""

    x: ir.Value
    scale: ir.Value
    shift: ir.Value
    groups: int
    epsilon: float
    swish: bool
    end: ir.Value
    nodes: tuple[ir.Node, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Attention:
    """q f[N, S, D], k, v f[N, T, D] -> end f[N, S, D]: softmax(scale q k^T) v in `heads` parts.

    causal: a token sees itself and those before it. nodes: without those that only add the mask.
    """

    q: ir.Value
    k: ir.Value
    v: ir.Value
    heads: int
    scale: float
    causal: bool
    end: ir.Value
    nodes: tuple[ir.Node, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Gelu:
    """x -> end = x / 2 (1 + erf(x / sqrt 2))."""

    x: ir.Value
    end: ir.Value
    nodes: tuple[ir.Node, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class GatedGelu:
    """x f[N, S, D] + bias f[D], cut in two halves a, b -> end f[N, S, D / 2] = a gelu(b)."""

    x: ir.Value
    bias: ir.Value
    end: ir.Value
    nodes: tuple[ir.Node, ...]


def made_by(value: ir.Value | None, *kinds: str) -> ir.Node | None:
    """Give the node that makes `value` if it is one of these operators."""
    maker = None if value is None else value.producer()
    return maker if maker is not None and maker.op_type in kinds else None


def sole_user(value: ir.Value, kind: str) -> ir.Node | None:
    """Give the only node that uses `value`, if it is this operator."""
    users = [usage.node for usage in value.uses()]
    good = len(users) == 1 and users[0].op_type == kind and not value.is_graph_output()
    return users[0] if good else None


def constant(value: ir.Value | None) -> NDArray[np.generic] | None:
    """Give the numbers of a small constant."""
    stored = None if value is None else value.const_value
    return None if stored is None or stored.size > SMALL else np.asarray(stored.numpy())


def other_input(node: ir.Node, value: ir.Value) -> ir.Value | None:
    """Give the input of a node of two that is not `value`."""
    first, second = node.inputs
    return second if first is value else first


def _scalar(value: ir.Value | None) -> float | None:
    array = constant(value)
    return float(array.reshape(-1)[0]) if array is not None and array.size == 1 else None


def _is_list(value: ir.Value | None, wanted: list[int]) -> bool:
    array = constant(value)
    return array is not None and array.tolist() == wanted


def _turned(node: ir.Node | None, order: list[int]) -> bool:
    return node is not None and list(node.attributes["perm"].as_ints()) == order


def group_norm_at(norm: ir.Node) -> GroupNorm | None:
    """Match Reshape [0, G, -1], InstanceNormalization, Reshape, times, plus, perhaps SiLU."""
    flat, ones, zeros = made_by(norm.inputs[0], "Reshape"), *map(constant, norm.inputs[1:])
    if flat is None or ones is None or zeros is None or not (ones == 1).all() or zeros.any():
        return None
    groups = len(ones)
    shaped = sole_user(norm.outputs[0], "Reshape")
    times = None if shaped is None else sole_user(shaped.outputs[0], "Mul")
    plus = None if times is None else sole_user(times.outputs[0], "Add")
    x = flat.inputs[0]
    if shaped is None or times is None or plus is None or x is None:
        return None
    scale = _channel_vector(other_input(times, shaped.outputs[0]))
    shift = _channel_vector(other_input(plus, times.outputs[0]))
    if scale is None or shift is None or not _is_list(flat.inputs[1], [0, groups, -1]):
        return None
    if x.shape is None or len(x.shape) != 4:
        return None
    nodes, end = (flat, norm, shaped, times, plus), plus.outputs[0]
    swish = _silu_of(end)
    if swish is not None:
        nodes, end = (*nodes, *swish), swish[1].outputs[0]
    return GroupNorm(
        x=x,
        scale=scale,
        shift=shift,
        groups=groups,
        epsilon=norm.attributes["epsilon"].as_float(),
        swish=swish is not None,
        end=end,
        nodes=nodes,
    )


def _channel_vector(value: ir.Value | None) -> ir.Value | None:
    """Give f[C] of the f[C, 1, 1] that is Unsqueeze(f[C], [1, 2])."""
    made = made_by(value, "Unsqueeze")
    return made.inputs[0] if made is not None and _is_list(made.inputs[1], [1, 2]) else None


def _silu_of(x: ir.Value) -> tuple[ir.Node, ir.Node] | None:
    users = {usage.node.op_type: usage.node for usage in x.uses()}
    if set(users) != {"Sigmoid", "Mul"} or len(x.uses()) != 2 or x.is_graph_output():
        return None
    sigmoid, times = users["Sigmoid"], users["Mul"]
    return (sigmoid, times) if other_input(times, x) is sigmoid.outputs[0] else None


def attention_at(softmax: ir.Node) -> Attention | None:
    """Match softmax(q k^T [+ causal mask]) v between heads that were split and are joined."""
    context = sole_user(softmax.outputs[0], "MatMul")
    back = None if context is None else sole_user(context.outputs[0], "Transpose")
    joined = None if back is None else sole_user(back.outputs[0], "Reshape")
    if context is None or back is None or joined is None or not _turned(back, HEADS_FIRST):
        return None
    scores, causal = softmax.inputs[0], False
    added = made_by(scores, "Add")
    if added is not None:
        masks = [value for value in added.inputs if _is_causal(value)]
        if len(masks) != 1 or masks[0] is None:
            return None
        scores, causal = other_input(added, masks[0]), True
    scores, scale = _unscaled(scores)
    product = made_by(scores, "MatMul")
    if product is None:
        return None
    (q, by_q), (k, by_k) = _unscaled(product.inputs[0]), _unscaled(product.inputs[1])
    queries, keys, values = _split_heads(q), _split_key(k), _split_heads(context.inputs[1])
    if queries is None or keys is None or values is None:
        return None
    return Attention(
        q=queries[0],
        k=keys[0],
        v=values[0],
        heads=queries[1],
        scale=scale * by_q * by_k,
        causal=causal,
        end=joined.outputs[0],
        nodes=(product, context, back, joined) + (() if causal else (softmax,)),
    )


def _unscaled(value: ir.Value | None) -> tuple[ir.Value | None, float]:
    times = made_by(value, "Mul")
    if times is not None:
        for place in (0, 1):
            factor = _scalar(times.inputs[place])
            if factor is not None:
                return times.inputs[1 - place], factor
    return value, 1.0


def _split_heads(
    value: ir.Value | None, order: list[int] = HEADS_FIRST
) -> tuple[ir.Value, int] | None:
    """Give f[N, S, D] and the number of heads of f[N, heads, S, D / heads]."""
    turned = made_by(value, "Transpose")
    split = made_by(turned.inputs[0], "Reshape") if turned is not None else None
    if split is None or not _turned(turned, order):
        return None
    flat, shape = split.inputs[0], split.outputs[0].shape
    if flat is None or flat.shape is None or len(flat.shape) != 3:
        return None
    heads = shape[2] if shape is not None and len(shape) == 4 else None
    return (flat, heads) if isinstance(heads, int) else None


def _split_key(value: ir.Value | None) -> tuple[ir.Value, int] | None:
    """Do the same for k, which is turned upright as well: f[N, heads, D / heads, T].

    torch traces that as one Transpose, as two, or as Reshape, Transpose [0, 2, 1], Reshape.
    """
    outer = made_by(value, "Reshape")
    turned = made_by(outer.inputs[0], "Transpose") if outer is not None else None
    inner = made_by(turned.inputs[0], "Reshape") if turned is not None else None
    if inner is not None and _turned(turned, [0, 2, 1]):
        return _split_heads(inner.inputs[0])
    turned = made_by(value, "Transpose")
    if turned is not None and _turned(turned, [0, 1, 3, 2]):
        return _split_heads(turned.inputs[0])
    return _split_heads(value, KEY_UPRIGHT)


def _is_causal(value: ir.Value | None) -> bool:
    """Say whether `value` is 0 on and below the diagonal and hugely negative above it."""
    where = made_by(value, "Where")
    if where is None:
        return False
    spread = made_by(where.inputs[0], "Expand")
    allowed = constant(where.inputs[0] if spread is None else spread.inputs[0])
    kept, masked = _scalar(where.inputs[1]), _scalar(where.inputs[2])
    if allowed is None or kept != 0 or masked is None or masked > -1e4:
        return False
    square = allowed.reshape(allowed.shape[-2:]) if allowed.ndim >= 2 and allowed.size else allowed
    return square.ndim == 2 and bool((square == np.tri(*square.shape, dtype=bool)).all())


def gelu_at(erf: ir.Node) -> Gelu | None:
    """Match the exact GELU around its Erf."""
    divided = made_by(erf.inputs[0], "Div")
    plus = sole_user(erf.outputs[0], "Add")
    half = None if plus is None else sole_user(plus.outputs[0], "Mul")
    times = None if half is None else sole_user(half.outputs[0], "Mul")
    if divided is None or plus is None or half is None or times is None:
        return None
    x, root = divided.inputs[0], _scalar(divided.inputs[1])
    if x is None or root is None or not math.isclose(root, math.sqrt(2), rel_tol=1e-6):
        return None
    one = _scalar(other_input(plus, erf.outputs[0]))
    factor = _scalar(other_input(half, plus.outputs[0]))
    if one != 1 or factor != 0.5 or other_input(times, half.outputs[0]) is not x:
        return None
    return Gelu(x=x, end=times.outputs[0], nodes=(divided, erf, plus, half, times))


def gated_gelu_at(split: ir.Node) -> GatedGelu | None:
    """Match a linear layer's bias, its two halves, and the first times GELU of the second."""
    added = made_by(split.inputs[0], "Add")
    if added is None or len(split.outputs) != 2 or len(added.outputs[0].uses()) != 1:
        return None
    vectors = [value for value in added.inputs if value is not None and value.shape is not None
               and len(value.shape) == 1]  # fmt: skip
    axis, shape = split.attributes["axis"].as_int(), added.outputs[0].shape
    if len(vectors) != 1 or shape is None or len(shape) != 3 or axis not in {2, -1}:
        return None
    left, right = split.outputs
    erfs = [use.node.outputs[0] for use in right.uses() if use.node.op_type == "Div"]
    erf = sole_user(erfs[0], "Erf") if len(erfs) == 1 else None
    gelu = gelu_at(erf) if erf is not None else None
    times = sole_user(left, "Mul")
    x = other_input(added, vectors[0])
    if gelu is None or times is None or x is None or other_input(times, left) is not gelu.end:
        return None
    return GatedGelu(
        x=x,
        bias=vectors[0],
        end=times.outputs[0],
        nodes=(added, split, *gelu.nodes, times),
    )
