"""Measures how large a graph's numbers grow, and names what fp16 arithmetic could not hold.

fp16 ends at 65504. Instead of hand-written lists of layers (SDXL's VAE, SD 2.1's attention), the
fp32 graph runs once on real inputs and says itself where it comes near.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx import TensorProto, helper

from engine.backends import Array
from engine.backends.onnxruntime import runtime
from engine.cores import physical_cores
from export.errors import GraphError

__all__ = ["FP16_LARGEST", "LIMIT", "Observation", "observe", "open_graph", "wide_nodes"]

FP16_LARGEST = 65504.0
# Half of it: other prompts, seeds and sizes reach further than the few inputs that were measured.
LIMIT = FP16_LARGEST / 2
SUFFIX = "/largest"
# Angles of the timestep's embedding reach 1000 radians, where fp16 has steps of half a radian.
ANGLES = ("Sin", "Cos")
_DTYPES: Mapping[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Observation:
    """What a graph did: tensor -> max |x| over all runs, and each run's named outputs.

    The maximum is infinity for a tensor that held NaN or Inf.
    """

    ranges: Mapping[str, float]
    outputs: tuple[Mapping[str, NDArray[Any]], ...]


def observe(model: Path, runs: Sequence[Mapping[str, Array]]) -> Observation:
    """Run the fp32 graph `model` on named inputs and watch every float tensor in it.

    The maxima are taken inside the graph, so that no intermediate tensor outlives its use: memory
    is what the network itself takes. Raises GraphError.
    """
    proto = onnx.load(model, load_external_data=False)
    outputs = [port.name for port in proto.graph.output]
    names = _watch(proto)
    run = open_graph(proto, model.parent)
    ranges = dict.fromkeys(names, 0.0)
    kept: list[Mapping[str, NDArray[Any]]] = []
    for inputs in runs:
        found = run(inputs)
        kept.append({name: found[name] for name in outputs})
        for name in names:
            largest = float(found[name + SUFFIX])
            ranges[name] = max(ranges[name], largest if math.isfinite(largest) else math.inf)
    return Observation(ranges=ranges, outputs=tuple(kept))


def _watch(proto: onnx.ModelProto) -> list[str]:
    """Make max |x| of every float tensor an output beside the outputs; give the names."""
    graph = onnx.shape_inference.infer_shapes(proto).graph
    kinds = {
        value.name: value.type.tensor_type.elem_type
        for value in (*graph.value_info, *graph.input, *graph.output)
    }
    stored = {tensor.name for tensor in graph.initializer}
    made = [
        name
        for node in proto.graph.node
        # A weight that is widened was in fp16 before: it fits.
        if not (node.op_type == "Cast" and node.input[0] in stored)
        for name in node.output
    ]
    names = [port.name for port in proto.graph.input if port.name not in stored] + made
    watched = [name for name in names if kinds.get(name) == TensorProto.FLOAT]
    for name in watched:
        inner, outer = f"{name}/size", name + SUFFIX
        proto.graph.node.append(helper.make_node("Abs", [name], [inner]))
        proto.graph.node.append(helper.make_node("ReduceMax", [inner], [outer], keepdims=0))
        proto.graph.output.append(helper.make_tensor_value_info(outer, TensorProto.FLOAT, []))
    return watched


def open_graph(proto: onnx.ModelProto, folder: Path) -> Any:
    """Open a graph in ONNX Runtime on the CPU, its weights in `folder`; give a function.

    The function takes named inputs, converts their dtypes, and gives named outputs. Nothing is
    optimised: what was written is what runs. Raises GraphError.
    """
    ort = runtime()
    options = ort.SessionOptions()
    options.log_severity_level = 4  # its warnings speak of what it cannot fuse
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = physical_cores()
    # Nothing here is in a hurry: threads that wait for each other do it asleep.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_cpu_mem_arena = False  # as in the parity gate: memory over speed
    options.enable_mem_pattern = False
    options.add_session_config_entry("session.disable_prepacking", "1")
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", str(folder.absolute())
    )
    try:
        session = ort.InferenceSession(
            proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # the library's classes have no root of their own
        raise GraphError(f"ONNX Runtime cannot open the graph: {_short(error)}") from error

    def run(inputs: Mapping[str, Array]) -> dict[str, NDArray[Any]]:
        fed = dict(_fed(session, inputs))
        names = [port.name for port in session.get_outputs()]
        try:
            return dict(zip(names, session.run(names, fed), strict=True))
        except Exception as error:  # the library's classes have no root of their own
            raise GraphError(f"ONNX Runtime cannot run the graph: {_short(error)}") from error

    return run


def _fed(session: Any, inputs: Mapping[str, Array]) -> Iterator[tuple[str, Array]]:
    for port in session.get_inputs():
        value = np.asarray(inputs[port.name], _DTYPES[port.type])
        # optimum's unets take the timestep as [1], ours as a scalar.
        yield port.name, value.reshape(1) if len(port.shape) == 1 and value.ndim == 0 else value


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def wide_nodes(
    graph: ir.Graph, ranges: Mapping[str, float], *, limit: float = LIMIT
) -> dict[str, str]:
    """Give node -> why, of the nodes that must compute in fp32.

    `range`: an input, constant or output exceeds `limit`. `angle`: it makes the angles of a
    sine or cosine, which fp16 holds too coarsely whatever their size.
    """
    found: dict[str, str] = {}
    for node in graph:
        values = [value for value in (*node.inputs, *node.outputs) if value is not None]
        if any(_largest(value, ranges) > limit for value in values):
            found[str(node.name)] = "range"
    waiting = [node for node in graph if node.op_type in ANGLES]
    while waiting:
        node = waiting.pop()
        if found.get(str(node.name)) == "angle":
            continue
        found[str(node.name)] = "angle"
        makers = [value.producer() for value in node.inputs if value is not None]
        waiting += [
            maker
            for maker in makers
            if maker is not None and maker.outputs[0].dtype == ir.DataType.FLOAT
        ]
    return found


def _largest(value: ir.Value, ranges: Mapping[str, float]) -> float:
    stored = value.const_value
    if stored is None or stored.dtype != ir.DataType.FLOAT:
        return ranges.get(str(value.name), 0.0)
    array = np.asarray(stored.numpy())
    return float(np.abs(array).max()) if array.size else 0.0
