"""The TensorRT back end over stand-ins that compute: plans, both directions of a step, errors; and
its names in NVIDIA's real binding.
"""

import ast
import gc
import inspect
import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import safelight
from engine import Bundle, BundleError, DeviceError, Picture, Pipeline, choose
from engine.backends import tensorrt, tensorrtnetwork, tensorrtrefit
from engine.backends.cudadevice import CudaDevice
from engine.backends.onnxruntime import OnnxRuntimeBackend
from engine.backends.tensorrt import TensorRtBackend
from engine.backends.tensorrtnetwork import CudaValues, LoadedPlan, Network
from engine.derived import DerivedKey, write
from export.targets.step_graph import write_step
from tests.engine.tiny_graph import write_product
from tests.engine.trt_standin import Cuda, TensorRt

SIDE = 64


@pytest.fixture(scope="module")
def bundle():
    return Bundle.open(Path(safelight.__file__).parent / "models" / "pocket", hash_cache=None)


def write_plans(bundle, cache, *, step=True, device="stand-in sm_90", driver="13.2"):
    """Write a form whose plans are paths of graphs."""
    graphs = cache / "graphs"

    def fill(folder):
        for name in ("text_encoder", "unet", "vae_decoder"):
            (folder / name).mkdir()
            (folder / name / "model.plan").write_text(str(bundle.model(name)))
        if step:
            shutil.copytree(bundle.model("unet").parent, graphs, dirs_exist_ok=True)
            (folder / "unet" / "step.plan").write_text(str(write_step(graphs / "model.onnx")))
        return {}

    key = DerivedKey(
        identity=bundle.hash,
        target="tensorrt",
        precision="fp16",
        device=device,
        shapes=(),
        libraries={"tensorrt": "11.4", "driver": driver},
    )
    return write(cache, key, fill)


def backend_over(cache, cuda=None, **told):
    cuda = cuda or Cuda()
    return TensorRtBackend(TensorRt(cuda, **told), CudaDevice(0, cuda), cache, OnnxRuntimeBackend())


