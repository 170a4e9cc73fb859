"""Turns an ONNX graph into a torch.fx module, at fixed sizes.

Each value is known while it is built (weights, and all arithmetic of shapes), or it is a node of
the new graph with a shape that torch's `meta` device tells. What the exporter spelled out in many
nodes becomes torch's own function again: attention, group normalisation, GELU, SiLU, linear layers.
"""

from typing import Any, Final

from engine.backends import Shapes
from engine.backends.torchbuilder import (
    Builder,
    Value,
    tensor_of,
)
from engine.backends.torchoperators import OPERATORS, PLAIN
from engine.errors import BundleError
from engine.onnxgraph import Node, OnnxGraph

__all__ = ["ANGLES", "build_module"]

# Inputs whose numbers become angles: fp16 has steps of half a radian at 999.
ANGLES: Final = ("timestep", "time_ids")


def build_module(torch: Any, source: OnnxGraph, shapes: Shapes, dtype: Any) -> Any:
    """Build a torch.fx.GraphModule on the CPU that takes the inputs in the source's order and gives
    a tuple of all outputs, float32.

    shapes: of the inputs; () may stand for one of one dimension. Weights stored in another float
    type are cast to dtype. Raises BundleError for operators that are not known here.
    """
    builder = Builder(torch, dtype, torch.fx.Graph(), torch.nn.Module())
    for name, spec in source.inputs.items():
        if name not in shapes:
            raise BundleError(f"the graph has an input '{name}' that nothing is known of")
        shape = (1,) if shapes[name] == () and len(spec.shape) == 1 else shapes[name]
        kind = getattr(torch, spec.dtype)
        node = builder.graph.placeholder(name)
        value = Value(node, torch.empty(shape, dtype=kind, device="meta"))
        angle = name in ANGLES or not kind.is_floating_point
        builder.values[name] = value if angle else builder.wide(value)
    for name, array in source.weights.items():
        builder.values[name] = tensor_of(torch, array)
    builder.values[""] = None
    for node in source.nodes:
        _build(builder, node)
    outputs = [builder.as_type(builder.values[name], torch.float32).node for name in source.outputs]
    builder.graph.output(tuple(outputs))
    builder.graph.eliminate_dead_code()
    module = torch.fx.GraphModule(builder.root, builder.graph)
    module.delete_all_unused_submodules()
    return module


def _build(builder: Builder, node: Node) -> None:
    inputs = [builder.values[name] for name in node.inputs]
    torch = builder.torch
    if node.domain not in {"", "ai.onnx"} or not (node.kind in PLAIN or node.kind in OPERATORS):
        raise BundleError(
            f"the graph has an operator {node.domain}:{node.kind} that this back end does not know",
            hint="--device cpu knows it",
        )
    if node.kind in PLAIN:
        made = builder.emit(getattr(torch, PLAIN[node.kind]), *builder.alike(*inputs))
        results = [made]
        if node.kind in {"Erf", "Sigmoid"} and isinstance(made, Value):
            made.made = (node.kind, inputs[0])
    else:
        results = OPERATORS[node.kind](builder, node, inputs)
    for name, result in zip(node.outputs, results, strict=False):
        builder.values[name] = result
