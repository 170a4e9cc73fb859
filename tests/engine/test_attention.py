"""Attention by the kernel inside of OpenVINO's graph: what is taken, and what it gives."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import safelight
from engine.backends.attention import attend_by_kernel, attention_operation
from engine.backends.openvino import OpenVinoBackend, runtime
from engine.bundle import Bundle
from engine.kernels import library
from safelight.shelf import Shelf

OV = runtime()
OP = OV.opset13
POCKET = Path(safelight.__file__).parent / "models" / "pocket"
FOUND, WHY = library.find()
BF16 = "BF16" in OV.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
needs_bf16 = pytest.mark.skipif(
    FOUND is None or not FOUND.has_bf16 or not BF16, reason="no kernel in bf16, or no bf16"
)
BOTH = pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=needs_bf16)])
pytestmark = [
    pytest.mark.skipif(FOUND is None, reason=f"no kernel: {WHY}"),
    pytest.mark.usefixtures("cores"),
]


def whole(*numbers):
    return OP.constant(np.array(numbers))


def heads(x, batch, length, count, width):
    apart = OP.reshape(x, whole(batch, length, count, width), False)
    return OP.transpose(apart, whole(0, 2, 1, 3))


def linear(x, seed):
    size = x.get_output_partial_shape(0).to_shape()[-1]
    weight = np.random.default_rng(seed).standard_normal((size, size)) / size**0.5
    return OP.matmul(x, OP.constant(weight.astype(np.float32)), False, True)


def attention(batch, queries, keys, count, width, *, form="dynamo", order=(0, 2, 1, 3)):
    """Give the graph that an exporter writes; `dynamo` is ours, `plain` turns the key at once."""
    x = OP.parameter([batch, queries, count * width], np.float32, name="x")
    y = OP.parameter([batch, keys, count * width], np.float32, name="y")
    root = OP.constant(np.float32(width**-0.25))
    q, k, v = (
        heads(linear(each, place), batch, length, count, width)
        for place, (each, length) in enumerate(((x, queries), (y, keys), (y, keys)))
    )
    if form == "dynamo":
        flat = OP.reshape(k, whole(batch * count, keys, width), False)
        turned = OP.reshape(
            OP.transpose(flat, whole(0, 2, 1)), whole(batch, count, width, keys), False
        )
        scores = OP.matmul(OP.multiply(q, root), OP.multiply(turned, root), False, False)
    else:
        turned = OP.transpose(k, whole(0, 1, 3, 2))
        scores = OP.multiply(
            OP.matmul(q, turned, False, False), OP.constant(np.float32(width**-0.5))
        )
    result = OP.matmul(OP.softmax(scores, 3), v, False, False)
    together = OP.transpose(result, whole(*order))
    return OV.Model([OP.reshape(together, whole(batch, queries, -1), False)], [x, y])


def replaced(model, precision):
    bf16 = precision == "bf16"
    return attend_by_kernel(OV, model, attention_operation(OV, FOUND, bf16=bf16), bf16=bf16)


def computed(model, precision, given):
    hint = {"INFERENCE_PRECISION_HINT": precision.replace("fp", "f")}
    compiled = OV.Core().compile_model(model, "CPU", hint)
    return compiled(given)[0].copy()


def error(got, right):
    return np.linalg.norm(got - right) / np.linalg.norm(right)


@BOTH
@pytest.mark.parametrize("form", ["dynamo", "plain"])
@pytest.mark.parametrize(
    ("batch", "queries", "keys", "count", "width"),
    [(2, 300, 300, 8, 40), (1, 1000, 77, 2, 64), (2, 257, 333, 1, 80)],
)
def test_it_is_as_near_to_fp32_as_openvino_itself(
    monkeypatch, form, batch, queries, keys, count, width, precision
):
    monkeypatch.setattr("engine.backends.attention.LEAST_F32", 1)  # sizes that a test has time for
    model = attention(batch, queries, keys, count, width, form=form)
    draw = np.random.default_rng(0)
    given = [draw.standard_normal(port.get_shape()).astype(np.float32) for port in model.inputs]
    right, stock = computed(model, "fp32", given), computed(model, precision, given)
    assert replaced(model, precision) == 1
    assert not any(node.get_type_name() == "Softmax" for node in model.get_ordered_ops())
    ours = computed(model, precision, given)
    # In f32 both are right to the last digits, and differ in which.
    assert error(ours, right) < (2e-6 if precision == "fp32" else 1.1 * error(stock, right))


@BOTH
def test_what_does_not_match_is_left_alone(precision):
    # heads stay in front
    assert replaced(attention(1, 900, 900, 8, 40, order=(0, 1, 2, 3)), precision) == 0
    assert replaced(attention(1, 900, 900, 8, 24), precision) == 0  # a head too narrow
    assert replaced(attention(1, 300, 300, 1, 512), precision) == 0  # the decoder's
    assert replaced(attention(1, 64, 64, 2, 40), precision) == 0  # too little to win
    if precision == "fp32":
        assert replaced(attention(1, 900, 900, 8, 44), precision) == 0  # no whole vectors
        assert replaced(attention(2, 256, 256, 4, 32), precision) == 0  # pocket's: too little


@needs_bf16
def test_a_compiled_model_with_it_comes_back_from_the_cache(tmp_path):
    """Keys differ with and without the kernel, and what comes back computes the same."""
    bundle: Bundle = Shelf(tmp_path, tmp_path).open("pocket")
    shapes = {
        "sample": (2, 4, 16, 16),
        "timestep": (),
        "encoder_hidden_states": (2, 32, 128),
    }
    draw = np.random.default_rng(1)
    given = {name: draw.standard_normal(size).astype(np.float32) for name, size in shapes.items()}
    results = []
    for _ in range(2):
        backend = OpenVinoBackend("bf16", tmp_path / "cache")
        assert backend.kernel.startswith(FOUND.name)
        session = backend.load(bundle.model("unet"), shapes, identity="pocket")
        results.append(session.run(given).copy())
        assert len(list((tmp_path / "cache" / "openvino").glob("*.blob"))) == 1
    assert (results[0] == results[1]).all()


@pytest.mark.skipif(FOUND is None or FOUND.has_avx512, reason="with AVX-512 it is OpenVINO's")
def test_in_fp32_it_comes_back_from_the_cache_too(tmp_path):
    OV.save_model(attention(1, 700, 700, 4, 40), tmp_path / "model.xml", compress_to_fp16=False)
    draw = np.random.default_rng(1)
    given = {name: draw.standard_normal((1, 700, 160)).astype(np.float32) for name in "xy"}
    shapes = {name: each.shape for name, each in given.items()}
    results = []
    for _ in range(2):
        backend = OpenVinoBackend("fp32", tmp_path / "cache")
        session = backend.load(tmp_path / "model.xml", shapes, identity="attention")
        results.append(session.run(given).copy())
        assert len(list((tmp_path / "cache" / "openvino").glob("*.blob"))) == 1
    assert (results[0] == results[1]).all()


@BOTH
def test_fp32_stays_fp32(tmp_path, precision):
    assert OpenVinoBackend(precision, tmp_path).exact().kernel.startswith("f32")


@BOTH
def test_without_a_library_openvino_computes_it_all(tmp_path, monkeypatch, precision):
    monkeypatch.setattr(library, "FILE", tmp_path / "missing.so")
    assert OpenVinoBackend(precision, None).kernel == "none"


LOADS = """
import sys, tempfile
from pathlib import Path
from engine.backends import openvino

openvino.LARGE = int(sys.argv[1])
model = Path(sys.argv[2]) / "unet" / "model.onnx"
shapes = {"sample": (2, 4, 64, 64), "timestep": (), "encoder_hidden_states": (2, 77, 128)}
backend = openvino.OpenVinoBackend("bf16", Path(tempfile.mkdtemp(dir=sys.argv[3])))

def taken():
    status = Path("/proc/self/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0])

for number in range(5):
    session = backend.load(model, shapes, identity=str(number))
    assert session.operations
    del session
    if number == 1:
        before = taken()
print(taken() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads what Linux says of a process")
@pytest.mark.parametrize("large", ["1", "999999999"], ids=["read again", "as compiled"])
@needs_bf16
def test_a_network_with_it_that_is_let_go_gives_its_weights_back(tmp_path, large):
    """pocket's unet has 22 MB of weights in bf16: three more loads would keep 66 of them."""
    given = [sys.executable, "-c", LOADS, large, str(POCKET), str(tmp_path)]
    said = subprocess.run(given, capture_output=True, text=True, check=True)
    assert int(said.stdout) < 15_000  # kB
