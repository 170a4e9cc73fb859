"""The torch back end: a bundle's graphs as torch's own functions, against ONNX Runtime."""

import math
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import safelight
from engine import Bundle, BundleError, DeviceError, Picture, Pipeline, choose
from engine.backends.onnxruntime import OnnxRuntimeBackend
from engine.backends.torch import TorchBackend
from engine.backends.torchgraph import build_module
from engine.onnxgraph import read_onnx_graph
from tests.engine.tiny_graph import write_product, write_unet

POCKET = Path(safelight.__file__).parent / "models" / "pocket"
SHAPES = {
    "text_encoder": {"input_ids": (1, 32)},
    "unet": {"sample": (2, 4, 8, 8), "timestep": (), "encoder_hidden_states": (2, 32, 128)},
    "vae_decoder": {"latent_sample": (1, 4, 8, 8)},
    "vae_encoder": {"sample": (1, 3, 64, 64)},
}
# Of pocket's networks: what the exporter spelled out in many nodes, and torch has as one.
WHOLE = {
    "text_encoder": {"scaled_dot_product_attention": 4, "gelu": 4, "linear": 24, "layer_norm": 9},
    "unet": {"scaled_dot_product_attention": 8, "gelu": 4, "group_norm": 21, "silu": 19},
    "vae_decoder": {"group_norm": 21, "silu": 21},
    "vae_encoder": {"group_norm": 13, "silu": 13},
}


def inputs_of(shapes):
    draw = np.random.default_rng(3)
    return {
        name: draw.integers(0, 300, shape)
        if name == "input_ids"
        else np.array(500, np.float32)
        if shape == ()
        else draw.standard_normal(shape).astype(np.float32)
        for name, shape in shapes.items()
    }


def psnr(got, wanted):
    error = float(np.mean((got.astype(np.float64) - wanted) ** 2))
    return 10 * math.log10(float(np.ptp(wanted)) ** 2 / error) if error else math.inf


@pytest.mark.parametrize("component", SHAPES)
def test_each_network_of_pocket_computes_what_onnx_runtime_does(component):
    model, shapes = POCKET / component / "model.onnx", SHAPES[component]
    given = inputs_of(shapes)
    wanted = OnnxRuntimeBackend().load(model, shapes).run_all(given)
    got = TorchBackend("fp32").load(model, shapes).run_all(given)
    assert list(got) == list(wanted)
    for name, each in wanted.items():
        assert got[name].dtype == np.float32
        assert np.abs(got[name] - each).max() <= 2e-6 * np.abs(each).max()


@pytest.mark.parametrize("component", ["unet", "vae_decoder"])
def test_in_bf16_it_is_near(component):
    model, shapes = POCKET / component / "model.onnx", SHAPES[component]
    given = inputs_of(shapes)
    wanted = OnnxRuntimeBackend().load(model, shapes).run(given)
    got = TorchBackend("bf16").load(model, shapes).run(given)
    # bf16 keeps 8 bits, 48 dB a rounding; angles in it would leave less than 20
    assert 42 <= psnr(got, wanted) <= 70


@pytest.mark.parametrize("component", WHOLE)
def test_attention_and_normalisation_are_torch_s_own(component):
    source = read_onnx_graph(POCKET / component / "model.onnx")
    module = build_module(torch, source, SHAPES[component], torch.float32)
    calls = Counter(
        getattr(node.target, "__name__", "") for node in module.graph.nodes if node.op != "output"
    )
    assert {name: calls[name] for name in WHOLE[component]} == WHOLE[component]
    assert not {"softmax", "matmul", "erf", "sigmoid"} & set(calls)


