"""Gives ONNX Runtime attention that it computes in blocks, without the matrix of all scores.

Exported graphs spell attention out, for whoever reads them. Computed like that, a picture of
768x768 pixels takes 7 GB for the scores of one layer. `MultiHeadAttention` (onnxruntime,
docs/ContribOperators.md) is the same in one operator, and its kernel for processors keeps a block
of them. The graph is written anew in memory; the weights stay in their files.
"""

import math
import mmap
import struct
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from engine.backends import Shapes
from engine.errors import BundleError
from engine.onnxgraph import Node, OnnxGraph, read_onnx_graph
from engine.onnxheader import Message

__all__ = ["with_attention"]

DOMAIN: Final = "com.microsoft"
LARGEST: Final = 64 << 20  # bytes of a file that is copied; weights of real models lie beside it
TOKENS: Final = 1024  # of a layer; the scores of fewer fit into a cache
FLOAT: Final = 1  # TensorProto.DataType
HEADS_FIRST: Final = (0, 2, 1, 3)
KEY_UPRIGHT: Final = (0, 2, 3, 1)


def with_attention(path: Path, shapes: Shapes) -> bytes | None:
    """Give the .onnx file `path` with attention as one operator, or None where that has no use.

    shapes: of its inputs; for small ones nothing is won. Only what is known to be f32[N, S, D] is
    taken, and nothing with a mask. Of a file that cannot be read nothing is given either: whoever
    opens it says what is wrong.
    """
    areas = [math.prod(shape[-2:]) for shape in shapes.values() if len(shape) == 4]
    try:
        if max(areas, default=0) < TOKENS or path.stat().st_size > LARGEST:
            return None
        graph = read_onnx_graph(path)
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _rewritten(Message(data, 0, len(data)), graph)
    except (BundleError, OSError, ValueError, IndexError, struct.error):
        return None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Attention:
    """end = softmax(scale q k^T) v in `heads` parts: end, q f[N, S, D], k, v f[N, T, D]."""

    q: str
    k: str
    v: str
    end: str
    heads: int
    scale: float


class _Reader:
    """Knows who makes and who uses a value, and recognises attention by that."""

    def __init__(self, graph: OnnxGraph) -> None:
        self._weights = graph.weights
        self._makers = {name: node for node in graph.nodes for name in node.outputs}
        self._users: dict[str, list[Node]] = {name: [] for name in graph.outputs}
        self._outputs = frozenset(graph.outputs)
        for node in graph.nodes:
            for name in node.inputs:
                self._users.setdefault(name, []).append(node)

    def attention(self, softmax: Node) -> _Attention | None:
        """Match softmax(q k^T) v between heads that were split and are joined again."""
        context = self._user(softmax.outputs[0], "MatMul")
        back = None if context is None else self._user(context.outputs[0], "Transpose")
        joined = None if back is None else self._user(back.outputs[0], "Reshape")
        if softmax.attributes.get("axis", -1) not in {-1, 3} or context is None or joined is None:
            return None
        scores, scale = self._unscaled(softmax.inputs[0])
        product = self._maker(scores, "MatMul")
        if product is None or back is None or not _turns(back, HEADS_FIRST):
            return None
        (q, by_q), (k, by_k) = map(self._unscaled, product.inputs)
        queries, keys = self._heads(q), self._keys(k)
        values = self._heads(context.inputs[1])
        if queries is None or keys is None or values is None:
            return None
        if not queries[1] == keys[1] == values[1] > 0:
            return None
        return _Attention(
            q=queries[0],
            k=keys[0],
            v=values[0],
            end=joined.outputs[0],
            heads=queries[1],
            scale=scale * by_q * by_k,
        )

    def _maker(self, name: str, kind: str) -> Node | None:
        node = self._makers.get(name)
        return node if node is not None and node.kind == kind and not node.domain else None

    def _user(self, name: str, kind: str) -> Node | None:
        """Give the only node that uses a value, if it is this operator and takes it first."""
        users = self._users.get(name, [])
        if len(users) != 1 or name in self._outputs:
            return None
        good = users[0].kind == kind and users[0].inputs[0] == name
        return users[0] if good else None

    def _unscaled(self, name: str) -> tuple[str, float]:
        times = self._maker(name, "Mul")
        if times is not None:
            for one, other in (times.inputs, reversed(times.inputs)):
                factor = self._weights.get(other)
                if factor is not None and factor.size == 1:
                    return one, float(np.asarray(factor, np.float64).reshape(()))
        return name, 1.0

    def _heads(self, name: str, order: tuple[int, ...] = HEADS_FIRST) -> tuple[str, int] | None:
        """Give f[N, S, D] and the number of heads of f[N, heads, S, D / heads]."""
        turned = self._maker(name, "Transpose")
        split = None if turned is None else self._maker(turned.inputs[0], "Reshape")
        if turned is None or split is None or not _turns(turned, order):
            return None
        heads = self._third(split.inputs[1])
        return None if heads is None else (split.inputs[0], heads)

    def _keys(self, name: str) -> tuple[str, int] | None:
        """Do the same for k, which is turned upright as well: f[N, heads, D / heads, T].

        torch traces that as one Transpose, as two, or as Reshape, Transpose [0, 2, 1], Reshape.
        """
        outer = self._maker(name, "Reshape")
        turned = self._maker(name if outer is None else outer.inputs[0], "Transpose")
        if turned is None:
            return None
        if outer is None:
            two = _turns(turned, (0, 1, 3, 2))
            return self._heads(turned.inputs[0]) if two else self._heads(name, KEY_UPRIGHT)
        inner = self._maker(turned.inputs[0], "Reshape")
        if inner is None or not _turns(turned, (0, 2, 1)):
            return None
        return self._heads(inner.inputs[0])

    def _third(self, name: str) -> int | None:
        """Give the third of four sizes, where it is a known number."""
        sizes = self._weights.get(name)
        if sizes is not None:
            return int(sizes[2]) if sizes.shape == (4,) else None
        joined = self._maker(name, "Concat")
        if joined is None or len(joined.inputs) != 4:
            return None
        each = self._weights.get(joined.inputs[2])
        return int(each[0]) if each is not None and each.shape == (1,) else None


