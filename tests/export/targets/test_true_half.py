"""Graphs in fp16 with their fp32 islands, on a processor that really computes in fp16.

Elsewhere ONNX Runtime stands in, made to round behind each node (test_half, test_activations).
"""

import math
from pathlib import Path

import numpy as np
import pytest

from engine import Bundle
from engine.backends.openvino import OpenVinoBackend, runtime
from export.targets.activations import wide_nodes
from export.targets.half import open_model, to_half
from export.targets.narrowing import observed, save_graph
from tests.export.targets.graphs import source_of, write_graph

POCKET = Path(__file__).parents[3] / "safelight/models/pocket"
DRAW = np.random.default_rng(3)
WEIGHT = (DRAW.standard_normal((16, 16)) / 4).astype(np.float32)
X = (2 * DRAW.standard_normal((4, 16))).astype(np.float32)
BIG = np.float32(40_000)
# Products, since OpenVINO joins element-wise nodes into one that keeps its numbers in registers.
GROWING = """
<ir_version: 10, opset_import: ["" : 18]>
growing (float[n, 16] x) => (float[n, 16] y) {
    [first] a = MatMul (x, weight)
    [grow] b = MatMul (a, grown)
    [turn] c = MatMul (b, weight)
    [shrink] d = MatMul (c, shrunk)
    [last] y = MatMul (d, weight)
}
"""

pytestmark = pytest.mark.skipif(
    "FP16" not in OpenVinoBackend("fp32", None).capabilities,
    reason="the processor has no fp16 arithmetic",
)


def compiled(file, inputs):
    """Compile in the types that stand in the graph: fp16, and fp32 in its islands."""
    core = runtime().Core()
    graph = core.read_model(file)
    graph.reshape({name: list(value.shape) for name, value in inputs.items()})
    return core.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "dynamic"})


def precisions(model):
    infos = [node.get_rt_info() for node in model.get_runtime_model().get_ops()]
    return {str(info["runtimePrecision"].value) for info in infos if "runtimePrecision" in info}


def halved(source, folder, wide):
    model = open_model(source.file)
    to_half(model, wide)
    return save_graph(model, folder)


def test_islands_keep_what_true_fp16_loses(tmp_path):
    weights = {"weight": WEIGHT, "grown": WEIGHT * BIG, "shrunk": np.eye(16, dtype="f4") / BIG}
    source = source_of(write_graph(tmp_path / "net", GROWING, **weights), x=X)
    wide = wide_nodes(open_model(source.file).graph, source.seen.ranges)
    assert wide == dict.fromkeys(("grow", "turn", "shrink"), "range")
    exact = source.seen.outputs[0]["y"]
    plain = compiled(halved(source, tmp_path / "plain", {}), {"x": X})
    assert not np.isfinite(plain({"x": X})[0]).all()
    islands = compiled(halved(source, tmp_path / "islands", wide), {"x": X})
    assert {"f16", "f32"} <= precisions(islands)
    error = np.abs(islands({"x": X})[0] - exact).max()
    assert 1e-5 < error < 0.02  # values of about 7: a few roundings of 11 bits, and not none


def test_pocket_s_graphs_compute_in_true_fp16_what_they_do_in_fp32(tmp_path):
    bundle = Bundle.open(POCKET, hash_cache=None)
    least = {}
    for source in observed(bundle, lambda *_: None):
        wide = wide_nodes(open_model(source.file).graph, source.seen.ranges)
        file = halved(source, tmp_path / source.name, wide)
        run = compiled(file, source.runs[0])
        assert "f16" in precisions(run)
        for inputs, wanted in zip(source.runs, source.seen.outputs, strict=True):
            name, exact = next(iter(wanted.items()))
            error = float(np.sqrt(np.mean((run(inputs)[name].astype(np.float64) - exact) ** 2)))
            found = 20 * math.log10(float(np.ptp(exact)) / error)
            least[source.name] = min(found, least.get(source.name, 200.0))
    assert set(least) == set(bundle.manifest.components)
    assert min(least.values()) > 55, least
    assert max(least.values()) < 110, least  # fp32 would be at 130
