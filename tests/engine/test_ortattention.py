"""Attention as one operator of ONNX Runtime: what is taken, what it gives, what it saves."""

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import safelight
from engine.backends.onnxruntime import OnnxRuntimeBackend, runtime
from engine.backends.ortattention import with_attention
from engine.errors import BundleError

POCKET = Path(safelight.__file__).parent / "models" / "pocket"
HEADS, WIDTH = 2, 8
SIZES = {"x": (2, 40, HEADS * WIDTH), "y": (2, 7, HEADS * WIDTH)}
LARGE = {"sample": (2, 4, 32, 32)}  # what makes it worth while


class Graph:
    """Nodes, weights and types of values as an exporter writes them."""

    def __init__(self):
        self.nodes, self.weights, self.types = [], [], []

    def node(self, kind, *inputs, shape=None, **attributes):
        name = f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        if shape is not None:
            self.types.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        return name

    def weight(self, values):
        name = f"weight_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def whole(self, *numbers):
        return self.weight(np.array(numbers, np.int64))

    def linear(self, x, shape):
        size = HEADS * WIDTH
        matrix = np.random.default_rng(len(self.weights)).standard_normal((size, size)) / 2
        return self.node("MatMul", x, self.weight(matrix.astype(np.float32)), shape=shape)

    def split(self, x, heads, order=(0, 2, 1, 3), *, joined=True):
        sizes = (0, -1, heads, HEADS * WIDTH // heads)
        shape = self.whole(*sizes)
        if joined:
            shape = self.node("Concat", *(self.whole(each) for each in sizes), axis=0)
        return self.node("Transpose", self.node("Reshape", x, shape), perm=order)

    def key(self, k, form):
        if form == "once":
            return self.split(k, HEADS, (0, 2, 3, 1))
        apart = self.split(k, HEADS)
        if form == "twice":
            return self.node("Transpose", apart, perm=(0, 1, 3, 2))
        flat = self.node("Reshape", apart, self.whole(-1, SIZES["y"][1], WIDTH))
        turned = self.node("Transpose", flat, perm=(0, 2, 1))
        return self.node("Reshape", turned, self.whole(-1, HEADS, WIDTH, SIZES["y"][1]))


def write(path, form="flat", **odd):
    """Write an attention of x over y. odd: what is not as usual."""
    graph = Graph()
    typed = (lambda shape: None) if odd.get("untyped") else (lambda shape: shape)
    q = graph.split(graph.linear("x", typed(SIZES["x"])), HEADS)
    k = graph.key(graph.linear("y", typed(SIZES["y"])), form)
    heads = odd.get("heads", HEADS)
    v = graph.split(graph.linear("y", typed(SIZES["y"])), heads, joined=False)
    root = graph.weight(np.float32(WIDTH**-0.25))
    scores = graph.node("MatMul", graph.node("Mul", q, root), graph.node("Mul", root, k))
    if odd.get("mask"):
        scores = graph.node("Add", scores, graph.weight(np.float32(1)))
    weights = graph.node("Softmax", scores, axis=odd.get("axis", -1))
    back = graph.node("Transpose", graph.node("MatMul", weights, v), perm=(0, 2, 1, 3))
    joined = odd.get("joined", (0, -1, HEADS * WIDTH))  # otherwise not heads side by side
    shape = (2, 80, WIDTH) if odd.get("joined") else SIZES["x"]
    end = graph.node("Reshape", back, graph.whole(*joined), shape=shape)
    same = graph.node("Reshape", end, graph.whole(0, -1, HEADS * WIDTH))
    result = graph.node("Add", same, "x")
    outputs = [result, *([weights] if odd.get("shown") else [])]
    made = helper.make_graph(
        graph.nodes,
        "attention",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, SIZES[n]) for n in SIZES],
        [
            helper.make_tensor_value_info(n, TensorProto.FLOAT, [None] * rank)
            for n, rank in zip(outputs, (3, 4), strict=False)
        ],
        graph.weights,
        value_info=graph.types,
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def operators(data):
    return Counter(node.op_type for node in onnx.ModelProto.FromString(data).graph.node)


