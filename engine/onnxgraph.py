"""Reads a whole .onnx graph without the onnx library: nodes, attributes, weights where they lie.

For back ends that build a network of their own out of it. What `engine.onnxheader` says of lengths
holds here: each is checked against the file, and weights must lie inside their own.
"""

import mmap
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from engine.errors import BundleError
from engine.manifest import TensorSpec
from engine.onnxheader import Message, read_port

__all__ = ["Attribute", "Node", "OnnxGraph", "read_onnx_graph"]

Array = NDArray[np.generic]
Attribute = int | float | str | tuple[int, ...] | tuple[float, ...] | Array
NODES_LIMIT: Final = 100_000  # SDXL's unet has about 8,000
# TensorProto.DataType -> what numpy calls it.
KINDS: Final[Mapping[int, type[np.generic]]] = {
    1: np.float32,
    6: np.int32,
    7: np.int64,
    9: np.bool_,
    10: np.float16,
    11: np.float64,
}
EXTERNAL: Final = 1  # TensorProto.DataLocation
NEGATIVE: Final = 1 << 63  # numbers from here on are negative ones


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """One operation. inputs and outputs: names, '' for one that is left out."""

    kind: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute]


@dataclass(frozen=True, kw_only=True, slots=True)
class OnnxGraph:
    """A graph in the order in which it is computed. weights: mapped from their files."""

    inputs: Mapping[str, TensorSpec]
    outputs: Sequence[str]
    nodes: Sequence[Node]
    weights: Mapping[str, Array]


def read_onnx_graph(path: Path) -> OnnxGraph:
    """Read the .onnx file `path`. Raises BundleError on anything out of order."""
    name = f"{path.parent.name}/{path.name}"
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _graph(Message(data, 0, len(data)).inner(7), path.parent)
    except (OSError, ValueError, struct.error) as error:
        raise BundleError(f"{name} cannot be read: {error}") from error
    except IndexError as error:
        raise BundleError(f"{name} is no ONNX file or is damaged: {error}") from error


def _graph(graph: Message, folder: Path) -> OnnxGraph:
    nodes: list[Node] = []
    weights: dict[str, Array] = {}
    inputs: dict[str, TensorSpec] = {}
    outputs: list[str] = []
    files: dict[str, Array] = {}
    for number, value in graph.fields():
        if isinstance(value, int):
            continue
        if number == 1:
            nodes.append(_node(value, folder, files))
            if len(nodes) > NODES_LIMIT:
                raise IndexError(f"it has more than {NODES_LIMIT} nodes")
        elif number == 5:
            name, array = _tensor(value, folder, files)
            weights[name] = array
        elif number == 11:
            name, spec = read_port(value)
            inputs[name] = spec
        elif number == 12:
            outputs.append(value.inner(1).text())
    free = {name: spec for name, spec in inputs.items() if name not in weights}
    return OnnxGraph(inputs=free, outputs=outputs, nodes=nodes, weights=weights)


def _node(message: Message, folder: Path, files: dict[str, Array]) -> Node:
    texts: dict[int, list[str]] = {1: [], 2: [], 4: [], 7: []}
    attributes: dict[str, Attribute] = {}
    for number, value in message.fields():
        if isinstance(value, int):
            continue
        if number in texts:
            texts[number].append(value.text())
        elif number == 5:
            attributes[value.inner(1).text()] = _attribute(value, folder, files)
    return Node(
        kind=texts[4][-1] if texts[4] else "",
        domain=texts[7][-1] if texts[7] else "",
        inputs=tuple(texts[1]),
        outputs=tuple(texts[2]),
        attributes=attributes,
    )


def _attribute(message: Message, folder: Path, files: dict[str, Array]) -> Attribute:
    floats: list[float] = []
    whole: list[int] = []
    for number, value in message.fields():
        if isinstance(value, int):
            if number == 3:
                return _signed(value)
            if number == 8:
                whole.append(_signed(value))
        elif number == 2:
            return _floats(value)[0]
        elif number == 4:
            return value.text()
        elif number == 5:
            return _tensor(value, folder, files)[1]
        elif number == 7:
            floats += _floats(value)
        elif number == 8:
            whole += map(_signed, value.varints())
        elif number == 6:
            raise IndexError("it has graphs within graphs, which are not read here")
    return tuple(floats) if floats else tuple(whole)


def _floats(message: Message) -> tuple[float, ...]:
    data = message.data[message.start : message.end]
    return struct.unpack(f"<{len(data) // 4}f", data)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= NEGATIVE else value


def _tensor(message: Message, folder: Path, files: dict[str, Array]) -> tuple[str, Array]:
    """Read a TensorProto: its numbers inside, or a view of the file that they lie in."""
    name = message.inner(8).text()
    shape = _whole(message, 1)
    kind, where = (_last(message, number) for number in (2, 14))
    dtype = KINDS.get(kind)
    if dtype is None:
        raise IndexError(f"the weight '{name[:60]}' has a type that is not supported")
    raw = message.inner(9)
    if where == EXTERNAL:
        external = {
            value.inner(1).text(): value.inner(2).text()
            for number, value in message.fields()
            if number == 13 and not isinstance(value, int)
        }
        return name, _mapped(external, np.dtype(dtype), shape, folder, files)
    if raw.end > raw.start:
        data: Array = np.frombuffer(raw.data[raw.start : raw.end], dtype=dtype)
    elif dtype is np.float16:  # its bits, as whole numbers
        data = np.array(_whole(message, 5), dtype=np.uint16).view(np.float16)
    elif dtype is np.float32:
        floats = [
            each
            for number, value in message.fields()
            if number == 4 and not isinstance(value, int)
            for each in _floats(value)
        ]
        data = np.array(floats, dtype=dtype)
    else:
        data = np.array(_whole(message, 7) or _whole(message, 5), dtype=dtype)
    return name, data.reshape(shape)


def _last(message: Message, wanted: int) -> int:
    found = (value for number, value in message.fields() if number == wanted)
    return next((value for value in found if isinstance(value, int)), 0)


def _whole(message: Message, wanted: int) -> tuple[int, ...]:
    """Give the whole numbers of a field, packed or one by one."""
    found: list[int] = []
    for number, value in message.fields():
        if number == wanted:
            found += [value] if isinstance(value, int) else value.varints()
    return tuple(map(_signed, found))


def _mapped(
    external: Mapping[str, str],
    dtype: np.dtype[np.generic],
    shape: tuple[int, ...],
    folder: Path,
    files: dict[str, Array],
) -> Array:
    location = external.get("location", "")
    if Path(location).name != location or not location:
        raise IndexError(f"weights may lie beside the graph alone, not in '{location[:60]}'")
    if location not in files:
        files[location] = np.memmap(folder / location, dtype=np.uint8, mode="r")
    data = files[location]
    offset = int(external.get("offset", "0"))
    length = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if offset < 0 or length < 0 or offset + length > len(data):
        raise IndexError(f"a weight lies beyond the end of '{location[:60]}'")
    return np.asarray(data[offset : offset + length]).view(dtype).reshape(shape)
