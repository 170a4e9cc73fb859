"""ControlNets and second graphs of a unet compute what diffusers does. Exports take minutes."""

import json
import warnings

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from typer.testing import CliRunner

from engine import Bundle
from export import Ingredients, export_checkpoint, is_current
from export.architectures import TINY, TINY_XL, write_random_checkpoint
from export.controlnet import open_controlnet
from export.part_parity import draw_inputs
from export.recheck import measure_graphs
from export.runtimes import open_component
from export.thin import thinned
from export.thresholds import EXACT
from export.variants import DEEP_FEATURE
from safelight.cli import app
from safelight.exits import exit_status
from tests.export.controlnets import (
    CONTROL_CONFIGS,
    residuals,
    write_controlnet,
    write_original_controlnet,
)

ATOL = EXACT.max_abs  # the gate's own: what another order of additions leaves
RUNTIMES = ("onnxruntime", "openvino")
SHARED = ("unet_control", "unet_deep", "unet_shallow", "unet_thin")

pytestmark = pytest.mark.slow


def quiet(stage, fraction):
    """Hear the progress and say nothing."""


def export(source, out, **given):
    export_checkpoint(
        Ingredients(source=source, **given), out, name="made", licence=None, progress=quiet
    )
    return Bundle.open(out, hash_cache=None)


@pytest.fixture(scope="module", params=["sd1", "sdxl"])
def family(request):
    return request.param


@pytest.fixture(scope="module")
def made(tmp_path_factory, family):
    """Give the work folder, the model's bundle with all variants, and the ControlNet's."""
    work = tmp_path_factory.mktemp(family)
    write_random_checkpoint(work / "source", {"sd1": TINY, "sdxl": TINY_XL}[family], seed=3)
    write_controlnet(work / "control source", CONTROL_CONFIGS[family])
    model = export(work / "source", work / "models/full", variants=("control", "shallow", "thin"))
    return work, model, export(work / "control source", work / "models/net")


def graph(bundle, component, runtime):
    return open_component(runtime, bundle.model(component))


@pytest.fixture(scope="module")
def inputs(made):
    """Give inputs of all graphs, of odd sides, batch of two."""
    _, model, net = made
    checkpoint = open_controlnet(made[0] / "control source")
    (part,) = checkpoint.recipe.components
    assert net.manifest.embed_dim == model.manifest.embed_dim == checkpoint.sizes["embed_dim"]
    assert net.manifest.pooled_dim == model.manifest.pooled_dim
    return draw_inputs(part.inputs, checkpoint.sizes | {"token_limit": 20})


def unet_inputs(inputs):
    return {k: v for k, v in inputs.items() if k not in {"controlnet_cond", "conditioning_scale"}}


def added(inputs):
    both = {
        key: torch.from_numpy(inputs[key]) for key in ("text_embeds", "time_ids") if key in inputs
    }
    return {"added_cond_kwargs": both} if both else {}


