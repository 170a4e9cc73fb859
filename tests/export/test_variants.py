"""Second graphs of a unet and ControlNets, without an export: ports, refusals, arithmetic."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode

import safelight
from engine import Bundle, BundleError, Pipeline
from engine.backends.fake import FakeBackend
from engine.manifest import parse_manifest, read_manifest, write_manifest
from export import GraphError, Ingredients, SourceError
from export.architectures import SD15, SDXL, TINY, TINY_XL
from export.controlnet import open_controlnet
from export.modules import MODULES
from export.part_parity import draw_inputs
from export.shared_weights import save_beside
from export.source import open_checkpoint
from export.thin import thinned
from export.variant_modules import added_of, deep_and_sample
from export.variants import VARIANTS, residual_ports
from tests.export.controlnets import (
    CONTROL_CONFIGS,
    write_controlnet,
    write_original_controlnet,
)

POCKET = Path(safelight.__file__).parent / "models/pocket"
WITHOUT = ("up_block_types", "out_channels", "sample_size")  # what a ControlNet has no use for


def unet_arguments(config, side):
    """Give meta tensors of a guided step, as the graphs take them."""
    given = [
        torch.zeros(2, 4, side, side),
        torch.tensor(1.0),
        torch.zeros(2, 77, config["cross_attention_dim"]),
    ]
    if config.get("addition_embed_type"):
        given += [torch.zeros(2, 1280), torch.zeros(2, 6)]
    return given


@pytest.mark.parametrize("config", [SD15["unet"], SDXL["unet"]], ids=["sd15", "sdxl"])
def test_the_residuals_are_those_that_diffusers_gives(config):
    side = 20  # no multiple of 8: sizes are rounded up
    with torch.device("meta"), torch.no_grad():
        net = MODULES["controlnet"]({k: v for k, v in config.items() if k not in WITHOUT})
        own, added = unet_arguments(config, side)[:3], unet_arguments(config, side)[3:]
        found = net(*own, torch.zeros(2, 3, 8 * side, 8 * side), torch.tensor(1.0), *added)
    ports = residual_ports(config, "unet")
    sizes = {"token_limit": 77}
    known = draw_inputs(ports, sizes)
    assert len(found) == len(ports)
    for value, port in zip(found, ports, strict=True):
        batch, width, *sides = value.shape
        assert port.shape[1] == width, port
        factor = {"height": 1, "height_2": 2, "height_4": 4, "height_8": 8}[port.shape[2]]
        assert sides == [-(-side // factor)] * 2, port
        assert known[port.name].shape[:2] == (batch, width)


@pytest.mark.parametrize(
    ("config", "side", "most"),
    # XL has no attention at full resolution, so nearly everything lies below it; in SD 1.x the
    # attention among all latents stays, and that the step costs less than half is what is promised.
    [
        pytest.param(SD15["unet"], 64, 0.5, id="sd15"),
        pytest.param(SDXL["unet"], 128, 0.1, id="sdxl", marks=pytest.mark.slow),
    ],
)
def test_a_shallow_step_leaves_out_what_lies_below(config, side, most):
    def multiplications(name, *more):
        with torch.device("meta"), torch.no_grad():
            net = MODULES[name](config).eval()
            given = [*unet_arguments(config, side), *more]
            with FlopCounterMode(display=False) as counter:
                net(*given)
        return counter.get_total_flops() / 2  # it counts an addition with each

    feature = torch.zeros(2, config["block_out_channels"][1], side, side, device="meta")
    whole, shallow = multiplications("unet_deep"), multiplications("unet_shallow", feature)
    if config is SD15["unet"]:  # 1.607 TFLOP a guided step, counted independently before
        assert whole * 2 == pytest.approx(1.607e12, rel=1e-3)
    assert 0.03 < shallow / whole < most


def test_a_thin_step_leaves_out_three_quarters_of_the_largest_attentions_keys():
    def multiplications(name):
        with torch.device("meta"), torch.no_grad():
            net = MODULES[name](SD15["unet"]).eval()
            with FlopCounterMode(display=False) as counter:
                net(*unet_arguments(SD15["unet"], 64))
        return counter.get_total_flops() / 2

    layers, texts, places, channels = 5, 2, 64 * 64, 320  # two on the way down, three on the way up
    products = 2 * places * places * channels  # queries by keys, and what they weigh
    projections = 2 * places * channels * channels  # keys, values
    saved = 0.75 * layers * texts * (products + projections)
    assert multiplications("unet") - multiplications("unet_thin") == saved


@pytest.mark.parametrize("config", [TINY["unet"], TINY_XL["unet"]], ids=["sd1", "sdxl"])
def test_thin_attention_is_attention_to_every_second_row_and_column(config):
    torch.manual_seed(1)
    net = UNet2DConditionModel.from_config(config).eval()
    level = [type(block).__name__ for block in net.down_blocks].index("CrossAttnDownBlock2D")
    attention = net.down_blocks[level].attentions[0].transformer_blocks[0].attn1
    seen = {}

    def look(_module, given, named, result):
        seen.update(x=given[0] if given else named["hidden_states"], result=result)

    attention.register_forward_hook(look, with_kwargs=True)
    draw = torch.Generator().manual_seed(2)
    given = [
        torch.randn((2, 4, 9, 14), generator=draw),  # odd: the last row is looked at, too
        torch.tensor(321.25),
        torch.randn((2, 5, config["cross_attention_dim"]), generator=draw),
    ]
    added = (
        [
            torch.randn(
                (
                    2,
                    config["projection_class_embeddings_input_dim"]
                    - 6 * config["addition_time_embed_dim"],
                )
            ),
            torch.randn(2, 6),
        ]
        if config.get("addition_embed_type")
        else []
    )
    with torch.no_grad():
        before = net(*given, added_cond_kwargs=added_of(added)).sample
        with thinned(net):
            net(*given, added_cond_kwargs=added_of(added))
        x, result = seen["x"], seen["result"]
        side = -(-9 // 2**level)
        rows = torch.arange(x.shape[1]).reshape(side, -1)[::2, ::2].flatten()
        query, key, value = (
            attention.to_q(x),
            attention.to_k(x)[:, rows],
            attention.to_v(x)[:, rows],
        )
        heads = [
            part.unflatten(2, (attention.heads, -1)).transpose(1, 2) for part in (query, key, value)
        ]
        scores = heads[0] @ heads[1].transpose(2, 3) * attention.scale
        wanted = attention.to_out[0]((scores.softmax(3) @ heads[2]).transpose(1, 2).flatten(2))
        # float32's own, in another order of additions
        torch.testing.assert_close(result, wanted, rtol=1e-5, atol=1e-5)
        after = net(*given, added_cond_kwargs=added_of(added)).sample
    torch.testing.assert_close(after, before, rtol=0, atol=0)  # whole again behind the block


def test_a_unet_without_attention_has_nothing_to_thin():
    config = dict(TINY["unet"]) | {
        "down_block_types": ["DownBlock2D"] * 2,
        "up_block_types": ["UpBlock2D"] * 2,
    }
    with pytest.raises(SourceError, match="nothing to thin"):
        MODULES["unet_thin"](config)


@pytest.mark.parametrize("linear", [False, True], ids=["sd1", "sd2"])
def test_the_shallow_net_with_a_fresh_feature_is_the_whole_net(linear):
    torch.manual_seed(1)
    config = dict(TINY["unet"]) | {"use_linear_projection": linear}
    unet = UNet2DConditionModel.from_config(config).eval()
    shallow = MODULES["unet_shallow"](config).eval()
    weights = unet.state_dict()
    shallow.net.load_state_dict({name: weights[name] for name in shallow.net.state_dict()})
    draw = torch.Generator().manual_seed(2)
    given = (
        torch.randn((2, 4, 9, 7), generator=draw),
        torch.tensor(321.25),
        torch.randn((2, 5, 32), generator=draw),
    )
    with torch.no_grad():
        sample, feature = deep_and_sample(unet, lambda: unet(*given).sample)
        # float32's own: the same operations in the same order.
        torch.testing.assert_close(shallow(*given, feature), sample, rtol=1e-6, atol=1e-6)
        later = shallow(given[0] * 1.1, torch.tensor(300.0), given[2], feature)
    assert (later - sample).abs().max() > 1e-3  # the rest is computed anew


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Give a folder of ControlNets by family."""
    work = tmp_path_factory.mktemp("controlnets")
    return {name: write_controlnet(work / name, given) for name, given in CONTROL_CONFIGS.items()}


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_a_folder_is_recognised(folders, family):
    found = open_checkpoint(folders[family])
    (part,) = found.recipe.components
    assert (found.family, part.name) == (f"controlnet-{family}", "controlnet")
    assert ("text_embeds" in [port.name for port in part.inputs]) == (family == "sdxl")
    names = set(ControlNetModel.from_pretrained(folders[family]).state_dict())
    assert set(found.tensors["controlnet"]) == names


