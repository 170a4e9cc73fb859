"""Turns a graph that computes in fp32 into one that computes in fp16, with fp32 islands.

Inputs and outputs keep their names, dtypes and shapes, so that one loop drives every target: the
casts at the border are part of the graph. A weight that is stored in fp16 is used as it is; one
that is stored in fp32 is rounded when the file is written. Nothing else is read of the weights, so
a network of 10 GB needs the memory of its largest tensor.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from export.errors import GraphError

__all__ = ["FLOAT", "HALF", "Halved", "open_model", "set_type", "stored_weight", "to_half"]

FLOAT = ir.DataType.FLOAT
HALF = ir.DataType.FLOAT16
# Inputs that an operator takes in fp32 whatever the type of its first one. ONNX: Resize's scales;
# ONNX Runtime's CUDA kernels: the scale and shift of group normalisation.
FLOAT_INPUTS: Mapping[str, tuple[int, ...]] = {
    "Resize": (2,),
    "GroupNorm": (1, 2),
    "SkipGroupNorm": (1, 2),
}
# Their output's type stands in an attribute, or fp16 would change what they count.
FLOAT_NODES = ("ConstantOfShape", "CumSum", "EyeLike", "RandomNormalLike", "Range")


@dataclass(frozen=True, kw_only=True, slots=True)
class Halved:
    """What became of a graph: nodes that compute in fp16 and in fp32, and casts put in between."""

    narrow: int
    wide: int
    casts: int


@dataclass(frozen=True, slots=True)
class _Typing:
    """The graph at work: one converted copy of each value and weight, however many use it."""

    graph: ir.Graph
    converted: dict[tuple[ir.Value, ir.DataType], ir.Value] = field(default_factory=dict)
    casts: Counter[str] = field(default_factory=Counter)

    def as_type(self, value: ir.Value, wanted: ir.DataType) -> ir.Value:
        """Give `value` in the wanted float type."""
        if value.dtype == wanted:
            return value
        key = (value, wanted)
        if key not in self.converted:
            self.converted[key] = self._convert(value, wanted)
        return self.converted[key]

    def _convert(self, value: ir.Value, wanted: ir.DataType) -> ir.Value:
        weight = stored_weight(value)
        if weight is not None and weight.dtype == wanted:
            return weight
        if value.is_initializer() and wanted == HALF:
            return _rounded(self.graph, value)
        return self.cast(value, wanted, f"{value.name}/{wanted.name.lower()}")

    def cast(self, value: ir.Value, wanted: ir.DataType, name: str) -> ir.Value:
        """Put a cast right behind the node that makes `value`."""
        node = ir.node("Cast", [value], {"to": wanted}, name=f"{name}/cast")
        node.outputs[0].name = name
        set_type(node.outputs[0], wanted, value.shape)
        self.casts["cast"] += 1
        maker = value.producer()
        if maker is None:
            self.graph.insert_before(self.graph[0], node)
        else:
            self.graph.insert_after(maker, node)
        return node.outputs[0]


def open_model(file: Path) -> ir.Model:
    """Read a graph, its weights left in their file, every node and float typed. Raises GraphError.

    Constants become initialisers and every node has a name of its own.
    """
    try:
        model = ir.load(file)
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
        passes.NameFixPass()(model)
        if any(value.dtype is None for node in model.graph for value in node.outputs):
            passes.ShapeInferencePass()(model)
    except (OSError, ValueError, TypeError, DecodeError) as error:
        raise GraphError(f"{file.parent.name}/{file.name} cannot be read: {error}") from error
    for node in model.graph:
        if any(item.type in {ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS}
               for item in node.attributes.values()):  # fmt: skip
            raise GraphError(f"{file.parent.name} has a {node.op_type}; none is known of here")
    return model


def stored_weight(value: ir.Value) -> ir.Value | None:
    """Give the initialiser that `value` is, or that it is the widened form of."""
    if value.is_initializer():
        return value
    maker = value.producer()
    if maker is None or maker.op_type != "Cast" or maker.inputs[0] is None:
        return None
    return maker.inputs[0] if maker.inputs[0].is_initializer() else None


def set_type(value: ir.Value, dtype: ir.DataType, shape: ir.Shape | None) -> None:
    """Write dtype and shape onto a value."""
    value.type = ir.TensorType(dtype)
    value.shape = shape


def to_half(model: ir.Model, wide: Collection[str]) -> Halved:
    """Retype `model` in place: fp16 everywhere, but fp32 in the nodes named in `wide`."""
    graph = model.graph
    typing = _Typing(graph)
    nodes = [node for node in graph if not _is_widening(node)]
    counts = Counter[str]()
    for node in nodes:
        narrow = node.name not in wide and node.op_type not in FLOAT_NODES
        kept = FLOAT_INPUTS.get(node.op_type, ())
        for place, value in enumerate(node.inputs):
            if value is None or value.dtype not in {FLOAT, HALF} or node.op_type == "Shape":
                continue
            wanted = HALF if narrow and place not in kept else FLOAT
            node.replace_input_with(place, typing.as_type(value, wanted))
        floats = [value for value in node.outputs if value.dtype in {FLOAT, HALF}]
        for value in floats:
            set_type(value, HALF if narrow else FLOAT, value.shape)
        if floats and node.op_type == "Cast":
            node.attributes["to"] = ir.AttrInt64("to", HALF if narrow else FLOAT)
        counts["narrow" if narrow else "wide"] += bool(floats)
    _restore_outputs(graph, typing)
    passes.RemoveUnusedNodesPass()(model)
    return Halved(narrow=counts["narrow"], wide=counts["wide"], casts=typing.casts["cast"])


def _is_widening(node: ir.Node) -> bool:
    return node.op_type == "Cast" and stored_weight(node.outputs[0]) is not None


def _restore_outputs(graph: ir.Graph, typing: _Typing) -> None:
    for place, value in enumerate(graph.outputs):
        if value.dtype == HALF:
            name = str(value.name)
            value.name = f"{name}/half"
            graph.outputs[place] = typing.cast(value, FLOAT, name)


def _rounded(graph: ir.Graph, wide: ir.Value) -> ir.Value:
    """Add the fp16 form of an fp32 weight, rounded when it is written."""
    stored = wide.const_value
    if stored is None:
        raise GraphError(f"the weight '{wide.name}' has no values")

    def read() -> ir.TensorProtocol:
        array: NDArray[np.floating] = np.asarray(stored.numpy())
        return ir.tensor(array.astype(np.float16), name=f"{wide.name}/half")

    value = ir.Value(name=f"{wide.name}/half")
    set_type(value, HALF, wide.shape)
    value.const_value = ir.LazyTensor(
        read, dtype=HALF, shape=ir.Shape(stored.shape.numpy()), name=value.name
    )
    graph.register_initializer(value)
    return value
