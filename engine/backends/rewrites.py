"""Rewrites of a graph that compute the same and suit OpenVINO's CPU plugin better.

They change a model that was read, before it is compiled, by its structure and never by names: what
does not match stays as it is. engine/DESIGN.md has what each was measured to bring.
"""

import math
from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from engine.backends.upsampling import fold_upsampling

__all__ = ["VERSION", "group_norm", "rewrite"]

# Values of a picture whose normalisation is opened: below, more operations cost more than copies.
LEAST: Final = 1 << 16
# Stands in the key of compiled models: raise it with each change here, in `weights`, in
# `sharedprefix` or of what the kernels take (`attention`, `norms`, `convolutions`).
VERSION: Final = 8


def rewrite(ov: Any, graph: Any, *, open_gelus: bool = False) -> int:
    """Rewrite a static graph in place; gives how many places changed. ov: the openvino module.

    open_gelus: for fp32 on AVX2, where a product with GELU fused to it is computed by slower code.
    """
    op = ov.opset13
    places = [
        *fold_upsampling(op, graph),
        *_open_group_norms(op, graph),
        *_split_linears(op, graph),
        *(_open_gelus(op, graph) if open_gelus else ()),
    ]
    if places:
        graph.validate_nodes_and_infer_types()
    return len(places)


