"""Small upscaling networks as .onnx files, made in place: convolutions and a pixel shuffle."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["write_upscaler"]


def write_upscaler(
    path: Path,
    *,
    scale: int = 2,
    reach: int = 1,
    size: tuple[int | str, int | str] = ("height", "width"),
    dtype: int = TensorProto.FLOAT,
    external: str = "",
    gain: float = 1.0,
) -> Path:
    """Write x[batch, 3, H, W] -> y[batch, 3, s H, s W] in 0..1.

    Two convolutions: one looks at 3 x 3 pixels that lie `reach` apart, one at 3 x 3 neighbours, so
    a pixel depends on those at most reach + 1 away. external: a file for the weights. gain: factor
    of the result; inf makes it infinite.
    """
    draw = np.random.default_rng(scale + reach)
    numpy_dtype = helper.tensor_dtype_to_np_dtype(dtype)

    def weight(name: str, *shape: int) -> TensorProto:
        spread = 2.0 / np.sqrt(np.prod(shape[1:]))
        return numpy_helper.from_array(
            (draw.standard_normal(shape) * spread).astype(numpy_dtype), name
        )

    nodes = [
        helper.make_node(
            "Conv", ["x", "w1"], ["a"], dilations=[reach] * 2, pads=[reach] * 4, kernel_shape=[3, 3]
        ),
        helper.make_node("Tanh", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w2"], ["c"], pads=[1] * 4, kernel_shape=[3, 3]),
        helper.make_node("DepthToSpace", ["c"], ["d"], blocksize=scale),
        helper.make_node("Sigmoid", ["d"], ["e"]),
        helper.make_node("Mul", ["e", "gain"], ["y"]),
    ]
    weights = [
        weight("w1", 8, 3, 3, 3),
        weight("w2", 3 * scale**2, 8, 3, 3),
        numpy_helper.from_array(np.array(gain, numpy_dtype), "gain"),
    ]
    # Names as torch's exporters write them: a formula is no plain name.
    larger = [each * scale if isinstance(each, int) else f"{scale}*{each}" for each in size]
    x = helper.make_tensor_value_info("x", dtype, ["batch", 3, *size])
    y = helper.make_tensor_value_info("y", dtype, ["batch", 3, *larger])
    graph = helper.make_graph(nodes, "upscaler", [x], [y], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save_model(
        model,
        path,
        save_as_external_data=bool(external),
        location=external or None,
        size_threshold=0,
    )
    return path
