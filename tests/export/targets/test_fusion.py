"""Fused graphs compute what the source graph does, and what no kernel takes is left as it is."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

import safelight
from export.targets.activations import open_graph
from export.targets.contrib import schema_faults, spelled_out
from export.targets.fusion import fuse
from export.targets.half import open_model
from export.targets.narrowing import check_graph, read_graph, save_graph
from tests.export.targets.graphs import GATED, write_graph

POCKET = Path(safelight.__file__).with_name("models") / "pocket"
DRAW = np.random.default_rng(14)
FUSED = (
    "Gelu",
    "GroupNorm",
    "MultiHeadAttention",
    "NhwcConv",
    "SkipGroupNorm",
    "SkipLayerNormalization",
)
HEIGHT, WIDTH = 7, 10  # odd, so that the up-sampling crops


def normal(*shape):
    return DRAW.standard_normal(shape, dtype=np.float32)


INPUTS = {
    "text_encoder": {"input_ids": DRAW.integers(0, 3072, (2, 32))},
    "unet": {
        "sample": normal(2, 4, HEIGHT, WIDTH),
        "timestep": np.float32(481.5),
        "encoder_hidden_states": normal(2, 32, 128),
    },
    "vae_decoder": {"latent_sample": normal(1, 4, HEIGHT, WIDTH)},
    "vae_encoder": {"sample": normal(1, 3, 8 * HEIGHT, 8 * WIDTH)},
}


def kinds(graph):
    return Counter(node.op_type for node in graph.graph.node)


@pytest.fixture(scope="module")
def fused(tmp_path_factory):
    """Fuse each of pocket's components in fp32; give its graph, what was said, and its folder."""
    found = {}
    for name in INPUTS:
        folder = tmp_path_factory.mktemp("fused") / name
        model = open_model(POCKET / name / "model.onnx")
        said = fuse(model, ())
        found[name] = read_graph(save_graph(model, folder)), said, folder
    return found


@pytest.mark.parametrize("name", INPUTS)
def test_a_fused_component_computes_the_same_in_fp32(fused, name):
    graph, _, folder = fused[name]
    assert list(schema_faults(graph)) == []
    spelled = spelled_out(graph)
    check_graph(spelled)
    source = POCKET / name
    (wanted,) = open_graph(read_graph(source / "model.onnx"), source)(INPUTS[name]).values()
    (found,) = open_graph(spelled, folder)(INPUTS[name]).values()
    # Another order of additions: the same bound as the exporter's own gate.
    assert np.abs(found - wanted).max() <= 1e-4 * max(1, np.abs(wanted).max())


@pytest.mark.parametrize("name", INPUTS)
def test_every_pattern_of_the_source_is_fused_or_accounted_for(fused, name):
    source = kinds(read_graph(POCKET / name / "model.onnx"))
    graph, said, _ = fused[name]
    found = kinds(graph)
    assert found["MultiHeadAttention"] == source["Softmax"]
    assert found["Softmax"] == 0
    assert found["NhwcConv"] == source["Conv"]
    assert found["Gelu"] == source["Erf"]
    norms = found["GroupNorm"] + found["SkipGroupNorm"]
    odd = said.left["GroupNorm: an odd number of channels a group"]
    assert norms + odd == source["InstanceNormalization"]
    assert found["InstanceNormalization"] == odd
    layers = found["LayerNormalization"] + found["SkipLayerNormalization"]
    assert layers == source["LayerNormalization"]
    assert found["SkipLayerNormalization"] >= found["MultiHeadAttention"]  # one follows each
    for kind in FUSED:
        assert said.made[kind] == found[kind]


def test_odd_groups_are_left_because_the_kernel_takes_two_channels_a_thread(fused):
    graph, said, _ = fused["unet"]
    assert said.left["GroupNorm: an odd number of channels a group"] > 0
    for node in graph.graph.node:
        if node.op_type in {"GroupNorm", "SkipGroupNorm"}:
            (groups,) = (item.i for item in node.attribute if item.name == "groups")
            (channels,) = (
                value.type.tensor_type.shape.dim[0].dim_value
                for value in graph.graph.value_info
                if value.name == node.input[1]
            )
            assert channels % (2 * groups) == 0


