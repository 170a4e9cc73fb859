"""A LoRA put into a plan that is on the card: by the shipped seam over a stand-in that computes."""

import shutil
from pathlib import Path

import numpy as np
import pytest

import safelight
from engine import Bundle, BundleError, DeviceError, Picture, Pipeline
from engine.backends.cudadevice import CudaDevice
from engine.backends.onnxruntime import OnnxRuntimeBackend
from engine.backends.tensorrt import TensorRtBackend
from engine.backends.tensorrtrefit import Exchange, Refit, base_of
from engine.derived import DerivedKey, write
from engine.onnxgraph import read_onnx_graph
from export import Options, Reweighting, reweight_bundle
from export.graphweights import stored_weights
from export.targets.step_graph import write_step
from export.targets.tensorrt import write_typed_graphs
from tests.engine.trt_standin import Cuda, Engine, TensorRt
from tests.export.lora_files import draw as draw_factors
from tests.export.lora_files import state, trainable
from tests.export.lora_files import write as write_lora
from tests.tiny import CREATED

SIDE = 64
POCKET = Path(safelight.__file__).parent / "models" / "pocket"
PARTS = ("text_encoder", "unet")


def with_lora(folder, name, seed):
    """Make a bundle of pocket with a LoRA of some weights added, by the exporter's own way."""
    weights = {
        part: {
            key: each.shape
            for key, each in stored_weights(
                POCKET / part / "model.onnx", POCKET / part / "model.onnx_data"
            ).items()
        }
        for part in PARTS
    }
    factors = {
        key: (up * np.float32(0.05), down)
        for key, (up, down) in draw_factors(weights, trainable(weights)[seed::9], seed).items()
    }
    (folder / f"{name}-lora").mkdir()
    file = write_lora(folder / f"{name}-lora", state(weights, factors, "kohya"))
    reweight_bundle(
        Reweighting(base=POCKET, loras=((file, 0.5),)),
        folder / name,
        name=name,
        licence=None,
        progress=lambda *_: None,
        options=Options(now=lambda: CREATED),
    )
    return Bundle.open(folder / name, hash_cache=None)


