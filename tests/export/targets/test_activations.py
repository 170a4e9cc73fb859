"""Where fp16 would overflow is found by looking, on a network whose numbers do grow."""

import math

import numpy as np
import pytest
from onnx import TensorProto, numpy_helper

from export.errors import GraphError, ParityError
from export.targets.activations import observe, open_graph, wide_nodes
from export.targets.half import open_model, to_half
from export.targets.narrowing import fidelity, read_graph, save_graph
from tests.export.targets.graphs import OUTLIER, source_of, write_graph

BIG = 6000.0
DRAW = np.random.default_rng(3)
WEIGHT = (DRAW.standard_normal((16, 16)) / 4).astype(np.float32)
X = (2 * DRAW.standard_normal((4, 16))).astype(np.float32)


def outlier(folder, big=BIG):
    return write_graph(folder / "net", OUTLIER, weight=WEIGHT, big=np.float32(big))


def halved(source, folder, wide):
    model = open_model(source.file)
    to_half(model, wide)
    graph = read_graph(save_graph(model, folder))
    return fidelity(source, graph, folder)


def test_every_tensor_is_measured_over_all_runs(tmp_path):
    file = outlier(tmp_path)
    seen = observe(file, [{"x": X}, {"x": -3 * X}])
    a = 3 * np.abs(X @ WEIGHT).max()  # of the second run
    expected = {"x": 3 * np.abs(X).max(), "a": a, "b": BIG * a, "c": 2 * BIG * a, "d": 2 * a}
    for name, value in expected.items():
        assert seen.ranges[name] == pytest.approx(value, rel=1e-5)  # another order of additions
    assert [set(each) for each in seen.outputs] == [{"y"}, {"y"}]
    assert np.allclose(seen.outputs[0]["y"], 2 * X @ WEIGHT @ WEIGHT, rtol=1e-4, atol=1e-4)


def test_nodes_beside_a_number_beyond_half_of_fp16_stay_in_fp32(tmp_path):
    source = source_of(outlier(tmp_path), x=X)
    assert source.seen.ranges["b"] > 50_000 / 2
    wide = wide_nodes(open_model(source.file).graph, source.seen.ranges)
    assert wide == {"grow": "range", "add": "range", "shrink": "range"}


def test_islands_keep_what_plain_fp16_loses(tmp_path):
    source = source_of(outlier(tmp_path), x=X)
    assert source.seen.ranges["c"] > 65504  # else nothing is proven
    wide = wide_nodes(open_model(source.file).graph, source.seen.ranges)
    assert halved(source, tmp_path / "islands", wide) > 55  # dB; a few roundings of 11 bits
    with pytest.raises(ParityError, match="NaN or Inf"):
        halved(source, tmp_path / "plain", {})


def test_what_stays_small_has_no_islands(tmp_path):
    source = source_of(outlier(tmp_path, big=10.0), x=X)
    assert wide_nodes(open_model(source.file).graph, source.seen.ranges) == {}


def test_infinity_in_fp32_counts_as_beyond_everything(tmp_path):
    source = source_of(outlier(tmp_path, big=3e38), x=X)
    assert math.isinf(source.seen.ranges["c"])
    assert "add" in wide_nodes(open_model(source.file).graph, source.seen.ranges)


def test_a_huge_constant_makes_an_island(tmp_path):
    text = """
    <ir_version: 10, opset_import: ["" : 18]>
    masked (float[4] x) => (float[4] y) {
        [hide] m = Min (x, lowest)
        [next] y = Add (x, x)
    }
    """
    file = write_graph(tmp_path / "net", text, lowest=np.float32(-3.4e38))
    assert wide_nodes(open_model(file).graph, {}) == {"hide": "range"}


def test_the_angles_of_the_timestep_stay_in_fp32(tmp_path):
    # In fp16 the step at 999 is half a radian: its sine would be noise.
    text = """
    <ir_version: 10, opset_import: ["" : 18]>
    embedding (float t, float[1, 8] z) => (float[1, 8] y) {
        [angle] a = Mul (t, frequencies)
        [sine] s = Sin (a)
        [elsewhere] y = Add (s, z)
    }
    """
    frequencies = np.linspace(0.6, 1, 8, dtype=np.float32)[None]
    file = write_graph(tmp_path / "net", text, frequencies=frequencies)
    z = np.zeros((1, 8), np.float32)
    source = source_of(file, t=np.float32(998.37), z=z)
    wide = wide_nodes(open_model(file).graph, source.seen.ranges)
    assert wide == {"angle": "angle", "sine": "angle"}
    assert halved(source, tmp_path / "islands", wide) > 55
    assert halved(source, tmp_path / "plain", {}) < 30


def test_a_graph_that_cannot_run_is_one_sentence(tmp_path):
    file = outlier(tmp_path)
    with pytest.raises(GraphError, match="cannot run the graph"):
        open_graph(read_graph(file), file.parent)({"x": np.zeros((4, 15), np.float32)})
    broken = read_graph(file)
    broken.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(GraphError, match="cannot open the graph"):
        open_graph(broken, file.parent)


def test_a_whole_number_timestep_of_one_dimension_is_fed(tmp_path):
    text = """
    <ir_version: 10, opset_import: ["" : 18]>
    whole (int64[one] t) => (float[one] y) { y = Cast <to = 1> (t) }
    """
    seen = observe(write_graph(tmp_path / "net", text), [{"t": np.float32(7.0)}])
    assert seen.outputs[0]["y"].tolist() == [7.0]
    assert numpy_helper.from_array(seen.outputs[0]["y"]).data_type == TensorProto.FLOAT
