"""The targets `cuda` and `tensorrt` of whole bundles: what is written, how near it is to fp32."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import safelight
from engine import Bundle
from engine.errors import DeviceError
from engine.onnxheader import read_onnx_header
from export import Ingredients, export_checkpoint
from export.architectures import TINY_XL, write_random_checkpoint
from export.errors import ParityError
from export.targets import cuda, epcontext, tensorrt
from export.targets.fused_graph import write_fused
from export.targets.narrowing import worst
from export.targets.plan import load_tensorrt
from tests.export.targets.graphs import source_of, write_graph

POCKET = Path(safelight.__file__).with_name("models") / "pocket"


def check_files(bundle, out, report):
    """Every component has a graph with the bundle's own border, its weights, and nothing else."""
    wanted = bundle.manifest.components
    assert set(report["components"]) == set(wanted)
    assert {each.name for each in out.iterdir()} == set(wanted)
    for name, component in wanted.items():
        extra = {"step.onnx"} if "step_graph" in report["components"][name] else set()
        there = {each.name for each in (out / name).iterdir()}
        assert there == {"model.onnx", "model.onnx_data"} | extra
        header = read_onnx_header(out / name / "model.onnx")
        assert header.inputs == component.inputs
        assert {k: v.dtype for k, v in header.outputs.items()} == {
            k: v.dtype for k, v in component.outputs.items()
        }
        stored = (bundle.path / component.data_file).stat().st_size
        assert (out / name / "model.onnx_data").stat().st_size <= 1.1 * stored
    json.dumps(report, allow_nan=False)
    assert "unverified on hardware" in report["verified"]
    assert report["psnr"] >= cuda.BOUND


def test_pocket_for_cuda(tmp_path):
    told = []
    whole = Bundle.open(POCKET, hash_cache=None)
    # A quarter of the numbers: what is asked here does not depend on the size.
    small = replace(whole.manifest, default_width=64, default_height=64)
    bundle = replace(whole, manifest=small)
    report = cuda.build(bundle, tmp_path, progress=lambda *stage: told.append(stage))
    check_files(bundle, tmp_path, report)
    unet = report["components"]["unet"]
    assert unet["fp32_because"] == {"angle": unet["nodes_fp32"]}
    assert unet["largest"]["value"] == pytest.approx(999)  # the first timestep
    assert unet["nodes_fp16"] > 300
    assert unet["step_graph"] == "made"
    assert report["psnr"] == worst(report["components"], "psnr_plain", "psnr_fused")
    # The causal mask reaches -3.4e38 and is gone with the attention that it was fused into.
    assert report["components"]["text_encoder"]["nodes_fp32"] == 0
    fractions = [fraction for _, fraction in told]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1


def test_without_tensorrt_nothing_is_written(tmp_path):
    try:
        load_tensorrt()
    except DeviceError:
        pass
    else:
        pytest.skip("TensorRT is installed here")
    with pytest.raises(DeviceError):
        tensorrt.build(
            Bundle.open(POCKET, hash_cache=None), tmp_path, progress=lambda *_: pytest.fail("began")
        )
    assert list(tmp_path.iterdir()) == []


def test_an_overflow_that_was_not_observed_is_refused(tmp_path):
    text = """
    <ir_version: 10, opset_import: ["" : 18]>
    net (float[n, 4] x) => (float[n, 4] y) {
        a = Mul (x, big)
        y = Mul (a, big)
    }
    """
    calm, wild = [[0, 0, 0, 0]], [[1, 2, 3, 4]]
    file = write_graph(tmp_path / "net", text, big=np.float32(300))
    seen = source_of(file, x=np.float32(calm)).seen
    honest = source_of(file, x=np.float32(wild))
    blind = type(honest)(
        name="net",
        file=file,
        runs=honest.runs,
        seen=type(seen)(ranges=seen.ranges, outputs=honest.seen.outputs),
    )
    with pytest.raises(ParityError, match="net in fp16 gives NaN or Inf"):
        write_fused(blind, tmp_path / "out")
    assert write_fused(honest, tmp_path / "out")["fp32_because"] == {"range": 1}


@pytest.mark.slow
def test_pocket_for_tensorrt(tmp_path):
    bundle = Bundle.open(POCKET, hash_cache=None)
    report = tensorrt.write_typed_graphs(bundle, tmp_path, progress=lambda *_: None)
    check_files(bundle, tmp_path, report)
    decoder = report["components"]["vae_decoder"]
    assert decoder["fp32_because"] == {"normalisation": decoder["nodes_fp32"]}


@pytest.mark.slow
def test_pocket_s_context_models_and_their_report(tmp_path, monkeypatch):
    """What the provider would be asked to compile; it cannot be here."""
    asked = []

    def write_context_model(graph, context, ranges, options):
        asked.append((graph.relative_to(tmp_path).as_posix(), context.name, set(ranges)))
        context.write_bytes(b"a context")

    monkeypatch.setattr(epcontext, "check_provider", lambda: None)
    monkeypatch.setattr(epcontext, "write_context_model", write_context_model)
    bundle = Bundle.open(POCKET, hash_cache=None)
    report = epcontext.build(bundle, tmp_path, progress=lambda *_: None)
    steps = {"state", "table", "noise", "mix", "encoder_hidden_states"}
    unet = {"sample", "encoder_hidden_states"}
    assert ("unet/model.onnx", "model_ctx.onnx", unet) in asked
    assert ("unet/step.onnx", "step_ctx.onnx", steps) in asked
    assert report["components"]["unet"]["step_graph"] == "made"
    assert report["components"]["unet"]["step_shapes"]["state"].startswith("9x1x4x16x16..")
    assert "text_encoder" in report["left_out"]
    assert not (tmp_path / "text_encoder").exists()
    assert (tmp_path / "unet" / "step_ctx.onnx").is_file()


@pytest.fixture(scope="module")
def xl(tmp_path_factory):
    folder = tmp_path_factory.mktemp("xl")
    write_random_checkpoint(folder / "source", TINY_XL, seed=3)
    export_checkpoint(
        Ingredients(source=folder / "source"),
        folder / "xl",
        name="xl",
        licence=None,
        progress=lambda *_: None,
    )
    return folder / "xl"


@pytest.mark.slow
@pytest.mark.parametrize("family", ["tiny_bundle", "xl"])
@pytest.mark.parametrize("build", [cuda.build, tensorrt.write_typed_graphs])
def test_both_families_of_random_weights(request, tmp_path, family, build):
    bundle = Bundle.open(request.getfixturevalue(family), hash_cache=None)
    report = build(bundle, tmp_path, progress=lambda *_: None)
    check_files(bundle, tmp_path, report)
    if build is cuda.build:
        for name, part in report["components"].items():
            assert part["fused"]["MultiHeadAttention"] > 0, name
            assert "MultiHeadAttention: another pattern" not in part["not_fused"]