def test_a_picture_by_torch_is_onnx_runtime_s():
    bundle = Bundle.open(POCKET, hash_cache=None)
    request = bundle.request(prompt="red apple", seed=7, steps=2, width=64, height=64)
    pictures = []
    for choice in (choose("torch:CPU"), choose("onnxruntime")):
        events = Pipeline(bundle, choice).generate(request)
        pictures += [event for event in events if isinstance(event, Picture)]
    got, wanted = pictures
    assert psnr(got.pixels, wanted.pixels.astype(float)) >= 60
    assert (got.backend, got.device, got.precision) == ("torch", "CPU", "fp32")
    assert got.reason == "torch, the processor (CPU), fp32: asked for"


def test_weights_are_read_as_onnx_reads_them():
    file = POCKET / "text_encoder" / "model.onnx"
    source = read_onnx_graph(file)
    model = onnx.load(file)
    assert [node.kind for node in source.nodes] == [node.op_type for node in model.graph.node]
    assert {
        node.outputs[0]: dict(node.attributes) for node in source.nodes if node.kind != "x"
    } == {
        node.output[0]: {a.name: _plain(helper.get_attribute_value(a)) for a in node.attribute}
        for node in model.graph.node
    }
    for tensor in model.graph.initializer:
        assert np.array_equal(source.weights[tensor.name], numpy_helper.to_array(tensor))
    assert source.inputs["input_ids"].dtype == "int64"
    assert source.outputs == ["last_hidden_state"]


def _plain(value):
    if isinstance(value, bytes):
        return value.decode()
    return tuple(value) if isinstance(value, list) else value


def saved(path, nodes, ports, out, values=()):
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = [
        numpy_helper.from_array(np.asarray(each), name) for name, each in dict(values).items()
    ]
    graph = helper.make_graph(nodes, "net", ports, [out], tensors)
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    return path


def port(name, shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


TEXTS = {
    "cuts and joins": """
        a = Slice (x, minus_two, far, one)
        b, c = Split <axis = 1, num_outputs = 2> (x)
        d = Concat <axis = 1> (a, b, c)
        e = Gather <axis = 1> (d, minus_two)
        f = Squeeze (e, one)
        g = Unsqueeze (f, one)
        y = Add (d, g)
    """,
    "shapes": """
        s = Shape <start = 1> (x)
        r = Range (zero, four, step)
        w = Cast <to = 1> (r)
        n = Neg (w)
        k = Less (x, n)
        l = Not (k)
        p = Where (l, x, w)
        e = Expand (p, s)
        y = Sqrt (e)
    """,
    "means": """
        m = ReduceMean <keepdims = 1> (x, one)
        t = ReduceSum <keepdims = 0> (x, one)
        u = Unsqueeze (t, one)
        d = Sub (x, m)
        q = Pow (d, two_f)
        c = Clip (q, zero_f, two_f)
        e = Exp (c)
        h = Tanh (u)
        y = Mul (e, h)
    """,
    "places": """
        i = ArgMax <axis = 1, keepdims = 0> (x)
        w = Cast <to = 1> (i)
        u = Unsqueeze (w, one)
        f = ConstantOfShape <value = float[1] {0.25}> (two)
        r = Relu (x)
        v = Identity (r)
        k = Div (v, two_f)
        y = Add (u, k)
    """,
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_operators_that_pocket_has_not(tmp_path, text):
    head = '<ir_version: 10, opset_import: ["" : 18]> net (float[n, 4] x) => (float[a, b] y)'
    model = onnx.parser.parse_model(f"{head} {{ {text} }}")
    values = {
        "minus_two": np.array([-2]),
        "far": np.array([2**62]),
        "one": np.array([1]),
        "two": np.array([2]),
        "zero": np.array(0),
        "four": np.array(4),
        "step": np.array(1),
        "two_f": np.float32(2),
        "zero_f": np.float32(0),
    }
    used = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(v), k) for k, v in values.items() if k in used
    )
    (tmp_path / "net").mkdir()
    onnx.save(model, tmp_path / "net" / "model.onnx")
    shapes = {"x": (3, 4)}
    given = {"x": np.abs(np.random.default_rng(1).standard_normal((3, 4))).astype(np.float32) + 4}
    wanted = OnnxRuntimeBackend().load(tmp_path / "net" / "model.onnx", shapes).run(given)
    got = TorchBackend("fp32").load(tmp_path / "net" / "model.onnx", shapes).run(given)
    assert np.allclose(got, wanted, rtol=1e-6)


