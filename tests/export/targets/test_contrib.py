"""ONNX Runtime's CUDA operators, spelled out in standard ones, against torch's own."""

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, parser
from torch.nn import functional

from export.targets.activations import open_graph
from export.targets.contrib import schema_faults, spelled_out

DRAW = np.random.default_rng(11)
HEAD = '<ir_version: 10, opset_import: ["" : 18, "com.microsoft" : 1]>'
X = DRAW.standard_normal((2, 5, 3, 8)).astype(np.float32)  # N, H, W, C
GAMMA, BETA = (DRAW.standard_normal(8).astype(np.float32) for _ in range(2))
# ONNX Runtime and torch add in different orders.
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def run(text, tmp_path, **inputs):
    graph = onnx.shape_inference.infer_shapes(parser.parse_model(f"{HEAD} {text}"))
    assert list(schema_faults(graph)) == []
    return open_graph(spelled_out(graph), tmp_path)(inputs)


def torch_norm(x, *, swish, groups=4, epsilon=1e-3):
    first = torch.from_numpy(x).permute(0, 3, 1, 2)
    weights = torch.from_numpy(GAMMA), torch.from_numpy(BETA)
    made = functional.group_norm(first, groups, *weights, eps=epsilon)
    return (functional.silu(made) if swish else made).permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize("swish", [False, True])
def test_group_norm(tmp_path, swish):
    text = f"""net (float[2, 5, 3, 8] x, float[8] g, float[8] b) => (float[2, 5, 3, 8] y) {{
        y = com.microsoft.GroupNorm <groups = 4, epsilon = 0.001, activation = {int(swish)}>
            (x, g, b)
    }}"""
    found = run(text, tmp_path, x=X, g=GAMMA, b=BETA)["y"]
    assert np.allclose(found, torch_norm(X, swish=swish), **CLOSE)


@pytest.mark.parametrize("vector", [False, True])
def test_skip_group_norm_gives_the_sum_as_well(tmp_path, vector):
    skip = DRAW.standard_normal((2, 8) if vector else X.shape).astype(np.float32)
    shape = "2, 8" if vector else "2, 5, 3, 8"
    text = f"""net (float[2, 5, 3, 8] x, float[8] g, float[8] b, float[{shape}] s)
            => (float[2, 5, 3, 8] y, float[2, 5, 3, 8] t) {{
        y, t = com.microsoft.SkipGroupNorm <groups = 4, epsilon = 0.001, activation = 1>
            (x, g, b, s)
    }}"""
    found = run(text, tmp_path, x=X, g=GAMMA, b=BETA, s=skip)
    total = X + (skip[:, None, None] if vector else skip)
    assert np.allclose(found["t"], total, **CLOSE)
    assert np.allclose(found["y"], torch_norm(total, swish=True), **CLOSE)


def test_nhwc_conv(tmp_path):
    weight = DRAW.standard_normal((6, 8, 3, 3)).astype(np.float32)
    bias = DRAW.standard_normal(6).astype(np.float32)
    text = """net (float[2, 5, 3, 8] x, float[6, 3, 3, 8] w, float[6] b) => (float[n, h, v, 6] y) {
        y = com.microsoft.NhwcConv <strides = [2, 1], pads = [1, 0, 1, 0], kernel_shape = [3, 3],
            dilations = [1, 1], group = 1> (x, w, b)
    }"""
    found = run(text, tmp_path, x=X, w=weight.transpose(0, 2, 3, 1), b=bias)["y"]
    first = torch.from_numpy(X).permute(0, 3, 1, 2)
    made = functional.conv2d(
        first, torch.from_numpy(weight), torch.from_numpy(bias), (2, 1), (1, 0)
    )
    assert np.allclose(found, made.permute(0, 2, 3, 1).numpy(), **CLOSE)


def test_bias_split_gelu(tmp_path):
    x = DRAW.standard_normal((2, 3, 2560)).astype(np.float32)
    bias = DRAW.standard_normal(2560).astype(np.float32)
    text = """net (float[2, 3, 2560] x, float[2560] b) => (float[2, 3, 1280] y) {
        y = com.microsoft.BiasSplitGelu (x, b)
    }"""
    left, right = torch.from_numpy(x + bias).chunk(2, dim=-1)
    wanted = (left * functional.gelu(right)).numpy()
    assert np.allclose(run(text, tmp_path, x=x, b=bias)["y"], wanted, **CLOSE)


def test_faults_are_what_the_operator_list_does_not_know():
    def faults(operator, inputs, kind=onnx.TensorProto.FLOAT, **attributes):
        ports = [helper.make_tensor_value_info(name, kind, [1]) for name in inputs]
        node = helper.make_node(operator, inputs, ["y"], domain="com.microsoft", **attributes)
        graph = helper.make_graph([node], "net", ports, [])
        return list(schema_faults(helper.make_model(graph)))

    good = {"groups": 2, "activation": 1, "epsilon": 1e-5}
    assert faults("GroupNorm", ["x", "g", "b"], **good) == []
    assert faults("GroupNrm", ["x"]) == ["there is no operator GroupNrm"]
    assert faults("GroupNorm", ["x", "g", "b"], **good, swish=1) == [
        "GroupNorm has no attribute swish"
    ]
    assert faults("GroupNorm", ["x", "g", "b"], activation=1) == [
        "GroupNorm needs the attribute groups"
    ]
    assert faults("GroupNorm", ["x"], **good) == ["GroupNorm takes 3 to 3 inputs"]


def test_mixed_types_are_faults():
    half, single = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
    ports = [
        helper.make_tensor_value_info("x", half, [1, 2, 8]),
        helper.make_tensor_value_info("b", single, [8]),
    ]
    node = helper.make_node("BiasSplitGelu", ["x", "b"], ["y"], domain="com.microsoft")
    (fault,) = schema_faults(helper.make_model(helper.make_graph([node], "net", ports, [])))
    assert fault == "BiasSplitGelu takes one type as T, not tensor(float) as well"
