"""Small ONNX models, made in place, for the back ends' tests."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = [
    "DEPTH",
    "WEIGHT",
    "multiplied",
    "write_product",
    "write_timestep",
    "write_two",
    "write_unet",
]

DEPTH = 2048
# fp16 holds each weight exactly; their sum over DEPTH products needs fp32 arithmetic.
WEIGHT = (np.random.default_rng(5).integers(-1024, 1024, (DEPTH, 3)) / 1024).astype(np.float16)


def write_product(path: Path, *, external: bool = False) -> Path:
    """Write x f32[batch, DEPTH] @ W, W stored in fp16 and cast, as in our bundles."""
    nodes = [
        helper.make_node("Cast", ["weight"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["x", "wide"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", DEPTH])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])
    weight = numpy_helper.from_array(WEIGHT, "weight")
    _save(path, helper.make_graph(nodes, "product", [x], [y], [weight]), external=external)
    return path


def write_two(path: Path) -> Path:
    """Write x f32[batch, DEPTH] -> y = x @ W, z = the first number of each row, in that order."""
    nodes = [
        helper.make_node("Cast", ["weight"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Gather", ["x", "first"], ["z"], axis=1),
        helper.make_node("MatMul", ["x", "wide"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", DEPTH])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])
    z = helper.make_tensor_value_info("z", TensorProto.FLOAT, ["batch"])
    values = [
        numpy_helper.from_array(WEIGHT, "weight"),
        numpy_helper.from_array(np.array(0, np.int64), "first"),
    ]
    _save(path, helper.make_graph(nodes, "two", [x], [y, z], values), external=False)
    return path


def write_timestep(path: Path, *, dtype: int = TensorProto.INT64, rank: int = 1) -> Path:
    """Write sample f32[batch, 2] + timestep, the timestep of any dtype and rank 0 or 1."""
    nodes = [
        helper.make_node("Cast", ["timestep"], ["t"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["sample", "t"], ["out_sample"]),
    ]
    ports = [
        helper.make_tensor_value_info("sample", TensorProto.FLOAT, ["batch", 2]),
        helper.make_tensor_value_info("timestep", dtype, ["steps"][:rank]),
    ]
    out = helper.make_tensor_value_info("out_sample", TensorProto.FLOAT, ["batch", 2])
    _save(path, helper.make_graph(nodes, "timestep", ports, [out]), external=False)
    return path


def multiplied(x: np.ndarray) -> np.ndarray:
    """Give x @ W in float64."""
    return x.astype(np.float64) @ WEIGHT.astype(np.float64)


def _save(path: Path, graph: onnx.GraphProto, *, external: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save_model(
        model,
        path,
        save_as_external_data=external,
        location="model.onnx_data",
        size_threshold=0,
    )


def write_unet(path: Path, *, timestep: int = TensorProto.FLOAT, convolves: bool = True) -> Path:
    """Write a unet of ten nodes: it depends on each number of all that a unet is given.

    convolves: else it has none of the operators that cuDNN computes.
    """
    looks = helper.make_node("Conv", ["sample", "kernel"], ["seen"], pads=[1, 1, 1, 1])
    reads = helper.make_node(
        "ReduceMean", ["encoder_hidden_states", "middle"], ["mean"], keepdims=0
    )
    if not convolves:
        looks = helper.make_node("Sin", ["sample"], ["seen"])
        reads = helper.make_node("Gather", ["encoder_hidden_states", "place"], ["mean"], axis=1)
    nodes = [
        helper.make_node("Cast", ["timestep"], ["t"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["t", "thousandth"], ["share"]),
        looks,
        helper.make_node("Tanh", ["seen"], ["bent"]),
        reads,
        helper.make_node("Unsqueeze", ["mean", "sides"], ["meaning"]),
        helper.make_node("Mul", ["bent", "share"], ["a"]),
        helper.make_node("Add", ["a", "meaning"], ["b"]),
        helper.make_node("Mul", ["sample", "half"], ["c"]),
        helper.make_node("Add", ["b", "c"], ["out_sample"]),
    ]
    kernel = np.random.default_rng(8).standard_normal((4, 4, 3, 3)).astype(np.float32) / 6
    values = {
        "thousandth": np.float32(0.001),
        "half": np.float32(0.5),
        "kernel": kernel,
        "middle": np.array([1], np.int64),
        "place": np.array(1, np.int64),
        "sides": np.array([2, 3], np.int64),
    }
    sizes = ["batch", 4, "height", "width"]
    ports = [
        helper.make_tensor_value_info("sample", TensorProto.FLOAT, sizes),
        helper.make_tensor_value_info("timestep", timestep, []),
        helper.make_tensor_value_info(
            "encoder_hidden_states", TensorProto.FLOAT, ["batch", "tokens", 4]
        ),
    ]
    out = helper.make_tensor_value_info("out_sample", TensorProto.FLOAT, sizes)
    tensors = [numpy_helper.from_array(np.asarray(each), name) for name, each in values.items()]
    _save(path, helper.make_graph(nodes, "unet", ports, [out], tensors), external=False)
    return path