def test_a_whole_number_timestep_and_a_stored_weight(tmp_path):
    file = write_unet(tmp_path / "unet" / "model.onnx", timestep=TensorProto.INT64)
    shapes = {"sample": (1, 4, 6, 5), "timestep": (), "encoder_hidden_states": (1, 7, 4)}
    given = inputs_of(shapes) | {"timestep": np.array(400.4)}
    wanted = OnnxRuntimeBackend().load(file, shapes).run(given)
    assert np.allclose(TorchBackend("fp32").load(file, shapes).run(given), wanted, atol=1e-6)


@pytest.mark.parametrize(
    ("precision", "device", "says"),
    [
        ("fp16", "cpu", "torch does not compute in fp16 on the processor"),
        ("int8", "cpu", "torch does not compute in int8"),
        pytest.param(
            "fp16",
            "cuda",
            "torch finds no NVIDIA card",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card here"),
        ),
    ],
)
def test_what_cannot_be_had_is_refused(precision, device, says):
    with pytest.raises(DeviceError, match=says) as caught:
        TorchBackend(precision, device)
    assert caught.value.hint


def test_an_operator_that_is_not_known_is_named(tmp_path):
    nodes = [helper.make_node("Det", ["x"], ["y"])]
    file = saved(tmp_path / "n" / "model.onnx", nodes, [port("x", [2, 2])], port("y", []))
    with pytest.raises(BundleError, match="an operator :Det that this back end") as caught:
        TorchBackend("fp32").load(file, {"x": (2, 2)})
    assert "--device cpu" in caught.value.hint


def test_a_shape_that_is_computed_of_inputs_is_refused(tmp_path):
    nodes = [helper.make_node("Reshape", ["x", "s"], ["y"])]
    ports = [port("x", [4]), port("s", [2], TensorProto.INT64)]
    file = saved(tmp_path / "n" / "model.onnx", nodes, ports, port("y", ["a", "b"]))
    with pytest.raises(BundleError, match="computes the shape of a Reshape"):
        TorchBackend("fp32").load(file, {"x": (4,), "s": (2,)})
    with pytest.raises(BundleError, match="input 's' that nothing is known of"):
        TorchBackend("fp32").load(file, {"x": (4,)})


def test_a_run_with_another_shape_is_refused(tmp_path):
    file = write_product(tmp_path / "n" / "model.onnx")
    session = TorchBackend("fp32").load(file, {"x": (1, 2048)})
    with pytest.raises(DeviceError, match="'x' has shape"):
        session.run({"x": np.zeros((2, 2048), np.float32)})


def test_a_graph_that_is_cut_short_is_damaged(tmp_path):
    file = write_product(tmp_path / "n" / "model.onnx")
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(BundleError, match="is damaged"):
        read_onnx_graph(file)
    file.write_bytes(b"")
    with pytest.raises(BundleError, match="cannot be read"):
        read_onnx_graph(file)


def test_weights_lie_within_the_folder_and_the_file(tmp_path):
    file = write_product(tmp_path / "n" / "model.onnx", external=True)
    data = file.with_name("model.onnx_data")
    data.write_bytes(data.read_bytes()[:100])
    with pytest.raises(BundleError, match=r"lies beyond the end of 'model\.onnx_data'"):
        read_onnx_graph(file)
    model = onnx.load(file, load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = "../model.onnx_data"
    onnx.save(model, file)
    with pytest.raises(BundleError, match="weights may lie beside the graph alone"):
        read_onnx_graph(file)
