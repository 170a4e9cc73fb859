"""Operations of our own in OpenVINO's graphs, and how the graphs are let go in spite of them.

A node that is written in Python and its Python object hold each other for ever (the binding wants
it so: a node must find its methods as long as there is one), and with the node all before it in the
graph: gigabytes of weights for each network that was ever compiled. So whoever compiles collects
the nodes, and cuts them off from their inputs when the compiled model is gone. A few kB of each
stay behind. Breaking the circle itself would end the process: the binding lets a compiled model go
without Python's lock, and the nodes in it would take their objects along.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

__all__ = ["channels_last", "collected", "cut_off", "keep"]

_collecting: list[list[Any]] = []


def keep(*made: Any) -> None:
    """Give nodes to whoever collects now."""
    if _collecting:
        _collecting[-1].extend(made)


@contextmanager
def collected() -> Generator[list[Any]]:
    """Collect the nodes that are made in the block. One thread at a time: the caller sees to it."""
    made: list[Any] = []
    _collecting.append(made)
    try:
        yield made
    finally:
        _collecting.pop()


def cut_off(ov: Any, nodes: Sequence[Any]) -> None:
    """Let go of all before these nodes. ov: the openvino module. Nothing may compute with them."""
    nothing = ov.opset13.constant(np.zeros(1, np.float32)).output(0)
    for node in nodes:
        for port in node.inputs():
            port.replace_source_output(nothing)


def channels_last(op: Any, output: Any) -> Any:
    """Give `output` f[B, C, H, W] as f[B, H, W, C]; what came from there is not turned back and
    forth.
    """
    node = output.get_node()
    if node.get_type_name() == "Transpose":
        order = node.input_value(1).get_node()
        if order.get_type_name() == "Constant" and order.data.tolist() == [0, 3, 1, 2]:
            return node.input_value(0)
    return op.transpose(output, op.constant(np.array([0, 2, 3, 1]))).output(0)
