"""The CUDA back end on the processor's values: the same calls, counted; and what is said where a
card, a library or a form is missing.
"""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import safelight
from engine import (
    Bundle,
    BundleError,
    DeviceError,
    Inputs,
    PeakMemory,
    Picture,
    Pipeline,
    Step,
    choose,
)
from engine.backends.cuda import CudaBackend, DeviceSession, key_for, processor_place
from engine.backends.devicestep import WARM_UPS
from engine.backends.onnxruntime import OnnxRuntimeBackend, runtime
from engine.backends.ortvalues import OrtValues
from engine.courses import AT_ONCE, Steps, why_row_by_row
from engine.derived import write
from engine.modes import passes_of
from engine.stepgraph import program_of
from tests.engine.step_form import write_form

SIDE = 64


@pytest.fixture(scope="module")
def bundle():
    return Bundle.open(Path(safelight.__file__).parent / "models" / "pocket", hash_cache=None)


@pytest.fixture(scope="module")
def cache(bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    write_form(bundle, folder)
    return folder


@pytest.fixture(scope="module")
def backend(cache):
    return CudaBackend("fp16", cache, processor_place())


@pytest.fixture(scope="module")
def stepped(bundle, backend):
    return Pipeline(bundle, backend)


@pytest.fixture(scope="module")
def plain(bundle):
    return Pipeline(bundle, OnnxRuntimeBackend())


def request(bundle, **given):
    usual = {"prompt": "red apple", "seed": 7, "steps": 3, "width": SIDE, "height": SIDE}
    return bundle.request(**(usual | given))


def draw(pipeline, made, **kw):
    events = list(pipeline.generate(made, **kw))
    return [e for e in events if isinstance(e, Picture)], [e for e in events if isinstance(e, Step)]


def step_of(pipeline):
    return pipeline._stock.components._step[1]


@pytest.mark.parametrize("sampler", ["dpmpp_2m", "euler_a"])
def test_whole_steps_draw_what_the_loop_draws(bundle, stepped, plain, sampler):
    made = request(bundle, sampler=sampler)
    (got,), steps = draw(stepped, made)
    (wanted,), others = draw(plain, made)
    assert len(steps) == len(others) == 3
    assert np.abs(got.pixels.astype(int) - wanted.pixels).max() <= 1
    assert "one graph a step" in got.reason


def test_whole_steps_are_queued_without_a_word_about_memory(bundle, cache):
    asked = []

    def memory():
        asked.append("asked")
        return 400, 1000

    place = replace(processor_place(), memory=memory)
    events = Pipeline(bundle, CudaBackend("fp16", cache, place)).generate(request(bundle, steps=6))
    seen = [(event, len(asked)) for event in events]
    assert len({count for event, count in seen if isinstance(event, Step)}) == 1
    picture = next(event for event, _ in seen if isinstance(event, Picture))
    assert "one graph a step" in picture.reason
    assert picture.peak_memory == PeakMemory(of="vram", load=600, text=600, denoise=600, decode=600)


class Refusing(CudaBackend):
    """A card whose driver does not capture; its values are the processor's."""

    def _values(self):
        return OrtValues(self._ort, "cpu", 0)

    def _open_step(self, file, shapes, *, graphs):
        if graphs:
            raise DeviceError("the capture failed")
        return super()._open_step(file, shapes, graphs=False)


def test_why_nothing_was_captured_is_told(bundle, cache):
    place = replace(processor_place(), values="cuda")
    (got,), _ = draw(Pipeline(bundle, Refusing("fp16", cache, place)), request(bundle))
    assert got.reason.endswith("one graph a step, without CUDA graphs (the capture failed)")


@pytest.mark.parametrize("given", [
    {"guidance_scale": 1.0},
    {"prompt": "red apple AND blue cat :0.4"},
    {"prompt": "word " * 40},
], ids=["unguided", "and", "two chunks"])  # fmt: skip
def test_requests_that_one_graph_a_step_draws_too(bundle, stepped, plain, given):
    made = request(bundle, **given)
    (got,), _ = draw(stepped, made)
    (wanted,), _ = draw(plain, made)
    assert np.abs(got.pixels.astype(int) - wanted.pixels).max() <= 1
    assert "one graph a step" in got.reason


def test_both_passes_of_a_hires_picture_are_whole_steps(bundle, stepped, plain):
    made = request(bundle, steps=2, hires_scale=1.5, hires_strength=0.5)
    (got,), _ = draw(stepped, made)
    (wanted,), _ = draw(plain, made)
    assert np.abs(got.pixels.astype(int) - wanted.pixels).max() <= 1
    assert step_of(stepped).buffers.shapes["state"][-2:] == (12, 12)


def test_an_init_picture_is_drawn_on_in_whole_steps(bundle, stepped, plain):
    # An encoder is no part of the form: the bundle's own graph encodes.
    init = np.random.default_rng(1).integers(0, 255, (SIDE, SIDE, 3)).astype(np.uint8)
    made = request(bundle, strength=0.7)
    (got,), _ = draw(stepped, made, inputs=Inputs(init=init))
    (wanted,), _ = draw(plain, made, inputs=Inputs(init=init))
    assert np.abs(got.pixels.astype(int) - wanted.pixels).max() <= 1
    assert "one graph a step" in got.reason
    assert got.reason.endswith("; vae_encoder, where used, in fp32")


@pytest.mark.parametrize(
    ("given", "inputs", "why"),
    [
        ({"guidance_start": 0.4}, Inputs(), "guidance ends within it"),
        ({"prompt": "[red:blue:0.5] apple"}, Inputs(), "the prompt changes on the way"),
        (
            {"strength": 0.7},
            Inputs(
                init=np.full((SIDE, SIDE, 3), 99, np.uint8),
                mask=np.full((SIDE, SIDE), 255, np.uint8),
            ),
            "known latents are put back",
        ),
    ],
    ids=["interval", "schedule", "mask"],
)
def test_what_the_step_graph_cannot_draw_the_loop_does_and_says_so(
    bundle, stepped, plain, given, inputs, why
):
    made = request(bundle, **given)
    (got,), _ = draw(stepped, made, inputs=inputs)
    (wanted,), _ = draw(plain, made, inputs=inputs)
    assert f"; the host runs each step: {why}" in got.reason
    assert np.abs(got.pixels.astype(int) - wanted.pixels).max() <= 1


class Nine:
    unet_channels, latent_channels = 9, 4


def test_every_reason_for_the_loop_is_told(bundle, stepped):
    made = request(bundle)
    texts = stepped._plan(made, 3, stepped._stock)
    manifest = bundle.manifest
    assert why_row_by_row(made, texts, Inputs(), manifest) == ""
    assert "deep" in why_row_by_row(replace(made, reuse_every=2), texts, Inputs(), manifest)
    assert "refiner" in why_row_by_row(replace(made, refiner="x"), texts, Inputs(), manifest)
    assert "more than latents" in why_row_by_row(made, texts, Inputs(), Nine())


def test_a_step_is_one_run_and_nothing_else(bundle, stepped, backend):
    """The assertion of the mission: per step 0 allocations, 0 copies, 1 run call."""
    made = request(bundle, sampler="dpmpp_2m_sde", steps=9)
    counted = []
    events = stepped.generate(made)
    for event in events:
        if isinstance(event, Step):
            step = step_of(stepped)
            values = step.buffers.values
            counted.append((values.allocations, values.uploads, values.downloads, step.runs))
    # From the first step on nothing is allocated, uploaded or read; latents are read at the end.
    assert {each[:3] for each in counted} == {counted[0][:3]}
    warm = 2 * WARM_UPS
    runs = [each[3] - warm for each in counted]
    assert runs[-1] == 9
    assert runs[0] == AT_ONCE  # the host is ahead of the device by no more
    assert all(later - earlier <= 1 for earlier, later in itertools.pairwise(runs))
    assert step_of(stepped).buffers.values.downloads == counted[-1][2] + 1


def test_a_preview_is_the_only_copy_on_the_way(bundle, stepped):
    made = request(bundle, steps=6)
    looked, copies = [], []
    for event in stepped.generate(made):
        if isinstance(event, Step):
            before = step_of(stepped).buffers.values.downloads
            if event.index == 2:
                looked.append(event.preview())
            copies.append(step_of(stepped).buffers.values.downloads - before)
    assert copies == [0, 0, 1, 0, 0, 0]
    assert looked[0].shape == (SIDE // 8, SIDE // 8, 3)
    assert looked[0].std() > 0


def test_cancelling_takes_at_most_the_steps_that_wait(bundle, stepped):
    made = request(bundle, steps=20)
    draw(stepped, made)
    before = step_of(stepped).runs
    seen = []
    events = stepped.generate(made, lambda: len(seen) == 5)
    seen.extend(event for event in events)
    assert len(seen) == 5
    assert step_of(stepped).runs - before <= 5 + AT_ONCE - 1
    (after,), _ = draw(stepped, made)  # what still waited does not disturb the next one
    (again,), _ = draw(stepped, made)
    assert np.array_equal(after.pixels, again.pixels)


def test_another_length_of_trajectory_loads_nothing_anew(bundle, stepped):
    draw(stepped, request(bundle, steps=3))
    first = step_of(stepped)
    draw(stepped, request(bundle, steps=60))
    assert step_of(stepped) is first


def test_the_step_and_the_plain_unet_are_not_both_held(bundle, cache):
    pipeline = Pipeline(bundle, CudaBackend("fp16", cache, processor_place()))
    draw(pipeline, request(bundle))
    assert "unet" not in pipeline._stock.components._loaded
    draw(pipeline, request(bundle, guidance_start=0.4))
    assert pipeline._stock.components._step is None


def test_a_form_without_a_step_graph_runs_row_by_row(bundle, tmp_path):
    write_form(bundle, tmp_path, step=False)
    pipeline = Pipeline(bundle, CudaBackend("fp16", tmp_path, processor_place()))
    (picture,), _ = draw(pipeline, request(bundle))
    assert picture.reason.endswith("the host runs each step: the bundle has no step graph for it")


def test_in_fp32_the_bundle_s_own_graphs_run(bundle, plain, tmp_path):
    pipeline = Pipeline(bundle, CudaBackend("fp32", tmp_path, processor_place()))
    (picture,), _ = draw(pipeline, request(bundle))
    (wanted,), _ = draw(plain, request(bundle))
    assert np.abs(picture.pixels.astype(int) - wanted.pixels).max() <= 1
    assert picture.precision == "fp32"


def test_without_a_form_the_command_that_makes_it_is_said(bundle, tmp_path):
    pipeline = Pipeline(bundle, CudaBackend("fp16", tmp_path, processor_place()))
    with pytest.raises(BundleError, match="'pocket' has no form for NVIDIA cards") as caught:
        list(pipeline.generate(request(bundle)))
    assert "safelight export pocket --target cuda" in caught.value.hint
    with pytest.raises(BundleError, match="no form"):
        CudaBackend("fp16", None, processor_place()).load(
            bundle.model("unet"), {}, identity=f"{bundle.hash}/unet"
        )


def test_a_form_for_another_library_is_named(bundle, tmp_path):
    other = replace(key_for(bundle.hash), libraries={"onnxruntime-gpu": "0.9"})
    write(tmp_path, other, lambda folder: {"n": (folder / "x").write_text("x")})
    with pytest.raises(BundleError, match=r"that fits: its libraries is onnxruntime-gpu 0\.9"):
        CudaBackend("fp16", tmp_path, processor_place()).load(
            bundle.model("unet"), {}, identity=f"{bundle.hash}/unet"
        )


def test_a_spoilt_form_is_an_error(bundle, tmp_path):
    form = write_form(bundle, tmp_path)
    (form.folder / "unet" / "step.onnx").write_bytes(b"")
    pipeline = Pipeline(bundle, CudaBackend("fp16", tmp_path, processor_place()))
    with pytest.raises(BundleError, match=r"unet/step\.onnx of the derived form"):
        list(pipeline.generate(request(bundle)))


def test_other_precisions_are_refused(tmp_path):
    with pytest.raises(DeviceError, match="does not compute in bf16") as caught:
        CudaBackend("bf16", tmp_path, processor_place())
    assert "fp16, fp32" in caught.value.hint


def test_a_program_of_another_shape_is_refused(bundle, stepped):
    draw(stepped, request(bundle))
    step = step_of(stepped)
    made = request(bundle, width=128)
    table = passes_of(made, Inputs(), bundle.training)[0].table
    shape = (1, 4, 8, 16)
    program = program_of(
        table,
        "epsilon",
        np.zeros(shape, np.float32),
        [],
        np.ones((2, 1, 1, 1, 1), np.float32),
        {"encoder_hidden_states": np.zeros((2, 32, 128), np.float32)},
    )
    with pytest.raises(DeviceError, match="'state' has shape"):
        Steps(step, program)
    with pytest.raises(BundleError, match="'encoder_hidden_states' that nothing"):
        Steps(step, replace(program, state=np.zeros((9, 1, 4, 8, 8), np.float32),
                            noise=step_noise(step), inputs={}))  # fmt: skip


def step_noise(step):
    return np.zeros(step.buffers.shapes["noise"], np.float32)


class Dying:
    """A session whose run fails, as a driver's does."""

    def run_with_iobinding(self, *_):
        raise RuntimeError("CUDA failure 700: an illegal memory access")


def test_a_failing_device_is_one_sentence(bundle, cache):
    pipeline = Pipeline(bundle, CudaBackend("fp16", cache, processor_place()))
    draw(pipeline, request(bundle))
    step = step_of(pipeline)
    step.run.session = Dying()
    with pytest.raises(DeviceError, match=r"ONNX Runtime failed on unet/step\.onnx: RuntimeError"):
        list(pipeline.generate(request(bundle)))


def test_outputs_of_no_fixed_shape_are_refused(tmp_path):
    from onnx import TensorProto, helper, save

    node = helper.make_node("NonZero", ["x"], ["y"])
    port = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch"])
    out = helper.make_tensor_value_info("y", TensorProto.INT64, [1, "found"])
    graph = helper.make_graph([node], "free", [port], [out])
    (tmp_path / "unet").mkdir()
    file = tmp_path / "unet" / "model.onnx"
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), file)
    with pytest.raises(BundleError, match="gives 'y' of no fixed shape"):
        CudaBackend("fp32", None, processor_place()).load(file, {"x": (3,)})


def test_a_session_converts_and_gives_every_output(bundle):
    session = CudaBackend("fp32", None, processor_place()).load(
        bundle.model("text_encoder"), {"input_ids": (1, 32)}
    )
    assert isinstance(session, DeviceSession)
    ids = {"input_ids": np.ones((1, 32), np.int64)}
    wanted = OnnxRuntimeBackend().load(bundle.model("text_encoder"), {"input_ids": (1, 32)})
    assert np.allclose(session.run(ids), wanted.run(ids), atol=1e-5)
    assert list(session.run_all(ids)) == ["last_hidden_state"]


def test_the_card_is_asked_for_in_vain(tmp_path):
    if "CUDAExecutionProvider" in runtime().get_available_providers():
        pytest.skip("this build has the provider")
    with pytest.raises(DeviceError, match="onnxruntime-gpu is not installed") as caught:
        choose("cuda", cache_dir=tmp_path)
    assert "pip install 'safelight[cuda]'" in caught.value.hint
