"""A graph made narrow keeps its border and its stored weights, and agrees with ORT's own tool."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from onnxruntime.transformers.float16 import convert_float_to_float16

from engine.onnxheader import read_onnx_header
from export.errors import GraphError
from export.targets.activations import open_graph
from export.targets.half import open_model, to_half
from export.targets.narrowing import check_graph, read_graph, save_graph
from export.targets.rounding import rounding
from tests.export.targets.graphs import write_graph

DRAW = np.random.default_rng(8)
STORED = DRAW.standard_normal((16, 32)).astype(np.float16)
WIDE = DRAW.standard_normal((32, 16)).astype(np.float32)
X = DRAW.standard_normal((3, 16)).astype(np.float32)
TEXT = """
<ir_version: 10, opset_import: ["" : 18]>
net (float[n, 16] x, int64[n] ids) => (float[n, 16] y, float[n, 16] z) {
    [widen] w = Cast <to = 1> (stored)
    [one] a = MatMul (x, w)
    [two] b = Sigmoid (a)
    [three] y = MatMul (b, wide)
    [four] c = Gather (wide, ids)
    [five] z = Add (c, y)
}
"""
INPUTS = {"x": X, "ids": np.array([3, 0, 31])}


def net(folder):
    return write_graph(folder / "net", TEXT, stored=STORED, wide=WIDE)


def halved(file, folder, wide=()):
    model = open_model(file)
    to_half(model, wide)
    return read_graph(save_graph(model, folder))


def test_the_border_stays_as_it_was(tmp_path):
    file = net(tmp_path)
    graph = halved(file, tmp_path / "half")
    check_graph(graph)
    before, after = read_onnx_header(file), read_onnx_header(tmp_path / "half/model.onnx")
    assert (before.inputs, before.outputs) == (after.inputs, after.outputs)


def test_stored_weights_are_used_as_they_are_and_others_rounded(tmp_path):
    halved(net(tmp_path), tmp_path / "half")
    loaded = onnx.load(tmp_path / "half/model.onnx")
    weights = {each.name: numpy_helper.to_array(each) for each in loaded.graph.initializer}
    assert {each.dtype for each in weights.values()} == {np.dtype(np.float16)}
    assert weights["stored"].tobytes() == STORED.tobytes()
    assert sorted(each.tobytes() for each in weights.values()) == sorted(
        [STORED.tobytes(), WIDE.astype(np.float16).tobytes()]
    )
    assert (tmp_path / "half/model.onnx_data").stat().st_size < 3 * STORED.nbytes


def test_it_computes_what_onnx_runtimes_own_converter_makes(tmp_path):
    file = net(tmp_path)
    ours = open_graph(rounding(halved(file, tmp_path / "half")), tmp_path / "half")(INPUTS)
    converted = convert_float_to_float16(onnx.load(file), keep_io_types=True)
    theirs = open_graph(rounding(converted), tmp_path)(INPUTS)
    exact = open_graph(onnx.load(file), file.parent)(INPUTS)
    for name in ("y", "z"):
        assert np.array_equal(ours[name], theirs[name])
        assert not np.array_equal(ours[name], exact[name])


def test_an_island_computes_in_fp32_between_casts(tmp_path):
    graph = halved(net(tmp_path), tmp_path / "half", wide={"two"})
    check_graph(graph)
    kinds = {each.name: each.type.tensor_type.elem_type for each in graph.graph.value_info}
    (island,) = (node for node in graph.graph.node if node.op_type == "Sigmoid")
    assert kinds[island.input[0]] == kinds[island.output[0]] == TensorProto.FLOAT
    (product,) = (node for node in graph.graph.node if node.name == "three")
    assert kinds[product.input[0]] == TensorProto.FLOAT16


def test_scales_of_a_resize_stay_in_fp32(tmp_path):
    text = """
    <ir_version: 10, opset_import: ["" : 18]>
    net (float[1, 1, h, w] x) => (float[1, 1, H, W] y) { y = Resize <mode = "nearest"> (x, , s) }
    """
    file = write_graph(tmp_path / "net", text, s=np.array([1, 1, 2, 2], np.float32))
    graph = halved(file, tmp_path / "half")
    check_graph(graph)
    found = open_graph(graph, tmp_path / "half")({"x": np.ones((1, 1, 2, 3), np.float32)})
    assert found["y"].shape == (1, 1, 4, 6)


def test_control_flow_is_refused(tmp_path):
    text = """
    <ir_version: 10, opset_import: ["" : 18]>
    net (bool b, float[1] x) => (float[1] y) {
        y = If (b) <
            then_branch = yes () => (float[1] p) { p = Add (x, x) },
            else_branch = no () => (float[1] q) { q = Mul (x, x) }
        >
    }
    """
    with pytest.raises(GraphError, match="has a If"):
        open_model(write_graph(tmp_path / "net", text))


def test_a_file_that_is_no_graph_is_one_sentence(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"\xff\xff\xff")
    with pytest.raises(GraphError, match=r"model\.onnx cannot be read"):
        open_model(tmp_path / "model.onnx")