def test_original_names_become_diffusers_with_the_same_configuration(folders, tmp_path):
    file = write_original_controlnet(tmp_path / "control_x.safetensors", folders["original"])
    found, wanted = open_checkpoint(file), open_controlnet(folders["original"])
    theirs = wanted.tensors["controlnet"]
    assert {k: t.shape for k, t in found.tensors["controlnet"].items()} == {
        k: t.shape for k, t in theirs.items()
    }
    read = found.configs["controlnet"]
    for key in ("block_out_channels", "layers_per_block", "cross_attention_dim"):
        assert read[key] == wanted.configs["controlnet"][key]
    assert read["conditioning_embedding_out_channels"] == [4, 8, 8, 16]


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"use_linear_projection": True}, "Stable Diffusion 2.x"),
        ({"addition_embed_type": "text"}, "addition_embed_type 'text'"),
        ({"in_channels": 9}, r"\(9, 3\) channels"),
        ({"conditioning_embedding_out_channels": [4, 8]}, "8 pixels a latent"),
        ({"global_pool_conditions": True}, "global_pool_conditions"),
        ({"cross_attention_dim": "32"}, "'cross_attention_dim' is a text"),
        ({"block_out_channels": [16] * 5}, "5 resolutions"),
        ({"block_out_channels": []}, "0 resolutions"),
        ({"layers_per_block": -1}, "'size' is -1"),
    ],
)
def test_a_controlnet_of_another_make_is_refused(folders, tmp_path, values, match):
    folder = shutil.copytree(folders["sd1"], tmp_path / "net")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))
    with pytest.raises(SourceError, match=match):
        open_checkpoint(folder)


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"variants": ("control",)}, "has no unet, which --with control is made of"),
        ({"loras": (("x.safetensors", 1.0),)}, "nothing is merged into it"),
        ({"prediction": "epsilon"}, "has no VAE and predicts no noise"),
    ],
)
def test_what_changes_a_whole_checkpoint_does_not_go_with_a_controlnet(folders, given, match):
    with pytest.raises(SourceError, match=match):
        Ingredients(source=folders["sd1"], **given).open()


