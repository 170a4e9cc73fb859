"""What a node makes in fp16 really is stored in fp16, where ONNX Runtime would compute in fp32."""

import numpy as np

from export.targets.activations import open_graph
from export.targets.half import open_model, to_half
from export.targets.narrowing import read_graph, save_graph
from export.targets.rounding import rounding
from tests.export.targets.graphs import write_graph

TEXT = """
<ir_version: 10, opset_import: ["" : 18]>
net (float[n] x) => (float[n] y) {
    a = Add (x, one)
    y = Sub (a, one)
}
"""


def test_sums_are_rounded_and_overflow(tmp_path):
    model = open_model(write_graph(tmp_path / "net", TEXT, one=np.float32(1)))
    to_half(model, ())
    graph = read_graph(save_graph(model, tmp_path))
    x = np.array([2048, 3, 65504], np.float32)
    # 2049 lies between two numbers of fp16 and goes to the even one.
    assert open_graph(rounding(graph), tmp_path)({"x": x})["y"].tolist() == [2047, 3, 65504]
    unrounded = open_graph(graph, tmp_path)({"x": x})["y"]
    assert unrounded[0] == 2048  # which is why rounding() is needed
    text = TEXT.replace("Add (x, one)", "Mul (x, two)")
    two = {"one": np.float32(1), "two": np.float32(2)}
    model = open_model(write_graph(tmp_path / "other", text, **two))
    to_half(model, ())
    graph = read_graph(save_graph(model, tmp_path))
    assert np.isinf(open_graph(rounding(graph), tmp_path)({"x": x})["y"]).tolist() == [0, 0, 1]