def three(inputs):
    names = ("sample", "timestep", "encoder_hidden_states")
    return {name: torch.from_numpy(inputs[name]) for name in names}


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_controlnet_and_its_unet_together_equal_diffusers(made, inputs, runtime):
    work, model, net = made
    wanted = residuals(
        work / "control source",
        three(inputs)
        | added(inputs)
        | {
            "controlnet_cond": torch.from_numpy(inputs["controlnet_cond"]),
            "conditioning_scale": float(inputs["conditioning_scale"]),
        },
    )
    got = graph(net, "controlnet", runtime)(inputs)
    assert len(got) == len(wanted)
    for name, value in zip(net.manifest.components["controlnet"].outputs, wanted, strict=True):
        np.testing.assert_allclose(got[name], value, atol=ATOL * max(1, np.abs(value).max()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        unet = UNet2DConditionModel.from_pretrained(work / "source/unet", torch_dtype=torch.float32)
    *down, middle = (torch.from_numpy(value) for value in wanted)
    with torch.inference_mode():
        expected = unet(
            **three(inputs),
            **added(inputs),
            down_block_additional_residuals=down,
            mid_block_additional_residual=middle,
        ).sample.numpy()
        alone = unet(**three(inputs), **added(inputs)).sample.numpy()
    found = graph(model, "unet_control", runtime)(unet_inputs(inputs) | got)["out_sample"]
    np.testing.assert_allclose(found, expected, atol=ATOL * np.abs(expected).max())
    assert np.abs(expected - alone).max() > 0.1  # the ControlNet does something


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_zero_residuals_and_a_fresh_feature_give_the_plain_unet(made, inputs, runtime):
    _, model, net = made
    own = unet_inputs(inputs)
    plain = graph(model, "unet", runtime)(own)["out_sample"]
    shapes = graph(net, "controlnet", runtime)(inputs)
    zeros = {name: np.zeros_like(value) for name, value in shapes.items()}
    peak = np.abs(plain).max()
    found = graph(model, "unet_control", runtime)(own | zeros)["out_sample"]
    np.testing.assert_allclose(found, plain, atol=ATOL * peak)
    deep = graph(model, "unet_deep", runtime)(own)
    np.testing.assert_allclose(deep["out_sample"], plain, atol=ATOL * peak)
    shallow = graph(model, "unet_shallow", runtime)
    fresh = own | {DEEP_FEATURE: deep[DEEP_FEATURE]}
    np.testing.assert_allclose(shallow(fresh)["out_sample"], plain, atol=ATOL * peak)
    stale = own | {DEEP_FEATURE: np.zeros_like(deep[DEEP_FEATURE])}
    assert np.abs(shallow(stale)["out_sample"] - plain).max() > 0.1 * peak


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_thin_graph_is_diffusers_unet_with_thin_attention(made, inputs, runtime):
    work, model, _ = made
    own = unet_inputs(inputs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        unet = UNet2DConditionModel.from_pretrained(work / "source/unet", torch_dtype=torch.float32)
    with torch.inference_mode(), thinned(unet):
        expected = unet(**three(inputs), **added(inputs)).sample.numpy()
    plain = graph(model, "unet", runtime)(own)["out_sample"]
    found = graph(model, "unet_thin", runtime)(own)["out_sample"]
    peak = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, atol=ATOL * peak)
    assert np.abs(found - plain).max() > 100 * ATOL * peak  # and it is another one


def test_no_weight_is_on_disk_twice(made):
    _, model, _ = made
    components = model.manifest.components
    assert {components[name].data_file for name in SHARED} == {"unet/model.onnx_data"}
    files = sorted(path.name for path in (model.path / "unet").iterdir())
    graphs = tuple(f"model{name}.onnx" for name in ("", "_control", "_deep", "_shallow", "_thin"))
    assert files == sorted(("config.json", "model.onnx_data", *graphs))
    stored = sum(model.manifest.files[f"unet/{name}"].bytes for name in graphs)
    assert stored < len(graphs) * 400_000  # nodes alone, as of any tiny unet


def test_the_gate_and_its_repetition_measure_every_graph(made):
    _, model, net = made
    for bundle in (model, net):
        names = set(bundle.manifest.components)
        for measures in (bundle.manifest.parity.measures, measure_graphs(bundle.path, quiet)):
            assert names <= {each.subject for each in measures}
            assert all(each.psnr >= EXACT.psnr for each in measures if each.subject in names)


def test_another_choice_of_graphs_is_another_bundle(made):
    work, model, _ = made
    every = ("control", "shallow", "thin")
    for variants, same in ((every, True), (every[:2], False), (("control",), False), ((), False)):
        source = Ingredients(source=work / "source", variants=variants)
        assert is_current(source, model.path, licence=None, hash_cache=None) is same


def test_the_shelf_knows_them_and_generate_refuses_a_controlnet(made):
    work, _, net = made
    runner = CliRunner(env={"SAFELIGHT_HOME": str(work)})
    listed = [
        json.loads(row)
        for row in runner.invoke(app, ["models", "ls", "--json"]).stdout.splitlines()
    ]
    assert net.manifest.family in {row["family"] for row in listed}
    shown = json.loads(runner.invoke(app, ["models", "show", "full", "--json"]).stdout)
    assert set(SHARED) <= set(shown["components"])
    checked = runner.invoke(app, ["models", "verify", "net", "--quick", "--json"])
    assert (checked.exit_code, json.loads(checked.stdout)["files"]) == (0, 3)
    drawn = runner.invoke(
        app, ["generate", "a cat", "--model", "net", "--incognito", "--to", str(work / "x.png")]
    )
    assert exit_status(drawn.exception) == 6
    assert "draws no picture alone" in str(drawn.exception)
    assert not (work / "x.png").exists()


def test_a_file_of_the_original_code_is_the_folder_s_controlnet(tmp_path):
    folder = write_controlnet(tmp_path / "folder", CONTROL_CONFIGS["original"])
    file = write_original_controlnet(tmp_path / "control_x.safetensors", folder)
    bundle = export(file, tmp_path / "made")  # its gate reads the file by diffusers' own conversion
    assert bundle.manifest.family == "controlnet-sd1"
    assert bundle.manifest.source.kind == "safetensors"


def test_sd2_has_the_pair(tmp_path):
    unet = dict(TINY["unet"]) | {"attention_head_dim": [2, 4], "use_linear_projection": True}
    write_random_checkpoint(tmp_path / "source", dict(TINY) | {"unet": unet}, seed=4)
    bundle = export(tmp_path / "source", tmp_path / "made", variants=("shallow",))
    assert bundle.manifest.family == "sd2"
    assert set(bundle.manifest.components) >= {"unet_deep", "unet_shallow"}