def test_variants_become_components_behind_the_others(tiny_checkpoint):
    source = Ingredients(source=tiny_checkpoint, variants=("thin", "shallow", "control"))
    parts = {part.name: part for part in source.open().recipe.components}
    assert list(parts)[-4:] == [name for names in VARIANTS.values() for name in names]
    assert parts["unet_control"].file == "unet/model_control.onnx"
    assert Ingredients.from_job(source.job() | {"task": "build"}) == source


def small_graph(weight, *, name="layer.weight"):
    """Give y = x + weight with a named weight."""
    x = ir.Value(name="x", shape=ir.Shape(weight.shape), type=ir.TensorType(ir.DataType.FLOAT))
    value = ir.Value(name=name, const_value=ir.tensor(weight, name=name))
    value.shape, value.type = ir.Shape(weight.shape), ir.TensorType(ir.DataType.FLOAT)
    node = ir.node("Add", [x, value])
    node.outputs[0].name, node.outputs[0].type = "y", x.type
    node.outputs[0].shape = x.shape
    graph = ir.Graph(
        [x], node.outputs, nodes=[node], initializers=[value], opset_imports={"": 18}, name="g"
    )
    return ir.Model(graph, ir_version=10)


def test_a_second_graph_reads_the_first_one_s_weights(tmp_path):
    weight = np.arange(1000, dtype=np.float32)
    first = tmp_path / "model.onnx"
    ir.save(small_graph(weight), first, external_data="model.onnx_data", size_threshold_bytes=0)
    # Other numbers under the same name: what is read afterwards shows whose they are.
    save_beside(small_graph(weight + 1), first, tmp_path / "model_two.onnx")
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "model.onnx",
        "model.onnx_data",
        "model_two.onnx",
    ]
    (value,) = ir.load(tmp_path / "model_two.onnx").graph.initializers.values()
    np.testing.assert_array_equal(value.const_value.numpy(), weight)


