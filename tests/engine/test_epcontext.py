"""EP-context models by the back end of ONNX Runtime's TensorRT provider, on the processor's values:
graphs stand where engines would, the calls are the same; and what is said where something lacks.
"""

import ctypes
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import safelight
from engine import Bundle, BundleError, DeviceError, Picture, Pipeline, choose
from engine.backends.cuda import CudaBackend, processor_place
from engine.backends.epcontext import ContextBackend, context_key, context_versions
from engine.backends.onnxruntime import OnnxRuntimeBackend, runtime
from engine.backends.ortproviders import TENSORRT, tensorrt_provider
from engine.backends.ortvalues import OrtValues
from engine.backends.plansizes import output_shapes
from engine.derived import write
from engine.devicenames import parse_device
from engine.onnxheader import read_onnx_header
from export.targets.profile import Profile, profile_of, shape_ranges
from export.targets.step_graph import write_step
from export.targets.tensorrt import step_ranges

SIDE = 64
VERSIONS = {"onnxruntime-gpu": "1.31", "tensorrt": "10.13.2", "driver": "13.0"}


@pytest.fixture(scope="module")
def bundle():
    return Bundle.open(Path(safelight.__file__).parent / "models" / "pocket", hash_cache=None)


def write_contexts(bundle, cache, *, step=True, versions=VERSIONS, sizes=None):
    """Write a form whose context models are the bundle's own graphs; the text encoder is left out,
    as it is where its numbers need fp32. sizes: of the profile beside pocket's own.
    """
    profile = profile_of(bundle.manifest, ())
    usual = {"height": (8, 16, 32), "width": (8, 16, 32), "batch": (1, 2, 2)}
    profile = Profile(sizes={**profile.sizes, **usual, **(sizes or {})})

    def fill(folder):
        parts = {}
        for name in ("unet", "vae_decoder"):
            source = bundle.model(name).parent
            (folder / name).mkdir()
            shutil.copy(source / "model.onnx", folder / name / "model_ctx.onnx")
            shutil.copy(source / "model.onnx_data", folder / name / "model.onnx_data")
            ranges = shape_ranges(bundle.manifest.components[name].inputs, profile)
            parts[name] = {"shapes": {key: str(each) for key, each in ranges.items()}}
        if step:
            shutil.copy(bundle.model("unet"), folder / "unet" / "model.onnx")
            graph = write_step(folder / "unet" / "model.onnx")
            ranges = step_ranges(graph, profile)
            parts["unet"]["step_shapes"] = {key: str(each) for key, each in ranges.items()}
            graph.rename(graph.with_name("step_ctx.onnx"))
        return {"components": parts}

    return write(cache, context_key(bundle.hash, "the processor", versions), fill)


def backend_over(cache, place=None, versions=VERSIONS):
    rest = CudaBackend("fp32", None, processor_place())
    return ContextBackend(cache, place or processor_place(), versions, rest)