def _open_group_norms(op: Any, graph: Any) -> Iterator[str]:
    """Compute a group's mean and variance from those of its channels, on the picture as it lies.

    The exporter writes f[B, C, H, W] -> f[B, G, C/G H W] -> MVN. That reshape wants channels first
    in memory, where convolutions keep them last: the plugin copies all pixels there and back.
    """
    for node in list(graph.get_ordered_ops()):
        found = group_norm(node)
        if found is None:
            continue
        x, (batch, channels), groups = found
        if math.prod(x.get_shape()) < LEAST:
            continue
        axes, last = op.constant(np.array([2, 3])), op.constant(np.array([2]))
        grouped = op.constant(np.array([batch, groups, channels // groups]))
        whole = op.constant(np.array([batch, channels, 1, 1]))
        ones = op.constant(np.ones((1, 1, channels // groups), np.float32))
        epsilon = op.constant(np.float32(node.get_attributes()["eps"]))

        def mean_of(value: Any, axes: Any = axes, grouped: Any = grouped, last: Any = last) -> Any:
            channel = op.reduce_mean(value, axes, True)
            return op.reduce_mean(op.reshape(channel, grouped, False), last, True)  # (B, G, 1)

        def spread(value: Any, ones: Any = ones, whole: Any = whole) -> Any:
            return op.reshape(op.multiply(value, ones), whole, False)  # (B, C, 1, 1)

        # In two passes: mean(x^2) - mean(x)^2 loses digits where the mean is large.
        apart = op.subtract(x, spread(mean_of(x)))
        deviation = op.sqrt(op.add(mean_of(op.multiply(apart, apart)), epsilon))
        scale = op.divide(op.constant(np.float32(1.0)), deviation)
        shape = op.constant(np.array(node.output(0).get_shape()))
        result = op.reshape(op.multiply(apart, spread(scale)), shape, False)
        node.output(0).replace(result.output(0))
        yield node.get_friendly_name()


def group_norm(node: Any) -> tuple[Any, tuple[int, int], int] | None:
    """Give x f[B, C, H, W], (B, C) and G where `node` normalises its groups."""
    if node.get_type_name() != "MVN" or not node.get_attributes()["normalize_variance"]:
        return None
    reshape, axes = node.input_value(0).get_node(), node.input_value(1).get_node()
    if reshape.get_type_name() != "Reshape" or axes.get_type_name() != "Constant":
        return None
    x = reshape.input_value(0)
    if x.get_partial_shape().is_dynamic or node.get_output_partial_shape(0).is_dynamic:
        return None
    old, new = list(x.get_shape()), list(node.output(0).get_shape())
    if len(old) != 4 or len(new) != 3 or axes.data.ravel().tolist() not in ([2], [-1]):
        return None
    if new[0] != old[0] or old[1] % new[1]:
        return None
    return x, (old[0], old[1]), new[1]


def _split_linears(op: Any, graph: Any) -> Iterator[str]:
    """Turn a linear layer that is split in two (GEGLU) into two linear layers: no copy of halves.

    The exporter writes x -> MatMul -> Add -> Split along the last axis.
    """
    for node in list(graph.get_ordered_ops()):
        found = _split_linear(node)
        if found is None:
            continue
        x, product, weight, bias, transposed = found
        half = bias.shape[-1] // 2
        for place in (0, 1):
            part = slice(place * half, (place + 1) * half)
            columns = weight[part] if transposed else weight[:, part]
            linear = op.matmul(x, _constant(op, columns), False, transposed)
            result = op.add(linear, _constant(op, bias[..., part]))
            node.output(place).replace(result.output(0))
        yield product.get_friendly_name()


def _split_linear(node: Any) -> tuple[Any, Any, Any, Any, bool] | None:
    """Give x, the product, weight, bias and whether the weight is transposed, where one matches."""
    if not _halves(node):
        return None
    add = node.input_value(0).get_node()
    product = add.input_value(0).get_node() if add.get_type_name() == "Add" else add
    if product.get_type_name() != "MatMul" or add is product:
        return None
    bias, weight = _value(add.input_value(1)), _value(product.input_value(1))
    attributes = product.get_attributes()
    if bias is None or weight is None or weight.ndim != 2 or attributes["transpose_a"]:
        return None
    transposed = bool(attributes["transpose_b"])
    if weight.shape[0 if transposed else 1] != bias.shape[-1]:
        return None
    return product.input_value(0), product, weight, bias, transposed


def _open_gelus(op: Any, graph: Any) -> Iterator[str]:
    """Spell out GELUs of linear layers, x/2 + x/2 erf(x/sqrt(2)), in a form that is not found.

    The plugin makes GELU and layer one; then it multiplies with oneDNN, and else with the faster
    MLAS. What is spelt out becomes one pass together with the product behind it.
    """
    for node in list(graph.get_ordered_ops()):
        found = _gelu(node)
        if found is None:
            continue
        x, last = found
        add = x.get_node()
        if add.get_type_name() != "Add":
            continue
        if all(each.get_node().get_type_name() != "MatMul" for each in add.input_values()):
            continue
        half = op.multiply(x, op.constant(np.float32(0.5)))
        error = op.erf(op.multiply(x, op.constant(np.float32(0.5**0.5))))
        last.output(0).replace(op.add(half, op.multiply(half, error)).output(0))
        yield last.get_friendly_name()


def _gelu(node: Any) -> tuple[Any, Any] | None:
    """Give x and the last node where `node` is GELU, or the error function in one spelt out as
    exporters do: x (1 + erf(x / sqrt(2))) / 2.
    """
    if node.get_type_name() == "Gelu":
        exact = node.get_attributes()["approximation_mode"].upper() == "ERF"
        return (node.input_value(0), node) if exact else None
    if node.get_type_name() != "Erf":
        return None
    scaled = node.input_value(0).get_node()
    if scaled.get_type_name() != "Divide" or not _is(scaled.input_value(1), 2.0**0.5):
        return None
    x = scaled.input_value(0)
    wanted = [("Add", 1.0), ("Multiply", 0.5), ("Multiply", x)]
    for kind, other in wanted:
        readers = list(node.output(0).get_target_inputs())
        if len(readers) != 1 or readers[0].get_node().get_type_name() != kind:
            return None
        reader = readers[0].get_node()
        beside = reader.input_value(1 - readers[0].get_index())
        if not (beside == other or _is(beside, other)):
            return None
        node = reader
    return x, node


def _is(output: Any, number: Any) -> bool:
    """Say whether an output is a constant of this one number, to float's digits."""
    value = _value(output)
    if value is None or value.size != 1 or not isinstance(number, float):
        return False
    return math.isclose(float(value.ravel()[0]), number, rel_tol=1e-4)


def _halves(node: Any) -> bool:
    """Say whether a node cuts the last axis in two equal parts."""
    if node.get_type_name() not in ("Split", "VariadicSplit") or node.get_output_size() != 2:
        return False
    first, second = (node.get_output_partial_shape(place) for place in (0, 1))
    axis = node.input_value(1).get_node()
    last = (-1, first.rank.get_length() - 1)
    return first == second and axis.get_type_name() == "Constant" and int(axis.data) in last


def _value(output: Any) -> Any:
    """Give a constant's numbers as they are stored, or None for what is computed."""
    node = output.get_node()
    if node.get_type_name() == "Convert":
        node = node.input_value(0).get_node()
    return node.data if node.get_type_name() == "Constant" else None


def _constant(op: Any, values: Any) -> Any:
    """Keep fp16 weights as they are stored, widened in the graph."""
    kept = op.constant(np.ascontiguousarray(values))
    return op.convert(kept, "f32") if values.dtype == np.float16 else kept