@pytest.mark.parametrize(
    ("name", "shape", "match"),
    [
        ("val_1", (1 << 19,), "bytes of constants"),
        ("other.weight", (1 << 19,), "bytes of constants"),
    ],
)
def test_a_second_graph_keeps_no_large_weights_of_its_own(tmp_path, name, shape, match):
    first = tmp_path / "model.onnx"
    weight = np.zeros(1000, np.float32)
    ir.save(small_graph(weight), first, external_data="model.onnx_data", size_threshold_bytes=0)
    with pytest.raises(GraphError, match=match):
        save_beside(small_graph(np.zeros(shape, np.float32), name=name), first, tmp_path / "b.onnx")
    assert not (tmp_path / "b.onnx").exists()


@pytest.fixture
def controlnet_bundle(tmp_path):
    """Give a bundle of a ControlNet's family; its one graph is a small one of another kind."""
    folder = tmp_path / "net"
    shutil.copytree(POCKET / "vae_encoder", folder / "vae_encoder")
    pocket = read_manifest(POCKET)
    manifest = replace(
        pocket,
        family="controlnet-sd1",
        components={"controlnet": pocket.components["vae_encoder"]},
        files={k: v for k, v in pocket.files.items() if k.startswith("vae_encoder/")},
    )
    (folder / "safelight.json").write_bytes(write_manifest(manifest))
    return folder


def test_it_opens_without_scheduler_and_tokenizer_and_draws_nothing(controlnet_bundle):
    bundle = Bundle.open(controlnet_bundle, hash_cache=None)
    assert (bundle.verified, bundle.manifest.add_on) == (True, True)
    with pytest.raises(BundleError, match="draws no picture alone"):
        Pipeline(bundle, FakeBackend())


@pytest.mark.parametrize("names", [("unet",), ("controlnet", "unet"), ()])
def test_its_family_has_a_controlnet_and_nothing_else(controlnet_bundle, names):
    fields = json.loads((controlnet_bundle / "safelight.json").read_bytes())
    part = fields["components"]["controlnet"]
    fields["components"] = dict.fromkeys(names, part)
    with pytest.raises(BundleError, match="has the component controlnet and no other"):
        parse_manifest(json.dumps(fields).encode())


def test_other_families_need_their_scheduler(controlnet_bundle):
    fields = json.loads((controlnet_bundle / "safelight.json").read_bytes())
    (controlnet_bundle / "safelight.json").write_text(json.dumps(fields | {"family": "sd1"}))
    with pytest.raises(BundleError, match="scheduler_config"):
        Bundle.open(controlnet_bundle, hash_cache=None)
