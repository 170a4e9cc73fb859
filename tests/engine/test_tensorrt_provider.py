"""ONNX Runtime's real TensorRT provider over stand-ins for the driver and for TensorRT 10, which is
not on the index: the provider loads, and reads its options before it asks for a card.

It takes an environment with `safelight[cuda]`, named by SAFELIGHT_CUDA_PYTHON, and no card.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import safelight

PYTHON = os.environ.get("SAFELIGHT_CUDA_PYTHON", "")
ROOT = Path(safelight.__file__).parents[1]
# The provider asks the plugin registry for its creators while it loads: a table of methods, each of
# which says that there are none.
TENSORRT = """
static void *none(void *self, int *count) { *count = 0; return 0; }
static void *methods[64];
static void **registry = methods;
void *getPluginRegistry(void) {
    for (int place = 0; place < 64; place++) methods[place] = none;
    return &registry;
}
int getInferLibVersion(void) { return 101302; }
void *createInferBuilder_INTERNAL(void) { return 0; }
void *createInferRefitter_INTERNAL(void) { return 0; }
void *createInferRuntime_INTERNAL(void) { return 0; }
void *createNvOnnxParser_INTERNAL(void) { return 0; }
void *createNvOnnxParserRefitter_INTERNAL(void) { return 0; }
"""
DRIVER = "int cuTensorMapEncodeTiled(void) { return 999; }\n"
CHILD = """
import json, sys
from pathlib import Path
from engine.backends.cudalibraries import open_libraries, tensorrt_10_version
from engine.backends.epcontext import context_place
from engine.backends.onnxruntime import OnnxRuntimeBackend
from engine.backends.ortproviders import TENSORRT, Provider, tensorrt_provider
from engine.devices import choose
from engine.errors import DeviceError
from export.targets.plan import PlanOptions, check_provider, context_options
from export.targets.profile import ShapeRange

model, wrong = json.loads(sys.argv[1])
found = open_libraries()


def said(options):
    provider = Provider(name=TENSORRT, device="cuda:0", options=options)
    try:
        OnnxRuntimeBackend(provider).open(Path(model), {"input_ids": (1, 32)})
    except DeviceError as error:
        return str(error)
    return "opened"


def refused(make):
    try:
        return str(make())
    except DeviceError as error:
        return f"{error} ({error.hint})"


ranges = {"input_ids": ShapeRange(least=(1, 32), best=(1, 32), most=(2, 32))}
building = context_options(Path("ctx.onnx"), ranges, PlanOptions(timing_cache=Path("t/timings")))
running = dict(tensorrt_provider(0, 4096, graphs=True).options)
check_provider()
print(json.dumps({
    "libraries": {name: why for name, why in found.items() if why},
    "version": tensorrt_10_version(),
    "running": [
        said(dict(tensorrt_provider(0, 4096, graphs=each).options)) for each in (False, True)
    ],
    "building": said(building),
    "each": {name: said({name: value}) for name, value in (building | running).items()},
    "wrong": [said(running | each) for each in wrong],
    "place": refused(lambda: context_place(0)),
    "chosen": [refused(lambda: choose(each)) for each in ("tensorrt", "onnxruntime:TENSORRT")],
}))
"""
WRONG = (
    ({"trt_ep_contxt_file_path": "x"}, "Invalid TensorRT EP option: trt_ep_contxt_file_path"),
    ({"has_user_compute_stream": "1"}, "Invalid TensorRT EP option: has_user_compute_stream"),
    ({"trt_cuda_graph_enable": "1"}, "'trt_cuda_graph_enable' should be 'True' or 'False'"),
    ({"trt_dump_ep_context_model": "1"}, "should be 'True' or 'False'"),
    ({"trt_builder_optimization_level": "high"}, "stoi"),
)

pytestmark = [
    pytest.mark.gpu_libs,
    pytest.mark.skipif(not PYTHON, reason="SAFELIGHT_CUDA_PYTHON names no environment with [cuda]"),
    pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler"),
    pytest.mark.skipif(sys.platform != "linux", reason="the stand-ins are libraries of Linux"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Stand-ins, where the loader looks first."""
    made = tmp_path_factory.mktemp("standin")
    for name, code in (
        ("libcuda.so.1", DRIVER),
        ("libnvinfer.so.10", TENSORRT),
        ("libnvonnxparser.so.10", TENSORRT),
    ):
        source = made / f"{name}.c"
        source.write_text(code)
        out = ["-shared", "-fPIC", "-w", f"-Wl,-soname,{name}", "-o", made / name]
        subprocess.run(["cc", *out, source], check=True, timeout=60)
    return made


def told_by(folder, without=""):
    model = ROOT / "safelight" / "models" / "pocket" / "text_encoder" / "model.onnx"
    given = json.dumps([str(model), [option for option, _ in WRONG]])
    if without:
        (folder / without).rename(folder / f"{without}.away")
    try:
        return subprocess.run(
            [PYTHON, "-c", CHILD, given],
            check=False,  # looked at below
            env=os.environ | {"PYTHONPATH": str(ROOT), "LD_LIBRARY_PATH": str(folder)},
            capture_output=True,
            text=True,
            timeout=240,
        )
    finally:
        if without:
            (folder / f"{without}.away").rename(folder / without)


def test_the_real_provider_knows_every_option_and_value(folder):
    ended = told_by(folder)
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)  # so nothing else was printed: no warning, no falling back
    assert set(told["libraries"]) == {"nvinfer"}  # TensorRT 11, which this way does without
    assert told["version"] == "10.13.2"
    no_driver = "CUDA failure 35"  # all options were read by then
    for each in (*told["running"], told["building"], *told["each"].values()):
        assert each.startswith("TensorrtExecutionProvider cannot load text_encoder/model.onnx")
        assert no_driver in each, told["each"]
    for (_, expected), each in zip(WRONG, told["wrong"], strict=True):
        assert expected in each
        assert no_driver not in each
    for each in (told["place"], *told["chosen"]):
        assert "cudaGetDeviceCount failed: cudaErrorInsufficientDriver" in each


@pytest.mark.parametrize("library", ["libnvinfer.so.10", "libnvonnxparser.so.10"])
def test_a_missing_library_of_tensorrt_10_is_named_with_its_pip_line(folder, library):
    ended = told_by(folder, without=library)
    assert ended.returncode != 0
    last = ended.stderr.strip().splitlines()[-1]
    assert f"cannot be used: {library} is not installed" in last
