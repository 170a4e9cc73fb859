"""Keeps pictures with the channels last, between the operators whose kernels want them so.

Each such operator is written with a Transpose before and after it; then the transpositions are
moved past what does not care about the order of axes, and those that meet vanish.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from export.targets.half import set_type
from export.targets.patterns import constant, made_by

__all__ = ["FIRST_TO_LAST", "LAST_TO_FIRST", "Layout"]

FIRST_TO_LAST = (0, 2, 3, 1)  # f[N, C, H, W] -> f[N, H, W, C]
LAST_TO_FIRST = (0, 3, 1, 2)
AXIS: Mapping[int, int] = {0: 0, 1: 3, 2: 1, 3: 2, -1: 2, -2: 1, -3: 3, -4: 0}


class Layout:
    """The transpositions of one graph, one of each value."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._turned: dict[tuple[ir.Value, tuple[int, ...]], ir.Value] = {}

    def last(self, value: ir.Value) -> ir.Value:
        """Give f[N, H, W, C] of f[N, C, H, W]."""
        back = made_by(value, "Transpose")
        if back is not None and _order(back) == LAST_TO_FIRST and back.inputs[0] is not None:
            return back.inputs[0]
        return self._turn(value, FIRST_TO_LAST, f"{value.name}/nhwc")

    def replace(self, node: ir.Node, old: ir.Value) -> None:
        """Insert `node`, which computes `old` with the channels last, and use it instead."""
        maker = old.producer()
        if maker is None:
            raise ValueError("a replaced value is made by a node")
        self._graph.insert_before(maker, node)
        self._stand_in(node.outputs[0], old)

    def replace_sum(self, skip: ir.Node, total: ir.Value) -> None:
        """Use the second output of a SkipGroupNorm for the sum that it adds up."""
        self._stand_in(skip.outputs[1], total)

    def _stand_in(self, last: ir.Value, old: ir.Value) -> None:
        name = str(old.name)
        last.name, old.name = f"{name}/last", f"{name}/unfused"
        set_type(last, _dtype(old), _permuted(old.shape, FIRST_TO_LAST))
        old.replace_all_uses_with(self._turn(last, LAST_TO_FIRST, name), replace_graph_outputs=True)

    def _turn(self, value: ir.Value, order: tuple[int, ...], name: str) -> ir.Value:
        key = (value, order)
        if key not in self._turned:
            node = ir.node("Transpose", [value], {"perm": order}, name=f"{name}/transpose")
            out = node.outputs[0]
            out.name = name
            set_type(out, _dtype(value), _permuted(value.shape, order))
            maker = value.producer()
            if maker is None:
                self._graph.insert_before(self._graph[0], node)
            else:
                self._graph.insert_after(maker, node)
            self._turned[key] = out
        return self._turned[key]

    def propagate(self) -> None:
        """Move transpositions down past sums, joins, crops and enlargements until they meet."""
        self._graph.sort()
        for node in list(self._graph):
            if node.op_type == "Transpose" and _order(node) == FIRST_TO_LAST:
                self._meet(node)
            elif node.op_type in MOVABLE and not node.domain:
                self._move(node)

    def _meet(self, node: ir.Node) -> None:
        back = made_by(node.inputs[0], "Transpose")
        if back is None or _order(back) != LAST_TO_FIRST or back.inputs[0] is None:
            return
        if not node.outputs[0].is_graph_output():
            node.outputs[0].replace_all_uses_with(back.inputs[0])

    def _move(self, node: ir.Node) -> None:
        inputs = [self._source(value) for value in node.inputs[: MOVABLE[node.op_type]]]
        if not inputs or None in inputs:
            return
        rest = REST[node.op_type](self._graph, node)
        if rest is None:
            return
        values, attributes = rest
        moved = ir.node(node.op_type, [*inputs, *values], attributes, name=f"{node.name}/last")
        self.replace(moved, node.outputs[0])

    def _source(self, value: ir.Value | None) -> ir.Value | None:
        """Give f[N, H, W, C] of a value that is a turned one of it."""
        back = made_by(value, "Transpose")
        return back.inputs[0] if back is not None and _order(back) == LAST_TO_FIRST else None


Rest = tuple[Sequence[ir.Value | None], Mapping[str, ir.Attr]]


def _order(node: ir.Node) -> tuple[int, ...]:
    return tuple(node.attributes["perm"].as_ints())


def _dtype(value: ir.Value) -> ir.DataType:
    if value.dtype is None:
        raise ValueError(f"'{value.name}' has no type")
    return value.dtype


def _permuted(shape: ir.Shape | None, order: tuple[int, ...]) -> ir.Shape | None:
    return None if shape is None else ir.Shape([shape[axis] for axis in order])


def _plain(graph: ir.Graph, node: ir.Node) -> Rest | None:  # noqa: ARG001  one signature for all
    return (), dict(node.attributes)


def _joined(graph: ir.Graph, node: ir.Node) -> Rest | None:  # noqa: ARG001
    axis = ir.AttrInt64("axis", AXIS[node.attributes["axis"].as_int()])
    return (), {"axis": axis}


def _cropped(graph: ir.Graph, node: ir.Node) -> Rest | None:
    axes = constant(node.inputs[3]) if len(node.inputs) > 3 else None
    if axes is None:
        return None
    moved = np.array([AXIS[int(axis)] for axis in axes], np.int64)
    values = [*node.inputs[1:3], _stored(graph, f"{node.name}/axes", moved), *node.inputs[4:]]
    return values, {}


def _enlarged(graph: ir.Graph, node: ir.Node) -> Rest | None:
    """Move Resize by constant factors; sizes, regions and axes of its own are left alone."""
    scales = constant(node.inputs[2]) if len(node.inputs) == 3 else None
    if scales is None or scales.size != 4 or "axes" in node.attributes:
        return None
    moved = scales[list(FIRST_TO_LAST)].astype(np.float32)
    return (None, _stored(graph, f"{node.name}/scales", moved)), dict(node.attributes)


def _stored(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
    set_type(value, ir.DataType.from_numpy(array.dtype), ir.Shape(array.shape))
    graph.register_initializer(value)
    return value


# Operator -> how many inputs are pictures (None: all), and what becomes of the others.
MOVABLE: Mapping[str, int | None] = {"Add": None, "Concat": None, "Slice": 1, "Resize": 1}
REST: Mapping[str, Callable[[ir.Graph, ir.Node], Rest | None]] = {
    "Add": _plain,
    "Concat": _joined,
    "Slice": _cropped,
    "Resize": _enlarged,
}