@pytest.fixture(scope="module")
def cache(bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("contexts")
    write_contexts(bundle, folder)
    return folder


def draw(bundle, backend, **given):
    usual = {"prompt": "red apple", "seed": 7, "steps": 3, "width": SIDE, "height": SIDE}
    events = Pipeline(bundle, backend).generate(bundle.request(**(usual | given)))
    return next(event for event in events if isinstance(event, Picture))


def near(got, wanted):
    return np.abs(got.pixels.astype(int) - wanted.pixels).max() <= 1


@pytest.mark.parametrize("sampler", ["dpmpp_2m", "euler_a"])
def test_whole_steps_by_a_context_model_draw_what_the_loop_draws(bundle, cache, sampler):
    got = draw(bundle, backend_over(cache), sampler=sampler, steps=4)
    assert near(got, draw(bundle, OnnxRuntimeBackend(), sampler=sampler, steps=4))
    assert (got.backend, got.device, got.precision) == ("onnxruntime-tensorrt", "CPU", "fp16")
    assert "one EP-context model a step" in got.reason
    assert got.reason.endswith("text_encoder, where used, by onnxruntime in fp32")


def test_a_step_is_one_run_and_two_copies_on_the_device(bundle, cache):
    """The provider keeps one CUDA graph of a session, so outputs are carried back to the inputs."""
    carried = []

    def carry(to, source, size):
        carried.append((to, source, size))
        ctypes.memmove(to, source, size)

    backend = backend_over(cache, replace(processor_place(), carry=carry))
    pipeline = Pipeline(bundle, backend)
    made = bundle.request(prompt="red apple", steps=7, width=SIDE, height=SIDE, seed=1)
    for _ in pipeline.generate(made):
        pass
    step = pipeline._stock.components._step[1]
    values = step.buffers.values
    before = (values.allocations, step.runs, len(carried), values.uploads, values.downloads)
    for _ in range(5):
        step.enqueue()
    after = (values.allocations, step.runs, len(carried), values.uploads, values.downloads)
    assert [b - a for a, b in zip(before, after, strict=True)] == [0, 5, 10, 0, 0]
    assert len({each[:2] for each in carried}) == 2  # the state's and the row's, at fixed addresses
    assert {each[2] for each in carried} == {9 * 4 * 8 * 8 * 4, 8}
    assert all(to != source for to, source, _ in carried)


def test_row_by_row_the_unet_s_context_model_runs(bundle, cache, tmp_path):
    got = draw(bundle, backend_over(cache), guidance_start=0.4)
    assert near(got, draw(bundle, OnnxRuntimeBackend(), guidance_start=0.4))
    assert "the host runs each step: guidance ends within it" in got.reason
    write_contexts(bundle, tmp_path, step=False)
    plain = draw(bundle, backend_over(tmp_path))
    assert "the bundle has no step graph for it" in plain.reason


class Refusing(ContextBackend):
    """A card whose driver does not capture; its values are the processor's."""

    def _values(self):
        return OrtValues(self._ort, "cpu", 0)

    def _open_step(self, file, shapes, place, *, graphs):
        if graphs:
            raise DeviceError("the capture failed")
        return super()._open_step(file, shapes, place, graphs=False)


def test_why_nothing_was_captured_is_told(bundle, cache):
    place = replace(processor_place(), values="cuda")
    backend = Refusing(cache, place, VERSIONS, CudaBackend("fp32", None, processor_place()))
    got = draw(bundle, backend)
    assert "one EP-context model a step, without CUDA graphs (the capture failed)" in got.reason


def test_what_it_computes_exactly_is_the_card_s_fp32(cache):
    exact = backend_over(cache).exact()
    assert (exact.precision, exact.name) == ("fp32", "onnxruntime")


def test_without_a_form_the_command_that_builds_it_is_said(bundle, tmp_path):
    with pytest.raises(BundleError, match=r"'pocket' has no EP-context model$") as caught:
        draw(bundle, backend_over(tmp_path))
    assert "safelight export pocket --target tensorrt --ep-context" in caught.value.hint
    with pytest.raises(BundleError, match="has no EP-context model"):
        draw(bundle, backend_over(None))


@pytest.mark.parametrize(
    ("name", "other"), [("driver", "12.9"), ("tensorrt", "10.9.0"), ("onnxruntime-gpu", "1.30")]
)
def test_a_model_of_other_versions_is_named_and_not_used(bundle, cache, name, other):
    with pytest.raises(BundleError, match="that fits: its libraries is") as caught:
        draw(bundle, backend_over(cache, versions=VERSIONS | {name: other}))
    assert f"{name} {VERSIONS[name]}" in str(caught.value)
    assert f"{name} {other}" in str(caught.value)


def test_a_size_that_it_was_not_built_for_is_refused_before_anything_is_loaded(bundle, tmp_path):
    write_contexts(bundle, tmp_path, sizes={"height": (8, 8, 8), "width": (8, 8, 8)})
    with pytest.raises(BundleError, match=r"step_ctx\.onnx was not built for") as caught:
        draw(bundle, backend_over(tmp_path), width=128)
    assert "--ep-context --shape WIDTHxHEIGHT" in caught.value.hint


def test_a_spoilt_form_is_an_error(bundle, tmp_path):
    form = write_contexts(bundle, tmp_path)
    (form.folder / "unet" / "step_ctx.onnx").write_bytes(b"")
    with pytest.raises(BundleError, match=r"unet/step_ctx\.onnx of the derived form"):
        draw(bundle, backend_over(tmp_path))


def test_shapes_of_outputs_come_from_the_names_of_free_sizes(bundle):
    def told(component, **shapes):
        header = read_onnx_header(bundle.model(component))
        return output_shapes(header.inputs, header.outputs, shapes)

    assert told("vae_decoder", latent_sample=(1, 4, 8, 12)) == {"sample": (1, 3, 64, 96)}
    assert told("vae_encoder", sample=(1, 3, 64, 96)) == {"latent_parameters": (1, 8, 8, 12)}
    assert told("vae_decoder") == {}  # nothing is known, so nothing is guessed


def test_versions_name_all_that_an_engine_depends_on():
    assert set(context_versions("13.0")) == set(VERSIONS)
    assert context_versions("13.0")["driver"] == "13.0"


def test_the_way_has_a_name_of_its_own():
    device = parse_device("onnxruntime:tensorrt.1")
    assert (device.by_provider, device.on_card, str(device)) == (
        True,
        True,
        "onnxruntime:TENSORRT.1",
    )
    assert not parse_device("onnxruntime:CPU").on_card
    assert parse_device("tensorrt").on_card


@pytest.mark.skipif(
    TENSORRT in runtime().get_available_providers(), reason="this build has the provider"
)
@pytest.mark.parametrize("device", ["onnxruntime:TENSORRT", "onnxruntime:TENSORRT.2"])
def test_asked_for_in_vain_it_says_what_is_missing(device):
    with pytest.raises(DeviceError, match="onnxruntime-gpu is not installed") as caught:
        choose(device)
    assert f"device '{device}' cannot be used" in str(caught.value)
    assert "pip install 'safelight[cuda]'" in caught.value.hint


def test_switches_are_words():
    for graphs in (True, False):
        options = tensorrt_provider(1, 77, graphs=graphs).options
        assert options["trt_cuda_graph_enable"] == str(graphs)
        assert (options["device_id"], options["user_compute_stream"]) == ("1", "77")
