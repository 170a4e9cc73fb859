"""Puts a checkpoint's weights into a traced graph, tensor by tensor, in the precision they have.

The graph computes in fp32. A weight stored in fp16 stays fp16 on disk, followed by a Cast: every
fp16 number is an fp32 number, so nothing is lost, and runtimes fold the Cast when they load.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes
from onnxscript import optimizer

from export.parameters import read_weight
from export.weightfiles import Tensor

__all__ = ["DATA_NAME", "INLINE_LIMIT", "MODEL_NAME", "fill", "save"]

MODEL_NAME = "model.onnx"
DATA_NAME = "model.onnx_data"  # as optimum names it
INLINE_LIMIT = 256  # bytes; smaller constants stay in the graph, where shape inference needs them


def fill(model: ir.Model, tensors: Mapping[str, Tensor]) -> None:
    """Give every weight its (lazily read) value and simplify the graph around the weights."""
    graph = model.graph
    used = {name: tensor for name, tensor in tensors.items() if name in graph.initializers}
    for name, tensor in used.items():
        graph.initializers[name].const_value = _lazy(tensor, graph.initializers[name], np.float32)
    weights = {id(graph.initializers[name]) for name in used}

    def should_fold(node: ir.Node) -> bool | None:
        # A folded weight would lose its name and its fp16 form; None leaves the choice to the tool.
        return False if any(id(value) in weights for value in node.inputs) else None

    _simplify(model, should_fold)
    order = {id(node): place for place, node in enumerate(graph)}
    for name, tensor in used.items():
        if tensor.dtype == "F16" and name in graph.initializers:
            _narrow(graph, name, tensor, order)
    _strip(model)


def _simplify(model: ir.Model, should_fold: Callable[[ir.Node], bool | None]) -> None:
    # Folding first leaves the rewriting rules, which compare every node with every other one, a
    # graph of half the size: a third of the time, and the same result.
    passes.InlinePass()(model)
    optimizer.fold_constants(model, should_fold=should_fold)
    passes.RemoveUnusedNodesPass()(model)
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    optimizer.optimize_ir(model, should_fold=should_fold, num_iterations=1)
    passes.IdentityEliminationPass()(model)
    passes.RemoveUnusedNodesPass()(model)


def _lazy(tensor: Tensor, value: ir.Value, dtype: type[np.floating]) -> ir.LazyTensor:
    shape = tuple(value.shape.numpy()) if value.shape is not None else tensor.shape

    def read() -> ir.TensorProtocol:
        return ir.tensor(
            read_weight(tensor).astype(dtype, copy=False).reshape(shape), name=value.name
        )

    kind = ir.DataType.FLOAT16 if dtype is np.float16 else ir.DataType.FLOAT
    return ir.LazyTensor(read, dtype=kind, shape=ir.Shape(shape), name=value.name)


def _narrow(graph: ir.Graph, name: str, tensor: Tensor, order: Mapping[int, int]) -> None:
    """Store a weight in fp16, with a cast right before its first use: at the graph's beginning all
    widened weights would be there at once in a runtime that folds nothing.
    """
    wide = graph.initializers.pop(name)
    users = [usage.node for usage in wide.uses()]
    narrow = ir.Value(name=name, shape=wide.shape, type=ir.TensorType(ir.DataType.FLOAT16))
    narrow.const_value = _lazy(tensor, narrow, np.float16)
    cast = ir.node("Cast", [narrow], {"to": ir.DataType.FLOAT}, name=f"{name}/widen")
    out = cast.outputs[0]
    out.name, out.shape, out.type = f"{name}/fp32", wide.shape, ir.TensorType(ir.DataType.FLOAT)
    wide.replace_all_uses_with(out)
    graph.initializers.add(narrow)
    graph.insert_before(min(users, key=lambda node: order[id(node)]), cast)


def _strip(model: ir.Model) -> None:
    # The tracer's notes hold source lines and local paths, and are larger than the graph.
    model.metadata_props.clear()
    model.doc_string = None
    model.graph.metadata_props.clear()
    model.graph.doc_string = None
    for value in (*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
        value.doc_string = None
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
            value.doc_string = None


def save(model: ir.Model, folder: Path) -> None:
    """Write model.onnx and model.onnx_data into `folder`, reading one weight at a time."""
    ir.save(
        model,
        folder / MODEL_NAME,
        external_data=DATA_NAME,
        size_threshold_bytes=INLINE_LIMIT,
    )
