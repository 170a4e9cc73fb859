"""Plans: what is asked of TensorRT, by a stand-in that notes it; and the names, in the real one."""

import ast
import inspect
import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from types import SimpleNamespace

import onnxruntime
import pytest

from engine.errors import DeviceError
from export.errors import GraphError
from export.targets import epcontext, plan, refit, tensorrt
from export.targets.plan import PlanOptions, build_plan, context_options, write_context_model
from export.targets.profile import ShapeRange

RANGES = {"sample": ShapeRange(least=(1, 4, 8, 8), best=(2, 4, 8, 8), most=(2, 4, 16, 16))}
TIMINGS = b"timings of this card"


class Plan(bytes):
    nbytes = property(len)


class StandIn:
    """TensorRT as far as a plan needs it. It keeps the calls; what it cannot do is set."""

    BuilderFlag = SimpleNamespace(REFIT="REFIT", TF32="TF32")
    MemoryPoolType = SimpleNamespace(WORKSPACE="WORKSPACE")
    NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)

    class ILogger:
        Severity = SimpleNamespace(ERROR="ERROR", INTERNAL_ERROR="INTERNAL_ERROR")

    def __init__(self, *, card=True, complaints=(), builds=True, other_card=False):
        self.calls = []
        self.levels = []
        self.card, self.complaints, self.builds = card, complaints, builds
        self.refused = [other_card]

    def note(self, *call):
        self.calls.append(call)

    def Builder(self, logger):  # noqa: N802  TensorRT's name
        if not self.card:
            raise TypeError("pybind11::init(): factory function returned nullptr")
        return SimpleNamespace(
            create_network=lambda flags: self.note("network", flags),
            create_builder_config=self.config,
            create_optimization_profile=lambda: SimpleNamespace(
                set_shape=lambda *args: self.note("shape", *args)
            ),
            build_serialized_network=lambda network, config: self.build(logger, config),
        )

    def OnnxParser(self, network, logger):  # noqa: N802  TensorRT's name
        return SimpleNamespace(
            parse_from_file=lambda path: not self.complaints,
            num_errors=len(self.complaints),
            get_error=lambda place: SimpleNamespace(desc=lambda: self.complaints[place]),
        )

    def config(self):
        return SimpleNamespace(
            add_optimization_profile=lambda profile: self.note("profile"),
            clear_flag=lambda flag: self.note("clear", flag),
            set_flag=lambda flag: self.note("set", flag),
            set_memory_pool_limit=lambda *args: self.note("pool", *args),
            create_timing_cache=lambda data: self.note("timings", bytes(data)) or "cache",
            set_timing_cache=self.attach,
            get_timing_cache=lambda: SimpleNamespace(serialize=lambda: TIMINGS),
        )

    def attach(self, cache, *, ignore_mismatch):
        assert not ignore_mismatch
        return not self.refused.pop() if self.refused else True

    def build(self, logger, config):
        self.levels.append(config.builder_optimization_level)
        if not self.builds:
            logger.log("WARNING", "a hint")
            logger.log("ERROR", "no kernel for this")
            return None
        return Plan(b"plan")


def build(trt, folder, options=plan.USUAL):
    return build_plan(trt, folder / "unet/model.onnx", folder / "model.plan", RANGES, options)


def test_a_plan_is_strongly_typed_between_its_shapes_and_without_tf32(tmp_path):
    trt = StandIn()
    assert build(trt, tmp_path) == 4
    assert (tmp_path / "model.plan").read_bytes() == b"plan"
    assert ("network", 2) in trt.calls  # 1 << STRONGLY_TYPED
    assert ("shape", "sample", (1, 4, 8, 8), (2, 4, 8, 8), (2, 4, 16, 16)) in trt.calls
    assert ("profile",) in trt.calls
    assert ("clear", "TF32") in trt.calls
    assert not any(call[0] in {"set", "pool", "timings"} for call in trt.calls)


def test_options_are_passed_on(tmp_path):
    trt = StandIn()
    build(trt, tmp_path, PlanOptions(refittable=True, level=5, workspace=1 << 30))
    assert ("set", "REFIT") in trt.calls
    assert ("pool", "WORKSPACE", 1 << 30) in trt.calls
    assert trt.levels == [5]