@pytest.fixture(scope="module")
def base():
    return Bundle.open(POCKET, hash_cache=None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("bundles")


@pytest.fixture(scope="module")
def inked(folder):
    return with_lora(folder, "inked", 1)


@pytest.fixture(scope="module")
def washed(folder):
    return with_lora(folder, "washed", 4)


@pytest.fixture(scope="module")
def cache(base, tmp_path_factory):
    """A refittable form of pocket: a plan is the path of a graph, beside its pristine weights."""
    folder = tmp_path_factory.mktemp("plans")
    write_refittable(base, folder)
    return folder


def write_refittable(base, cache, target="tensorrt-refit"):
    graphs = cache / "graphs"

    def fill(folder):
        for name in (*PARTS, "vae_decoder"):
            source = base.model(name).parent
            shutil.copytree(source, graphs / name)
            (folder / name).mkdir()
            for file in ("model.onnx", "model.onnx_data"):
                shutil.copy(source / file, folder / name / file)
            (folder / name / "model.plan").write_text(str(graphs / name / "model.onnx"))
        step = write_step(graphs / "unet" / "model.onnx")
        (folder / "unet" / "step.plan").write_text(str(step))
        return {}

    key = DerivedKey(
        identity=base.hash,
        target=target,
        precision="fp16",
        device="stand-in sm_90",
        shapes=(),
        libraries={"tensorrt": "11.4", "driver": "13.2"},
    )
    return write(cache, key, fill)


def backend_over(cache, **told):
    cuda = Cuda()
    trt = TensorRt(cuda, **told)
    return trt, TensorRtBackend(trt, CudaDevice(0, cuda), cache, OnnxRuntimeBackend())


def draw(pipeline, bundle, **given):
    usual = {"prompt": "red apple", "seed": 7, "steps": 3, "width": SIDE, "height": SIDE}
    events = pipeline.generate(bundle.request(**(usual | given)))
    return next(event for event in events if isinstance(event, Picture)).pixels.astype(int)


def wanted(bundle, **given):
    return draw(Pipeline(bundle, OnnxRuntimeBackend()), bundle, **given)


def changed_in(bundle, base, part):
    ours, theirs = (read_onnx_graph(each.model(part)).weights for each in (bundle, base))
    return {name for name in theirs if not np.array_equal(ours[name], theirs[name])}


def test_a_picture_with_a_lora_and_one_without_by_one_plan_on_the_card(base, inked, cache):
    trt, backend = backend_over(cache)
    plain = wanted(base)
    for bundle, expected in ((inked, wanted(inked)), (base, plain)):
        got = draw(Pipeline(bundle, backend), bundle)
        assert np.abs(got - expected).max() <= 1
        assert (np.abs(got - plain).max() > 20) == (bundle is inked)  # it can be told
    assert trt.plans == 3  # text encoder, steps and decoder, loaded once


SHAPES = {"input_ids": (1, 32)}
IDS = {"input_ids": np.arange(32, dtype=np.int64)[None]}
TEXT = "text_encoder"


def encoder(bundle, backend):
    identity = f"{bundle.hash}/{TEXT}" if isinstance(backend, TensorRtBackend) else ""
    return backend.load(bundle.model(TEXT), SHAPES, identity=identity)


@pytest.fixture(scope="module")
def exact(base, inked, washed):
    loaded = OnnxRuntimeBackend()
    return {each.name: encoder(each, loaded).run(IDS).copy() for each in (base, inked, washed)}


def test_what_a_lora_left_is_pristine_again_and_nothing_else_is_sent(
    base, inked, washed, cache, exact
):
    trt, backend = backend_over(cache)
    for bundle in (base, inked, washed, base):
        assert np.allclose(encoder(bundle, backend).run(IDS), exact[bundle.name], atol=1e-4)
    first, second = (changed_in(each, base, TEXT) for each in (inked, washed))
    assert first
    assert second
    assert first != second
    # The base alone asks for nothing; then a LoRA's, the other's and the first's pristine ones...
    assert trt.exchanges == [sorted(first), sorted(first | second), sorted(second)]
    assert trt.plans == 1
    assert len({each.tobytes() for each in exact.values()}) == 3


def test_two_bundles_loaded_at_once_each_compute_with_their_own_weights(base, inked, cache, exact):
    trt, backend = backend_over(cache)
    sessions = {each.name: encoder(each, backend) for each in (base, inked)}
    for name in ("pocket", "inked", "inked", "pocket"):
        assert np.allclose(sessions[name].run(IDS), exact[name], atol=1e-4)
    assert len(trt.exchanges) == 4  # into the plan with the load, and whenever the other one ran
    assert trt.plans == 1


def test_weights_that_were_exchanged_meanwhile_stop_a_trajectory(base, inked, cache):
    _, backend = backend_over(cache)
    pipeline = Pipeline(base, backend)
    events = pipeline.generate(
        base.request(prompt="red apple", steps=12, width=SIDE, height=SIDE, seed=1)
    )
    next(events)
    step = pipeline._stock.components._step[1]
    other = Exchange(base.model("unet"), inked.model("unet"))
    step.run._network._plan.refit.wear(other)
    with pytest.raises(DeviceError, match="were exchanged while it drew a picture"):
        list(events)
    got = draw(pipeline, base)  # the next one is dressed and captured anew
    assert np.abs(got - wanted(base)).max() <= 1


def test_weights_that_tensorrt_joined_are_sent_along_pristine(base, inked, cache, exact):
    changed = sorted(changed_in(inked, base, TEXT))
    joined = next(
        name
        for name, array in read_onnx_graph(base.model(TEXT)).weights.items()
        if array.dtype.kind == "f" and name not in changed
    )
    trt, backend = backend_over(cache, joined={changed[0]: [joined]})
    assert np.allclose(encoder(inked, backend).run(IDS), exact["inked"], atol=1e-4)
    assert trt.exchanges == [sorted([*changed, joined])]


@pytest.mark.parametrize(
    ("told", "error", "says"),
    [
        ({"fixed": True}, DeviceError, "was not built to have its weights exchanged"),
        ({"refusing": True}, DeviceError, "TensorRT could not exchange the weights of text_enc"),
        ({"joined": "nowhere"}, BundleError, r"joined weights of .* with 'nowhere', which its gra"),
        ({"joined": ""}, BundleError, "joined weights of .* with weights without a name"),
    ],
    ids=["fixed", "refusing", "joined", "unnamed"],
)
def test_what_goes_wrong_is_one_sentence(base, inked, cache, told, error, says):
    if "joined" in told:
        told = {"joined": {min(changed_in(inked, base, TEXT)): [told["joined"]]}}
    _, backend = backend_over(cache, **told)
    with pytest.raises(error, match=says) as caught:
        encoder(inked, backend)
    assert "safelight export" in caught.value.hint


def test_a_weight_without_a_name_in_the_plan_is_said_before_anything_is_exchanged(
    base, inked, cache, exact
):
    changed = sorted(changed_in(inked, base, TEXT))
    trt, backend = backend_over(cache, nameless=changed[:2])
    with pytest.raises(BundleError, match=f"has '{changed[0]}' and 1 more under no name"):
        encoder(inked, backend)
    assert trt.exchanges == []
    assert np.allclose(encoder(base, backend).run(IDS), exact["pocket"], atol=1e-4)


def test_after_a_failed_exchange_all_of_it_is_sent_again(base, inked, cache, exact):
    trt, backend = backend_over(cache, refusing=True)
    with pytest.raises(DeviceError):
        encoder(inked, backend)
    trt.refusing = False
    assert np.allclose(encoder(base, backend).run(IDS), exact["pocket"], atol=1e-4)
    changed = sorted(changed_in(inked, base, TEXT))
    assert trt.exchanges == [changed, changed]  # a part of it may have been there


def test_without_a_refittable_plan_of_the_base_the_command_is_said(base, inked, tmp_path):
    write_refittable(base, tmp_path, target="tensorrt")  # faster, and of no use for LoRAs
    _, backend = backend_over(tmp_path)
    says = "'inked' has no TensorRT plan, and 'pocket' none whose weights can be exchanged"
    with pytest.raises(BundleError, match=says) as caught:
        encoder(inked, backend)
    assert "safelight export pocket --target tensorrt --refit" in caught.value.hint


def test_a_bundle_of_its_own_has_no_base(base, inked, tmp_path):
    assert base_of(base.model(TEXT)) == ("", "")
    assert base_of(inked.model(TEXT)) == ("pocket", base.hash)
    assert base_of(tmp_path / "unet" / "model.onnx") == ("", "")


def test_weights_that_a_derived_graph_rounded_are_found_by_their_first_name(tmp_path):
    from onnx import TensorProto, helper, numpy_helper, save

    def graph(folder, **weights):
        nodes = [helper.make_node("Identity", [each], [f"{each}/out"]) for each in weights]
        outs = [
            helper.make_tensor_value_info(f"{each}/out", TensorProto.FLOAT, None)
            for each in weights
        ]
        stored = [numpy_helper.from_array(array, name) for name, array in weights.items()]
        (tmp_path / folder).mkdir()
        file = tmp_path / folder / "model.onnx"
        save(helper.make_model(helper.make_graph(nodes, "g", [], outs, stored)), file)
        return file

    old, new = np.float32([1, 2.00001, 3]), np.float32([1, 2.00001, 4])
    steps = np.array([7], np.int64)
    typed = graph("typed", **{"a.weight/half": old.astype(np.float16), "b.weight": old, "n": steps})
    same = graph("same", **{"a.weight": old, "b.weight": old, "n": steps + 1})
    other = graph("other", **{"a.weight": new, "b.weight": new})
    assert Exchange(typed, same).changed == {}
    assert Exchange(typed, None).changed == {}
    found = Exchange(typed, other).changed
    assert {name: array.dtype for name, array in found.items()} == {
        "a.weight/half": np.float16,
        "b.weight": np.float32,
    }
    longer = graph("longer", **{"a.weight": np.zeros(4, np.float32)})
    with pytest.raises(BundleError, match=r"'a\.weight/half' has another shape"):
        _ = Exchange(typed, longer).changed


@pytest.mark.slow
def test_a_lora_s_weights_are_found_in_the_graphs_that_plans_are_built_of(base, inked, tmp_path):
    write_typed_graphs(base, tmp_path, progress=lambda *_: None)
    for part in PARTS:
        changed = changed_in(inked, base, part)
        exchange = Exchange(tmp_path / part / "model.onnx", inked.model(part))
        assert {name.removesuffix("/half") for name in exchange.changed} == changed
        assert Exchange(tmp_path / part / "model.onnx", base.model(part)).changed == {}


def test_a_plan_is_asked_for_the_names_that_it_has(base):
    trt = TensorRt(Cuda())
    refit = Refit(trt, _Logger(), Engine(trt, str(base.model(TEXT))), "text_encoder/model.plan")
    assert refit.names == set(read_onnx_graph(base.model(TEXT)).weights)


class _Logger:
    def log(self, *_):
        pass