def test_pictures_keep_their_channels_last_through_the_decoder(fused):
    # One turn at each end; enlargements, sums and norms between them need none.
    assert kinds(fused["vae_decoder"][0])["Transpose"] == 2
    assert kinds(fused["vae_encoder"][0])["Transpose"] == 2


def test_with_fixed_sizes_no_arithmetic_of_shapes_remains(fused):
    # What computes shapes would run on the host, which a CUDA graph cannot capture and
    # `session.disable_cpu_ep_fallback` refuses.
    graph, _, folder = fused["unet"]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folder / "fixed.onnx")
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", str(folder)
    )
    for name, size in {"batch": 2, "height": 16, "width": 16, "tokens": 32}.items():
        options.add_free_dimension_override_by_name(name, size)
    spelled = spelled_out(graph).SerializeToString()
    onnxruntime.InferenceSession(spelled, options, providers=["CPUExecutionProvider"])
    fixed = onnx.shape_inference.infer_shapes(read_graph(folder / "fixed.onnx")).graph
    assert kinds(graph)["Shape"] > 0  # while they are free
    whole = {
        value.name
        for value in fixed.value_info
        if value.type.tensor_type.elem_type == onnx.TensorProto.INT64
    }
    assert [node.op_type for node in fixed.node if whole.intersection(node.output)] == []


def test_a_network_of_fp32_islands_is_left_alone(tmp_path):
    model = open_model(POCKET / "vae_encoder/model.onnx")
    before = Counter(node.op_type for node in model.graph)
    said = fuse(model, {str(node.name) for node in model.graph})
    assert Counter(node.op_type for node in model.graph) == before
    assert not +said.made
    assert said.left["NhwcConv: computes in fp32"] == before["Conv"]


def test_an_island_within_attention_is_not_fused_away():
    model = open_model(POCKET / "unet/model.onnx")
    softmax = next(node for node in model.graph if node.op_type == "Softmax")
    whole = sum(node.op_type == "Softmax" for node in model.graph)
    scores = softmax.inputs[0]
    assert scores is not None
    said = fuse(model, {str(scores.producer().name)})
    assert said.made["MultiHeadAttention"] == whole - 1
    assert said.left["MultiHeadAttention: computes in fp32"] == 1
    assert [node for node in model.graph if node.op_type == "Softmax"] == [softmax]


def test_a_mask_that_is_not_causal_is_kept():
    model = open_model(POCKET / "text_encoder/model.onnx")
    mask = next(
        value for value in model.graph.initializers.values() if value.dtype == ir.DataType.BOOL
    )
    allowed = np.array(mask.const_value.numpy())
    allowed[..., 0, 1] = True  # one token sees the next one
    mask.const_value = ir.tensor(allowed, name=mask.name)
    said = fuse(model, ())
    assert said.made["MultiHeadAttention"] == 0
    assert said.left["MultiHeadAttention: another pattern"] > 0


@pytest.mark.parametrize(("width", "count"), [(2560, 1), (2592, 0)])
def test_the_gated_gelu_is_fused_for_the_widths_that_have_a_kernel(tmp_path, width, count):
    weights = {
        "weight": normal(16, width),
        "bias": normal(width),
        "root": np.float32(np.sqrt(2)),
        "one": np.float32(1),
        "point_five": np.float32(0.5),
    }
    file = write_graph(tmp_path / "net", GATED.replace("1280", str(width // 2)), **weights)
    model = open_model(file)
    said = fuse(model, ())
    assert (said.made["BiasSplitGelu"], said.made["Gelu"]) == (count, 1 - count)
    graph = read_graph(save_graph(model, tmp_path))
    assert list(schema_faults(graph)) == []
    x = {"x": normal(2, 3, 16)}
    found = open_graph(spelled_out(graph), tmp_path)(x)["y"]
    wanted = open_graph(read_graph(file), file.parent)(x)["y"]
    assert np.allclose(found, wanted, rtol=1e-4, atol=1e-4)  # another order of additions