def test_timings_are_kept_and_given_again(tmp_path):
    options = PlanOptions(timing_cache=tmp_path / "timings")
    first, second = StandIn(), StandIn()
    build(first, tmp_path, options)
    build(second, tmp_path, options)
    assert ("timings", b"") in first.calls
    assert ("timings", TIMINGS) in second.calls
    assert sorted(each.name for each in tmp_path.iterdir()) == ["model.plan", "timings"]


def test_timings_of_another_card_are_not_used(tmp_path):
    (tmp_path / "timings").write_bytes(b"of another card")
    trt = StandIn(other_card=True)
    build(trt, tmp_path, PlanOptions(timing_cache=tmp_path / "timings"))
    given = [call[1] for call in trt.calls if call[0] == "timings"]
    assert given == [b"of another card", b""]
    assert (tmp_path / "timings").read_bytes() == TIMINGS


@pytest.mark.parametrize(
    ("trt", "error", "text"),
    [
        (StandIn(card=False), DeviceError, "finds no NVIDIA card"),
        (StandIn(complaints=["unknown operator"]), GraphError, "unet/model.onnx: unknown operator"),
        (StandIn(builds=False), GraphError, "no kernel for this"),
    ],
)
def test_what_goes_wrong_is_one_sentence_and_no_plan(tmp_path, trt, error, text):
    with pytest.raises(error, match=text):
        build(trt, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(find_spec("tensorrt") is not None, reason="TensorRT is installed here")
def test_without_tensorrt_the_pip_line_is_said():
    with pytest.raises(DeviceError, match="needs the package `tensorrt`") as caught:
        plan.load_tensorrt()
    assert "pip install 'safelight[tensorrt]'" in caught.value.hint
    with pytest.raises(DeviceError, match="needs the package `tensorrt`"):
        tensorrt.device()


@pytest.mark.skipif(
    plan.PROVIDER in onnxruntime.get_available_providers(), reason="this ONNX Runtime has it"
)
def test_without_the_provider_no_context_model_is_tried(tmp_path):
    with pytest.raises(DeviceError, match="has no TensorrtExecutionProvider") as caught:
        write_context_model(tmp_path / "model.onnx", tmp_path / "context.onnx", RANGES)
    assert "safelight[cuda]" in caught.value.hint


def test_the_provider_gets_the_same_profile(tmp_path):
    options = PlanOptions(timing_cache=tmp_path / "timings")
    given = context_options(tmp_path / "context.onnx", RANGES, options)
    assert given["trt_profile_min_shapes"] == "sample:1x4x8x8"
    assert given["trt_profile_opt_shapes"] == "sample:2x4x8x8"
    assert given["trt_profile_max_shapes"] == "sample:2x4x16x16"
    assert given["trt_timing_cache_path"] == str(tmp_path)
    assert all(isinstance(value, str) for value in given.values())  # ORT takes nothing else


def test_a_refittable_form_is_the_target_s_with_that_one_option(monkeypatch, tmp_path):
    asked = []

    def build(*_, options, **__):
        asked.append(options)
        return {}

    monkeypatch.setattr(tensorrt, "build", build)
    timings = tmp_path / "timings"
    refit.build(None, tmp_path, progress=print, options=PlanOptions(timing_cache=timings))
    refit.build(None, tmp_path, progress=print)
    assert asked == [
        PlanOptions(refittable=True, timing_cache=timings),
        PlanOptions(refittable=True),
    ]


def test_what_overflows_in_fp16_gets_no_context_model():
    good = {"fp32_because": {"angle": 9, "normalisation": 40}}
    masked = {"fp32_because": {"range": 3}}
    assert epcontext.overflowing({"unet": good, "vae_decoder": good}) == {}
    found = epcontext.overflowing({"text_encoder": masked, "unet": good})
    assert list(found) == ["text_encoder"]
    with pytest.raises(GraphError, match="in the unet 3 nodes have numbers that are too large"):
        epcontext.overflowing({"unet": masked})


# What the names in plan.py stand for, and what its calls give.
CLASSES = {
    "builder": "Builder",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "config": "IBuilderConfig",
    "profile": "IOptimizationProfile",
    "made": "IHostMemory",
}
RESULTS = {"get_error": "ParserError", "get_timing_cache": "ITimingCache"}


def names_used():
    """Read out of plan.py every attribute of TensorRT: 'Builder.create_network', ..."""
    found = set()
    for node in ast.walk(ast.parse(inspect.getsource(plan))):
        if isinstance(node, ast.Attribute):
            parts, inner = [node.attr], node.value
            while isinstance(inner, ast.Attribute):
                parts.insert(0, inner.attr)
                inner = inner.value
            if isinstance(inner, ast.Name) and inner.id == "trt":
                found.add(".".join(parts))
            elif isinstance(inner, ast.Name) and inner.id in CLASSES:
                found.add(".".join([CLASSES[inner.id], *parts]))
            elif isinstance(inner, ast.Call) and isinstance(inner.func, ast.Attribute):
                owner = RESULTS.get(inner.func.attr)
                found |= {".".join([owner, *parts])} if owner else set()
    return found


def test_the_names_used_are_read_out_of_the_source():
    used = names_used()
    assert {"Builder", "Builder.create_network", "OnnxParser.parse_from_file"} <= used
    assert {"ITimingCache.serialize", "ParserError.desc", "IHostMemory.nbytes"} <= used
    assert {"BuilderFlag.TF32", "ILogger.Severity.ERROR", "IOptimizationProfile.set_shape"} <= used
    assert len(used) >= 25


# TensorRT's binding needs three libraries that are not on the index, and of them these functions.
LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")
FUNCTIONS = (
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "getBuilderPluginRegistry",
    "getNvOnnxParserVersion",
    "getPluginRegistry",
    "initLibNvInferPlugins",
)
CHILD = """
import json, sys
from functools import reduce
from pathlib import Path
import tensorrt_bindings as trt
from engine.errors import DeviceError
from export.targets.plan import build_plan

missing = []
for name in json.loads(sys.argv[1]):
    try:
        reduce(getattr, name.split("."), trt)
    except AttributeError:
        missing.append(name)
try:
    build_plan(trt, Path("model.onnx"), Path("model.plan"), {})
    said = "built"
except DeviceError as error:
    said = str(error)
print(json.dumps({
    "version": trt.__version__,
    "missing": missing,
    "said": said,
    "set_timing_cache": trt.IBuilderConfig.set_timing_cache.__doc__,
    "set_shape": trt.IOptimizationProfile.set_shape.__doc__,
}))
"""


@pytest.mark.gpu_libs
@pytest.mark.skipif(
    find_spec("tensorrt_bindings") is None,
    reason="tensorrt-cu13-bindings is not installed: pip install --no-deps tensorrt-cu13-bindings",
)
@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler for the stand-ins")
@pytest.mark.skipif(sys.platform != "linux", reason="the stand-ins are shared objects of Linux")
def test_every_name_is_in_the_real_binding(tmp_path):
    code = "".join(f"void *{name}(void) {{ return 0; }}\n" for name in FUNCTIONS)
    (tmp_path / "stand_in.c").write_text(code)
    for library in LIBRARIES:
        out = tmp_path / f"lib{library}.so.11"
        subprocess.run(
            ["cc", "-shared", "-fPIC", "-o", out, tmp_path / "stand_in.c"], check=True, timeout=60
        )
    paths = {"PYTHONPATH": os.pathsep.join(sys.path), "LD_LIBRARY_PATH": str(tmp_path)}
    ended = subprocess.run(
        [sys.executable, "-c", CHILD, json.dumps(sorted(names_used()))],
        check=False,  # looked at below
        env=os.environ | paths,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    assert int(told["version"].partition(".")[0]) >= plan.LEAST_VERSION
    assert told["missing"] == []
    assert "ignore_mismatch: bool" in told["set_timing_cache"]
    assert all(f"{name}: tensorrt" in told["set_shape"] for name in ("min", "opt", "max"))
    # The real binding, whose library gives it no builder: as on a machine without a card.
    assert "finds no NVIDIA card" in told["said"]
