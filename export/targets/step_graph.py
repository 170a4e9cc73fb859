"""Writes the step graph beside a unet: the whole step of a trajectory, on the unet's own weights.

`engine.stepgraph` says what it takes and gives, and reads it. The file has the unet's nodes once
more and none of its weights, which stay in the one file beside it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from engine.stepgraph import COLUMNS, FILE_NAME, HEAD, LATENTS, PREDICTIONS, SLOTS, TERMS
from export.errors import GraphError

__all__ = ["step_beside", "write_step"]

PREFIX = "step/"  # of every name that is added
CHANNELS = 4
SHAPE = ("pictures", CHANNELS, "height", "width")
ROUNDED = (TensorProto.INT32, TensorProto.INT64)


def step_beside(unet: Path) -> str:
    """Write the step graph where the unet can have one; gives for a report 'made', or why not."""
    try:
        write_step(unet)
    except GraphError as error:
        return str(error)
    return "made"


def write_step(unet: Path) -> Path:
    """Write `step.onnx` beside the graph `unet` and give its path.

    Raises GraphError for a unet that is not one of four channels in and out, with free height and
    width: those that see a picture beside the latents have no step graph.
    """
    model = onnx.load(unet, load_external_data=False)
    graph = model.graph
    ports = {port.name: port for port in graph.input}
    place = f"{unet.parent.name}/{unet.name}"
    if not {"sample", "timestep"} <= set(ports) or not _free(ports["sample"]):
        raise GraphError(f"{place} is no unet of {CHANNELS} channels: it gets no step graph")
    output = graph.output[0]
    before, constants = _before(ports["timestep"], ports["sample"])
    after = _after(output)
    nodes = [*before, *graph.node, *after]
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend(constants)
    others = [port for port in graph.input if port.name not in {"sample", "timestep"}]
    del graph.input[:]
    graph.input.extend([*_inputs(), *others])
    del graph.output[:]
    graph.output.extend(
        [
            _port("next_state", (SLOTS, *SHAPE)),
            _port("next_row", (1,), TensorProto.INT64),
            _port("denoised", (1, *SHAPE)),
        ]
    )
    file = unet.with_name(FILE_NAME)
    onnx.save(model, file)
    return file


def _free(sample: onnx.ValueInfoProto) -> bool:
    dims = sample.type.tensor_type.shape.dim
    names = [each.dim_param for each in dims]
    return len(dims) == 4 and dims[1].dim_value == CHANNELS and names[2:] == ["height", "width"]


def _inputs() -> list[onnx.ValueInfoProto]:
    return [
        _port("state", (SLOTS, *SHAPE)),
        _port("row", (1,), TensorProto.INT64),
        _port("table", ("rows", COLUMNS)),
        _port("noise", ("noises", *SHAPE)),
        _port("mix", ("texts", 1, 1, 1, 1)),
    ]


def _before(
    timestep: onnx.ValueInfoProto, sample: onnx.ValueInfoProto
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Pick the row, and make sample and timestep of it and the state."""
    scalar = [1 for _ in timestep.type.tensor_type.shape.dim]
    kind = timestep.type.tensor_type.elem_type
    rest = (1, LATENTS - 2, 1, PREDICTIONS - 2, 1)
    constants = {
        "head": np.array([len(HEAD), TERMS], np.int64),
        "cut": np.array(rest, np.int64),
        "first": np.array([0], np.int64),
        "from_channels": np.array([2], np.int64),
        "end": np.array([5], np.int64),
        "all": np.array([-1], np.int64),
        "scalar": np.array(scalar, np.int64),
        "terms": np.array([TERMS, 1, 1, 1, 1], np.int64),
        "one": np.array([1], np.int64),
    }
    nodes = [
        _node("Gather", ["table", "row"], ["line"], axis=0),  # (1, COLUMNS)
        _node("Split", ["line", "=head"], ["columns", "factors"], axis=1),
        _node("Split", ["columns"], list(HEAD), axis=1, num_outputs=len(HEAD)),  # (1, 1) each
        _node("Split", ["state", "=cut"], ["x", "earlier_x", "last_x", "earlier_d", "last_d"]),
        _node("Mul", ["x", "c_in"], ["scaled"]),  # (1, P, 4, h, w)
        _node("Shape", ["mix"], ["texts"]),
        _node("Expand", ["scaled", "texts"], ["seen"]),  # (texts, P, 4, h, w)
        _node("Shape", ["seen"], ["seen_shape"]),
        _node("Slice", ["seen_shape", "=from_channels", "=end"], ["sides"]),
        _node("Concat", ["=all", "sides"], ["sample_shape"], axis=0),
        _node("Reshape", ["seen", "sample_shape"], ["flat"]),  # (texts * P, 4, h, w)
        _node("Reshape", ["timestep", "=scalar"], ["time"]),
    ]
    time = "time"
    if kind in ROUNDED:
        nodes.append(_node("Round", ["time"], ["whole"]))
        time = "whole"
    nodes += [
        helper.make_node("Cast", [PREFIX + time], ["timestep"], PREFIX + "as_timestep", to=kind),
        helper.make_node(
            "Cast",
            [f"{PREFIX}flat"],
            ["sample"],
            f"{PREFIX}as_sample",
            to=sample.type.tensor_type.elem_type,
        ),
    ]
    tensors = [numpy_helper.from_array(each, PREFIX + name) for name, each in constants.items()]
    return nodes, tensors


