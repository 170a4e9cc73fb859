"""Small ONNX graphs of known behaviour, made in place, and how they are observed."""

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper, parser

from export.targets.activations import observe
from export.targets.narrowing import Source

__all__ = ["GATED", "OUTLIER", "source_of", "write_graph"]

# What random weights never do: one place reaches 50,000 and more, and comes back.
OUTLIER = """
<ir_version: 10, opset_import: ["" : 18]>
outlier (float[n, 16] x) => (float[n, 16] y) {
    [first] a = MatMul (x, weight)
    [grow] b = Mul (a, big)
    [add] c = Add (b, b)
    [shrink] d = Div (c, big)
    [last] y = MatMul (d, weight)
}
"""
# The GEGLU of SD 1.5's first level as torch traces it, its width the least that has a kernel.
GATED = """
<ir_version: 10, opset_import: ["" : 18]>
gated (float[n, s, 16] x) => (float[n, s, 1280] y) {
    m = MatMul (x, weight)
    [sum] p = Add (m, bias)
    [cut] left, right = Split <axis = 2, num_outputs = 2> (p)
    [divide] q = Div (right, root)
    [erf] e = Erf (q)
    [plus] f = Add (e, one)
    [half] g = Mul (point_five, f)
    [gelu] h = Mul (right, g)
    [times] y = Mul (left, h)
}
"""


def write_graph(folder: Path, text: str, **weights: np.ndarray) -> Path:
    """Write a graph given in ONNX's text form, with these weights, as a component's model."""
    model = parser.parse_model(text)
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()
    )
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "model.onnx"
    onnx.save(onnx.shape_inference.infer_shapes(model), file)
    return file


def source_of(file: Path, **inputs: np.ndarray) -> Source:
    """Observe a graph on one set of inputs."""
    runs = [inputs]
    return Source(name=file.parent.name, file=file, runs=runs, seen=observe(file, runs))