@pytest.fixture(scope="module")
def cache(bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("plans")
    write_plans(bundle, folder)
    return folder


def draw(bundle, backend, **given):
    usual = {"prompt": "red apple", "seed": 7, "steps": 3, "width": SIDE, "height": SIDE}
    events = Pipeline(bundle, backend).generate(bundle.request(**(usual | given)))
    return next(event for event in events if isinstance(event, Picture))


def test_whole_steps_by_a_plan_draw_what_the_loop_draws(bundle, cache):
    cuda = Cuda()
    got = draw(bundle, backend_over(cache, cuda))
    wanted = draw(bundle, OnnxRuntimeBackend())
    assert np.abs(got.pixels.astype(int) - wanted.pixels).max() <= 1
    assert got.reason.endswith("one plan a step, replayed as a CUDA graph")
    assert (got.backend, got.device, got.precision) == ("tensorrt", "cuda:0", "fp16")
    assert cuda.counts["cudaStreamBeginCapture"] == 2  # the two directions
    assert cuda.counts["cudaGraphLaunch"] >= 3


def test_row_by_row_the_unet_is_a_graph_too(bundle, cache):
    cuda = Cuda()
    got = draw(bundle, backend_over(cache, cuda), guidance_start=0.4)
    wanted = draw(bundle, OnnxRuntimeBackend(), guidance_start=0.4)
    assert np.abs(got.pixels.astype(int) - wanted.pixels).max() <= 1
    assert got.reason.endswith("the host runs each step: guidance ends within it")
    assert cuda.counts["cudaStreamBeginCapture"] == 1


def test_what_has_no_plan_runs_on_the_processor(bundle, cache):
    backend = backend_over(cache)
    session = backend.load(
        bundle.model("vae_encoder"),
        {"sample": (1, 3, SIDE, SIDE)},
        identity=f"{bundle.hash}/vae_encoder",
    )
    assert type(session).__name__ == "OnnxRuntimeSession"
    assert backend.mixed == "vae_encoder, where used, without a plan by onnxruntime fp32"
    assert backend_over(cache).exact().precision == "fp32"


def test_memory_of_a_card_is_given_back(tmp_path):
    cuda = Cuda()
    values = CudaValues(CudaDevice(0, cuda))
    value = values.empty((2, 3), np.float32)
    values.put(value, np.ones((2, 3), np.float32))
    assert values.get(value).tolist() == [[1, 1, 1], [1, 1, 1]]
    assert len(cuda.memory) == 1
    del values
    gc.collect()
    assert cuda.memory == {}


@pytest.mark.parametrize(
    ("told", "error", "says"),
    [
        ({"foreign": True}, DeviceError, "it is of another card or version"),
        ({"most": 8}, BundleError, r"was not built for 'input_ids' of \[1, 32\]"),
        ({"broken": True}, DeviceError, r"TensorRT failed on unet/step\.plan"),
    ],
    ids=["foreign", "too large", "broken"],
)
def test_what_goes_wrong_is_one_sentence(bundle, cache, told, error, says):
    with pytest.raises(error, match=says):
        draw(bundle, backend_over(cache, **told))


def test_a_plan_of_another_card_is_named_before_anything_runs(bundle, tmp_path):
    write_plans(bundle, tmp_path, step=False, device="another sm_80")
    with pytest.raises(BundleError, match="fits: its device is another sm_80, needed") as caught:
        draw(bundle, backend_over(tmp_path))
    assert "safelight export pocket --target tensorrt" in caught.value.hint


def test_a_plan_of_another_driver_is_not_used(bundle, tmp_path):
    write_plans(bundle, tmp_path, step=False, driver="13.0")
    with pytest.raises(BundleError, match=r"its libraries is driver 13\.0"):
        draw(bundle, backend_over(tmp_path))


def test_a_form_without_a_step_plan_runs_row_by_row(bundle, tmp_path):
    write_plans(bundle, tmp_path, step=False)
    assert draw(bundle, backend_over(tmp_path)).reason.endswith("has no step graph for it")


def test_inputs_that_are_not_known_are_refused(tmp_path):
    file = write_product(tmp_path / "model.onnx")
    cuda = Cuda()
    card = CudaDevice(0, cuda)
    plan = LoadedPlan(TensorRt(cuda), _Logger(), card, str(file).encode(), "n/model.plan")
    with pytest.raises(BundleError, match="input 'x' that nothing is known of"):
        Network(card, plan, {})


class _Logger:
    def log(self, *_):
        pass


@pytest.mark.skipif(find_spec("tensorrt") is not None, reason="TensorRT is installed here")
def test_without_the_package_the_pip_line_is_said():
    with pytest.raises(DeviceError, match="TensorRT cannot be loaded") as caught:
        tensorrt.load_tensorrt()
    assert "safelight[tensorrt]" in caught.value.hint
    with pytest.raises(DeviceError, match="tensorrt is not installed"):
        choose("tensorrt")


# What the names in the two modules stand for.
CLASSES = {
    "engine": "ICudaEngine",
    "_engine": "ICudaEngine",
    "_context": "IExecutionContext",
    "_runtime": "Runtime",
    "_refitter": "Refitter",
}


def names_used():
    """Read every attribute of TensorRT out of the modules: 'ICudaEngine.get_tensor_name', ..."""
    found = set()
    for module in (tensorrt, tensorrtnetwork, tensorrtrefit):
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            if not isinstance(node, ast.Attribute):
                continue
            inner = node.value
            name = getattr(inner, "attr", getattr(inner, "id", ""))
            if name in {"trt", "_trt"}:
                found.add(node.attr)
            elif name in CLASSES:
                found.add(f"{CLASSES[name]}.{node.attr}")
            elif name == "TensorIOMode":
                found.add(f"TensorIOMode.{node.attr}")
    return sorted(found)


def test_the_names_are_read_out_of_the_source():
    used = names_used()
    assert {"Runtime", "nptype", "Runtime.deserialize_cuda_engine"} <= set(used)
    assert {"IExecutionContext.execute_async_v3", "ICudaEngine.num_io_tensors"} <= set(used)
    assert "IExecutionContext.set_tensor_address" in used
    assert {"Refitter", "Weights", "ICudaEngine.refittable"} <= set(used)
    assert {"Refitter.set_named_weights", "Refitter.refit_cuda_engine"} <= set(used)


PYTHON = os.environ.get("SAFELIGHT_CUDA_PYTHON", "")
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
import tensorrt_bindings as trt
from cuda.bindings import runtime as cuda
missing = []
for name in json.loads(sys.argv[1]):
    try:
        reduce(getattr, name.split("."), trt)
    except AttributeError:
        missing.append(name)
for name in json.loads(sys.argv[2]):
    try:
        reduce(getattr, name.split("."), cuda)
    except AttributeError:
        missing.append(name)
print(json.dumps(missing))
"""
CUDA_NAMES = (
    "cudaMalloc",
    "cudaFree",
    "cudaMemcpyAsync",
    "cudaMemcpyKind.cudaMemcpyHostToDevice",
    "cudaMemcpyKind.cudaMemcpyDeviceToHost",
    "cudaStreamBeginCapture",
    "cudaStreamCaptureMode.cudaStreamCaptureModeRelaxed",
    "cudaStreamEndCapture",
    "cudaGraphInstantiate",
    "cudaGraphLaunch",
    "cudaStreamSynchronize",
)


@pytest.mark.gpu_libs
@pytest.mark.skipif(not PYTHON, reason="SAFELIGHT_CUDA_PYTHON names no environment with bindings")
@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler for the stand-ins")
def test_every_name_is_in_the_real_bindings(tmp_path):
    code = "".join(f"void *{name}(void) {{ return 0; }}\n" for name in FUNCTIONS)
    (tmp_path / "stand_in.c").write_text(code)
    for library in ("nvinfer", "nvinfer_plugin", "nvonnxparser"):
        out = ["-shared", "-fPIC", "-o", tmp_path / f"lib{library}.so.11"]
        subprocess.run(["cc", *out, tmp_path / "stand_in.c"], check=True, timeout=60)
    ended = subprocess.run(
        [PYTHON, "-c", CHILD, json.dumps(names_used()), json.dumps(CUDA_NAMES)],
        check=False,  # looked at below
        env=os.environ | {"LD_LIBRARY_PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout) == []
    assert sys.platform == "linux"