def _after(output: onnx.ValueInfoProto) -> list[onnx.NodeProto]:
    """Guide, denoise, and apply the row."""
    return [
        helper.make_node("Cast", [output.name], [f"{PREFIX}made"], f"{PREFIX}as_f32", to=1),
        _node("Reshape", ["made", "seen_shape"], ["predictions"]),  # (texts, P, 4, h, w)
        _node("Mul", ["predictions", "mix"], ["pulled"]),
        _node("ReduceSum", ["pulled", "=first"], ["guided"], keepdims=1),  # (1, P, 4, h, w)
        _node("Mul", ["guided", "c_out"], ["new"]),
        _node("Mul", ["x", "c_skip"], ["kept"]),
        _node("Add", ["new", "kept"], ["denoised"]),
        _node("Cast", ["noise_at"], ["place"], to=TensorProto.INT64),
        _node("Squeeze", ["place", "=first"], ["piece_at"]),
        _node("Gather", ["noise", "piece_at"], ["piece"], axis=0),
        _node(
            "Concat",
            ["x", "earlier_x", "last_x", "denoised", "earlier_d", "last_d", "piece"],
            ["stack"],
            axis=0,
        ),  # (TERMS, P, 4, h, w)
        _node("Reshape", ["factors", "=terms"], ["weights"]),
        _node("Mul", ["stack", "weights"], ["weighed"]),
        _node("ReduceSum", ["weighed", "=first"], ["next_x"], keepdims=1),
        _node(
            "Concat", ["next_x", "x", "earlier_x", "denoised", "earlier_d"], ["next_state"], axis=0
        ),
        _node("Add", ["row", "=one"], ["next_row"]),
    ]


OUTSIDE = ("state", "row", "table", "noise", "mix", "next_state", "next_row", "denoised")


def _node(kind: str, inputs: Sequence[str], outputs: Sequence[str], **given: Any) -> onnx.NodeProto:
    """Make a node of ours; a name that begins with = is a constant's."""

    def named(name: str) -> str:
        bare = name.removeprefix("=")
        return bare if name in OUTSIDE else PREFIX + bare

    return helper.make_node(
        kind,
        [named(each) for each in inputs],
        [named(each) for each in outputs],
        name=f"{PREFIX}make_{outputs[0]}",
        **given,
    )


def _port(
    name: str, shape: Sequence[int | str], kind: int = TensorProto.FLOAT
) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, list(shape))