def _turns(node: Node, order: tuple[int, ...]) -> bool:
    return node.attributes.get("perm") == order


def _rewritten(model: Message, graph: OnnxGraph) -> bytes | None:
    reader = _Reader(graph)
    matches = [reader.attention(node) for node in graph.nodes if node.kind == "Softmax"]
    found = {match.end: match for match in matches if match is not None}
    named = {name for each in found.values() for name in (each.q, each.k, each.v, each.end)}
    widths = _widths(model.inner(7), named)
    found = {end: each for end, each in found.items() if _fits(each, widths)}
    if not found:
        return None
    parts = [_copy(number, value) for number, value in model.fields() if number != 7]
    if DOMAIN not in _domains(model):
        parts.append(_field(8, _field(1, DOMAIN.encode()) + _number(2, 1)))
    parts.append(_field(7, b"".join(_graph(model.inner(7), graph, found))))
    return b"".join(parts)


def _domains(model: Message) -> set[str]:
    """Give the domains of operators that the file names already."""
    return {
        value.inner(1).text()
        for number, value in model.fields()
        if number == 8 and not isinstance(value, int)
    }


def _fits(match: _Attention, widths: Mapping[str, int]) -> bool:
    """Say whether all four are f32 of three dimensions, and the last one is the heads' together."""
    width, *others = (widths.get(each, 0) for each in (match.q, match.k, match.v, match.end))
    return width > 0 and others == [width] * 3 and width % match.heads == 0


def _widths(graph: Message, wanted: Collection[str]) -> dict[str, int]:
    """Give the last dimension of those of the wanted values that are said to be f32 of three."""
    found: dict[str, int] = {}
    for number, value in graph.fields():
        if number not in {11, 13} or isinstance(value, int):
            continue
        field, name = next(value.fields(), (0, 0))  # every writer puts the name first
        if field != 1 or isinstance(name, int) or name.text() not in wanted:
            continue
        tensor = value.inner(2).inner(1)
        kinds = [each for field, each in tensor.fields() if field == 1]
        dims = [each for field, each in tensor.inner(2).fields() if field == 1]
        if kinds != [FLOAT] or len(dims) != 3 or isinstance(dims[2], int):
            continue
        sizes = [each for field, each in dims[2].fields() if field == 1]
        if len(sizes) == 1 and isinstance(sizes[0], int):
            found[name.text()] = sizes[0]
    return found


def _graph(message: Message, graph: OnnxGraph, found: Mapping[str, _Attention]) -> Iterator[bytes]:
    """Yield the graph's fields: a node that ends an attention is that one instead, and nodes whose
    outputs nobody uses any more are left out.
    """
    used = set(graph.outputs)
    kept: set[int] = set()
    for place in range(len(graph.nodes) - 1, -1, -1):
        node = graph.nodes[place]
        if used.isdisjoint(node.outputs):
            continue
        kept.add(place)
        match = found.get(node.outputs[0])
        used.update(node.inputs if match is None else (match.q, match.k, match.v))
    place = -1
    for number, value in message.fields():
        if number != 1:
            yield _copy(number, value)
            continue
        place += 1
        if place in kept:
            match = found.get(graph.nodes[place].outputs[0])
            yield _copy(number, value) if match is None else _field(1, _node(match))


def _node(match: _Attention) -> bytes:
    """Give a NodeProto of onnx.proto3."""
    heads = _field(1, b"num_heads") + _number(3, match.heads) + _number(20, 2)
    scale = _field(1, b"scale") + b"\x15" + struct.pack("<f", match.scale) + _number(20, 1)
    return b"".join(
        (
            *(_field(1, name.encode()) for name in (match.q, match.k, match.v)),
            _field(2, match.end.encode()),
            _field(3, f"{match.end}/attention".encode()),
            _field(4, b"MultiHeadAttention"),
            _field(5, heads),
            _field(5, scale),
            _field(7, DOMAIN.encode()),
        )
    )


def _copy(number: int, value: int | Message) -> bytes:
    if isinstance(value, int):
        return _number(number, value)
    return _field(number, value.data[value.start : value.end])


def _field(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _varint(value: int) -> bytes:
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*groups, value))
