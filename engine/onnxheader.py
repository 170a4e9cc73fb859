"""Reads the head of an .onnx file without the onnx library: inputs, outputs, files of weights.

An .onnx file is a protocol buffer (onnx.proto3, IR version 3 and later). Only the few fields below
are looked at, everything else is skipped by its length; every length is checked against the file.
"""

import mmap
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from engine.errors import BundleError
from engine.manifest import NAME, TensorSpec

__all__ = ["DTYPES", "Message", "OnnxHeader", "read_onnx_header", "read_port"]

DEPTH_LIMIT = 8  # nested graphs of If and Loop; real models have 2
SIZE_LIMIT = 1 << 31  # of one dimension, as the manifest has it
TEXT_LIMIT = 1024  # bytes of a name; real ones have 60
PORTS_LIMIT = 64  # inputs or outputs of one graph; an SDXL UNet with ControlNet has 20
# TensorProto.DataType of what diffusion networks take and give.
DTYPES = {1: "float32", 6: "int32", 7: "int64", 10: "float16"}
# message -> field number -> message inside it, on the way to what is read here.
INSIDE: Mapping[str, Mapping[int, str]] = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 11: "input", 12: "output"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph"},
    "tensor": {13: "external"},
}
ENDS = ("input", "output", "external")


@dataclass(frozen=True, kw_only=True, slots=True)
class OnnxHeader:
    """What a graph takes and gives, by name in its order, and the files its weights lie in.

    Inputs that are weights as well (old exporters list them twice) are left out.
    """

    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    data_files: frozenset[str]


@dataclass(frozen=True, slots=True)
class Message:
    """The bytes from `start` to `end` of a mapped file. Slices are copied only when small."""

    data: mmap.mmap
    start: int
    end: int

    def fields(self) -> "Iterator[tuple[int, int | Message]]":
        """Yield (field number, varint or bytes); raises IndexError past the end."""
        at = self.start
        while at < self.end:
            tag, at = self._varint(at)
            wire = tag & 7
            if wire == 0:
                value, at = self._varint(at)
                yield tag >> 3, value
                continue
            if wire == 2:
                length, at = self._varint(at)
            elif wire in {1, 5}:
                length = 8 if wire == 1 else 4
            else:
                raise IndexError("unknown wire type")
            if length > self.end - at:
                raise IndexError("a field is longer than its message")
            yield tag >> 3, Message(self.data, at, at + length)
            at += length

    def inner(self, wanted: int) -> "Message":
        """Give the last message in field `wanted`, or an empty one."""
        found = Message(self.data, self.end, self.end)
        for number, value in self.fields():
            if number == wanted and not isinstance(value, int):
                found = value
        return found

    def text(self) -> str:
        """Give the bytes as text; more than TEXT_LIMIT of them are no name."""
        if self.end - self.start > TEXT_LIMIT:
            raise IndexError("a name is too long")
        return self.data[self.start : self.end].decode("utf-8")

    def varints(self) -> "Iterator[int]":
        """Yield the numbers of a packed field, as they are written: none is negative."""
        at = self.start
        while at < self.end:
            value, at = self._varint(at)
            yield value

    def _varint(self, at: int) -> tuple[int, int]:
        value = 0
        for shift in range(0, 70, 7):  # ten bytes at most
            if at >= self.end:
                raise IndexError("a number is cut short")
            byte = self.data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, at
        raise IndexError("a number is too long")


def read_onnx_header(path: Path) -> OnnxHeader:
    """Read the header of the .onnx file `path`. Raises BundleError on anything out of order."""
    name = f"{path.parent.name}/{path.name}"
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _header(Message(data, 0, len(data)), name)
    except (OSError, ValueError) as error:  # mmap of an empty file, or text that is no UTF-8
        raise BundleError(f"{name} cannot be read: {error}") from error
    except IndexError as error:
        raise BundleError(f"{name} is no ONNX file or is damaged: {error}") from error


def _header(model: Message, name: str) -> OnnxHeader:
    ports: dict[str, dict[str, TensorSpec]] = {"input": {}, "output": {}}
    files: set[str] = set()
    for kind, depth, message in _walk(model, "model", 0):
        if kind == "external":
            if message.inner(1).text() == "location":
                files.add(message.inner(2).text())
        elif depth == 1:  # of the outermost graph
            port, spec = read_port(message)
            ports[kind][port] = spec
            if len(ports[kind]) > PORTS_LIMIT:
                raise BundleError(f"{name} has more than {PORTS_LIMIT} {kind}s")
    if not ports["output"]:
        raise BundleError(f"{name} is no ONNX file: it has no output")
    return OnnxHeader(inputs=ports["input"], outputs=ports["output"], data_files=frozenset(files))


def _walk(message: Message, kind: str, depth: int) -> Iterator[tuple[str, int, Message]]:
    """Yield (kind, depth, message) for every message of interest below `message`."""
    if depth > DEPTH_LIMIT * 3:  # graph, node, attribute: three levels a nested graph
        raise BundleError("the ONNX file nests graphs too deeply")
    inside = INSIDE[kind]
    for number, value in message.fields():
        found = inside.get(number)
        if found is None or isinstance(value, int):
            continue
        if found in ENDS:
            yield found, depth, value
        else:
            yield from _walk(value, found, depth + 1)


def read_port(message: Message) -> tuple[str, TensorSpec]:
    """Read a ValueInfoProto: name, type.tensor_type.{elem_type, shape.dim[]}."""
    name = message.inner(1).text()
    tensor = message.inner(2).inner(1)
    code = next((value for number, value in tensor.fields() if number == 1), 0)
    dtype = DTYPES.get(code) if isinstance(code, int) else None
    if dtype is None:
        raise BundleError(f"the ONNX file's '{name[:60]}' has a type that is not supported")
    shape: list[int | str] = []
    for number, dim in tensor.inner(2).fields():
        if number == 1 and not isinstance(dim, int):
            shape.append(_size(dim, len(shape)))
    return name, TensorSpec(dtype=dtype, shape=tuple(shape))


def _size(dim: Message, axis: int) -> int | str:
    for number, value in dim.fields():
        # Some exporters write 0 or -1 for a free size, or a formula for its name.
        if number == 1 and isinstance(value, int) and 0 < value <= SIZE_LIMIT:
            return value
        if number == 2 and not isinstance(value, int) and re.fullmatch(NAME, value.text()):
            return value.text()
    return f"axis{axis}"