def computed(source):
    options = runtime().SessionOptions()
    session = runtime().InferenceSession(source, options, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(1)
    inputs = {n: rng.standard_normal(size).astype(np.float32) for n, size in SIZES.items()}
    return session.run(None, inputs)[0]


@pytest.mark.parametrize("form", ["flat", "once", "twice"])
def test_each_form_of_the_key_becomes_one_operator_with_the_same_result(tmp_path, form):
    path = write(tmp_path / "model.onnx", form)
    written = with_attention(path, LARGE)
    onnx.checker.check_model(onnx.ModelProto.FromString(written))
    left = {"MatMul": 3, "MultiHeadAttention": 1, "Reshape": 1, "Add": 1}
    assert operators(written) == left
    assert np.allclose(computed(written), computed(str(path)), atol=1e-6)


def test_a_domain_that_the_file_names_is_not_named_twice(tmp_path):
    path = write(tmp_path / "model.onnx")
    model = onnx.load(path)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    onnx.save(model, path)
    named = onnx.ModelProto.FromString(with_attention(path, LARGE)).opset_import
    assert [each.domain for each in named] == ["", "com.microsoft"]


@pytest.mark.parametrize(
    "odd",
    [
        {"mask": True},
        {"axis": 2},
        {"heads": 4},
        {"untyped": True},
        {"shown": True},
        {"joined": (-1, 2 * 40, WIDTH)},
    ],
    ids=lambda odd: next(iter(odd)),
)
def test_what_is_something_else_stays_as_it_is(tmp_path, odd):
    assert with_attention(write(tmp_path / "model.onnx", **odd), LARGE) is None


def test_small_inputs_large_files_and_unreadable_ones_are_left(tmp_path, monkeypatch):
    path = write(tmp_path / "model.onnx")
    assert with_attention(path, {"sample": (2, 4, 16, 16)}) is None
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(path.read_bytes()[:-300])
    assert with_attention(damaged, LARGE) is None
    with pytest.raises(BundleError, match=re.escape(damaged.name)):
        OnnxRuntimeBackend().open(damaged, LARGE)
    monkeypatch.setattr("engine.backends.ortattention.LARGEST", 100)
    assert with_attention(path, LARGE) is None


def test_pockets_network_computes_the_same_with_it():
    model = POCKET / "unet" / "model.onnx"
    rng = np.random.default_rng(2)
    given = {
        "sample": rng.standard_normal((2, 4, 32, 32)).astype(np.float32),
        "timestep": np.array(500.0, np.float32),
        "encoder_hidden_states": rng.standard_normal((2, 77, 128)).astype(np.float32),
    }
    written = with_attention(model, LARGE)
    assert operators(written)["MultiHeadAttention"] == 8
    assert operators(written)["Softmax"] == 0
    shapes = {name: each.shape for name, each in given.items()}
    found = OnnxRuntimeBackend().load(model, shapes).run(given)
    options = runtime().SessionOptions()
    plain = runtime().InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    types = {port.name: port.type for port in plain.get_inputs()}
    assert types["sample"] == "tensor(float)"
    given["timestep"] = given["timestep"].reshape(plain.get_inputs()[1].shape)
    assert np.abs(found - plain.run(None, given)[0]).max() < 1e-5


PEAK = """
import resource, sys
import numpy as np
from pathlib import Path
from engine.backends.onnxruntime import OnnxRuntimeBackend

sizes = {"x": (1, 4096, 64), "y": (1, 4096, 64), "sample": (1, 4, 64, 64)}
session = OnnxRuntimeBackend().open(Path(sys.argv[1]), sizes)
given = {name: np.ones(sizes[name], np.float32) for name in ("x", "y")}
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
session.run(None, given)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads a peak in Linux's unit, kB")
def test_no_matrix_of_all_scores_is_kept(tmp_path, monkeypatch):
    monkeypatch.setitem(SIZES, "x", (1, 4096, 64))
    monkeypatch.setitem(SIZES, "y", (1, 4096, 64))
    monkeypatch.setattr(f"{__name__}.WIDTH", 32)
    path = write(tmp_path / "model.onnx")
    said = subprocess.check_output([sys.executable, "-c", PEAK, path], text=True)
    scores = 4 * HEADS * 4096 * 4096 // 1024
    assert int(said) < scores / 2
