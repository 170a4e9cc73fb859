"""Says where a bundle's graph keeps its weights, and writes some of them anew in a copy of it.

A graph's initialisers carry state-dict names and shapes (`export.graph`, `export.weights`): large
ones lie in the external data at an offset, small ones in the graph itself (onnx.proto3,
TensorProto.data_location). So nothing beside the graph is needed to find a weight.
"""

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.errors import GraphError
from export.sharing import duplicate

__all__ = ["StoredWeight", "rewrite", "stored_weights"]

GRAPH_LIMIT = 256 << 20  # bytes of a graph without its weights; SDXL's UNet has 3 MiB
# TensorProto.DataType of stored weights; what else a graph holds are the tracer's constants.
DTYPES: Mapping[int, type[np.floating]] = {1: np.float32, 10: np.float16}
Array = NDArray[np.floating]
Change = Callable[[Array], Array]  # what is stored -> what is to be stored, same shape and dtype


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredWeight:
    """One weight of a graph. offset: of its first byte in the external data, None for one that
    lies in the graph itself.
    """

    name: str
    shape: tuple[int, ...]
    dtype: type[np.floating]
    offset: int | None

    @property
    def length(self) -> int:
        """Give its size in bytes."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def read(self, data: bytes) -> Array:
        """Make an array of its bytes, little-endian as ONNX has them."""
        kind = np.dtype(self.dtype).newbyteorder("<")
        return np.frombuffer(data, kind).astype(self.dtype).reshape(self.shape)


def stored_weights(model: Path, data: Path | None) -> dict[str, StoredWeight]:
    """Find the weights of the graph `model` by name. data: its external data, None where it has
    none. Raises GraphError when they do not lie as they should.
    """
    limit = 0 if data is None else data.stat().st_size
    name = "" if data is None else data.name
    found: dict[str, StoredWeight] = {}
    for tensor in _load(model).graph.initializer:
        # The tracer's own constants have no dots in their names.
        if "." in tensor.name and tensor.data_type in DTYPES:
            weight = _stored(tensor, name)
            end = weight.length + (weight.offset or 0)
            if weight.offset is not None and end > limit:
                raise GraphError(f"{model.parent.name}: '{weight.name}' lies outside {name}")
            found[weight.name] = weight
    return found


def rewrite(model: Path, data: Path | None, folder: Path, changes: Mapping[str, Change]) -> None:
    """Write `model` and `data` into the existing `folder` with the named weights changed.

    Only what changes takes room where the file system lets files share blocks. One weight is in
    memory at a time. Raises GraphError, OSError, and what a change raises.
    """
    weights = stored_weights(model, data)
    chosen = [weights[name] for name in changes]
    outside = [weight for weight in chosen if weight.offset is not None]
    if data is not None:
        _rewrite_data(data, folder / data.name, outside, changes)
    inside = {weight.name: weight for weight in chosen if weight.offset is None}
    if not inside:
        duplicate(model, folder / model.name)
        return
    proto = _load(model)
    for tensor in proto.graph.initializer:
        if tensor.name in inside:
            before = inside[tensor.name].read(tensor.raw_data)
            tensor.raw_data = _bytes(changes[tensor.name](before))
    with (folder / model.name).open("xb") as file:
        file.write(proto.SerializeToString())
        file.flush()
        os.fsync(file.fileno())


def _rewrite_data(
    data: Path, target: Path, weights: list[StoredWeight], changes: Mapping[str, Change]
) -> None:
    duplicate(data, target)
    if not weights:
        return
    with target.open("rb+") as file:
        for weight in sorted(weights, key=lambda each: each.offset or 0):
            file.seek(weight.offset or 0)
            before = weight.read(file.read(weight.length))
            file.seek(weight.offset or 0)
            file.write(_bytes(changes[weight.name](before)))
        file.flush()
        os.fsync(file.fileno())


def _bytes(array: Array) -> bytes:
    return array.astype(array.dtype.newbyteorder("<")).tobytes()


def _load(model: Path) -> Any:
    import onnx
    from google.protobuf.message import DecodeError

    if model.stat().st_size > GRAPH_LIMIT:
        raise GraphError(f"{model.parent.name}/{model.name} has more than {GRAPH_LIMIT} bytes")
    try:
        return onnx.load(model, load_external_data=False)
    except DecodeError as error:
        raise GraphError(f"{model.parent.name}/{model.name} is no ONNX file") from error


def _stored(tensor: Any, data_name: str) -> StoredWeight:
    """Read one TensorProto. Raises GraphError for a form that our exports do not have."""
    where = {entry.key: entry.value for entry in tensor.external_data}
    offset = None
    if where:
        number = where.get("offset", "0")
        if where.get("location") != data_name or not number.isdecimal() or len(number) > 15:
            raise GraphError(f"the weight '{tensor.name}' lies in another file than its graph's")
        offset = int(number)
    weight = StoredWeight(
        name=tensor.name,
        shape=tuple(tensor.dims),
        dtype=DTYPES[tensor.data_type],
        offset=offset,
    )
    size = str(len(tensor.raw_data)) if offset is None else where.get("length", "")
    if min(weight.shape, default=1) < 1 or size != str(weight.length):
        raise GraphError(f"the weight '{tensor.name}' has another size than its shape says")
    return weight
