"""A torch.fx graph at work: values that are known while it is built, and nodes of the new graph.

torch's `meta` device tells a node's shape, so that arithmetic of shapes is done while building.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from engine.errors import BundleError
from engine.onnxgraph import Node

__all__ = [
    "Builder",
    "Value",
    "epsilon_of",
    "flat",
    "floats_of",
    "integer",
    "integers",
    "mapped",
    "numbers_of",
    "scalar",
    "shape_of",
    "tensor_of",
]


@dataclass(eq=False, slots=True)
class Value:
    """A value of the new graph. meta: its shape and dtype, as a tensor without memory. made: how,
    where a larger function may be recognised by it: a word, and what it was made of.
    """

    node: Any
    meta: Any
    made: tuple[Any, ...] = ("",)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.meta.shape)


@dataclass(slots=True)
class Builder:
    """A module at work. dtype: torch's, that it computes in."""

    torch: Any
    dtype: Any
    graph: Any
    root: Any
    values: dict[str, Any] = field(default_factory=dict[str, Any])
    kept: dict[int, tuple[Any, Any]] = field(default_factory=dict[int, tuple[Any, Any]])

    def emit(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Call a function now where all is known, else in the new graph."""
        every = [*flat(arguments), *flat(tuple(named.values()))]
        if not any(isinstance(each, Value) for each in every):
            return function(*arguments, **named)
        metas = mapped(arguments, self._meta), mapped(named, self._meta)
        nodes = mapped(arguments, self._node), mapped(named, self._node)
        meta = function(*metas[0], **metas[1])
        return Value(self.graph.call_function(function, nodes[0], nodes[1]), meta)

    def wide(self, value: Any) -> Any:
        """Give a float value in the dtype that is computed in."""
        return self.as_type(value, self.dtype)

    def as_type(self, value: Any, dtype: Any) -> Any:
        known = value.meta if isinstance(value, Value) else value
        if known.dtype == dtype or not known.dtype.is_floating_point:
            return value
        if isinstance(value, Value):
            return self.emit(self.torch.Tensor.to, value, dtype)
        key = id(value)
        if key not in self.kept or self.kept[key][1].dtype != dtype:
            self.kept[key] = (value, value.to(dtype))
        return self.kept[key][1]

    def alike(self, *values: Any) -> list[Any]:
        """Give float values in one dtype: known ones follow the others, fp32 follows narrow."""
        moving = [each for each in values if isinstance(each, Value)]
        floats = [each.meta.dtype for each in moving if each.meta.dtype.is_floating_point]
        if not floats:
            return list(values)
        wanted = next((each for each in floats if each != self.torch.float32), floats[0])
        return [self.as_type(each, wanted) for each in values]

    def _meta(self, value: Any) -> Any:
        if isinstance(value, Value):
            return value.meta
        return value.to("meta") if isinstance(value, self.torch.Tensor) else value

    def _node(self, value: Any) -> Any:
        if isinstance(value, Value):
            return value.node
        if not isinstance(value, self.torch.Tensor):
            return value
        name = f"weight_{id(value)}"
        if not hasattr(self.root, name):
            self.root.register_buffer(name, value)
            self.kept[id(value)] = self.kept.get(id(value), (value, value))  # its id stays its own
        return self.graph.get_attr(name)


def tensor_of(torch: Any, array: Any) -> Any:
    """Give a weight as a tensor of its own memory: its file is closed to writing."""
    return torch.from_numpy(np.array(array))


def mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(value, tuple):
        return tuple(mapped(each, change) for each in cast("tuple[Any, ...]", value))
    if isinstance(value, list):
        return [mapped(each, change) for each in cast("list[Any]", value)]
    if isinstance(value, dict):
        return {key: mapped(each, change) for key, each in cast("dict[str, Any]", value).items()}
    return change(value)


def flat(value: Any) -> list[Any]:
    if isinstance(value, tuple | list):
        parts = cast("Sequence[Any]", value)
        return [inner for each in parts for inner in flat(each)]
    return [value]


def shape_of(value: Any) -> tuple[int, ...]:
    return value.shape if isinstance(value, Value) else tuple(value.shape)


def numbers_of(value: Any, node: Node) -> list[int]:
    """Give what an operator is told as whole numbers, which must be known while it is built."""
    if isinstance(value, Value):
        raise BundleError(f"the graph computes the shape of a {node.kind} out of its inputs")
    return [int(each) for each in value.reshape(-1).tolist()]


def floats_of(value: Any) -> list[float]:
    """Give a known tensor's numbers; none for what is computed."""
    if value is None or isinstance(value, Value):
        return []
    return [float(each) for each in value.reshape(-1).tolist()]


def integer(node: Node, name: str, default: int) -> int:
    value = node.attributes.get(name, default)
    return value if isinstance(value, int) else default


def integers(node: Node, name: str) -> tuple[int, ...]:
    value = node.attributes.get(name, ())
    return cast("tuple[int, ...]", value) if isinstance(value, tuple) else ()


def epsilon_of(node: Node) -> float:
    value = node.attributes.get("epsilon", 1e-5)
    return float(value) if isinstance(value, int | float) else 1e-5


def scalar(value: Any) -> float | None:
    """Give the number of a known tensor that holds but one."""
    if isinstance(value, Value) or value is None or value.numel() != 1:
        return None
    return float(value)
