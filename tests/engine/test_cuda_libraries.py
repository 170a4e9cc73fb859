"""NVIDIA's libraries: what is said of a missing one; and, in an environment that has them, whether
they know our names, options and values.
"""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from engine.backends import cudadevice
from engine.backends.cudadevice import CudaDevice
from engine.backends.cudalibraries import (
    LIBRARIES,
    TENSORRT_10,
    missing_libraries,
    open_libraries,
)
from engine.errors import DeviceError, OutOfMemoryError

PYTHON = os.environ.get("SAFELIGHT_CUDA_PYTHON", "")
NEEDED = [each for each in LIBRARIES if not each.optional]


@pytest.mark.parametrize("library", NEEDED, ids=lambda each: each.name)
def test_a_missing_library_is_named_with_what_brings_it(library):
    found = {each.name: "" for each in LIBRARIES} | {library.name: f"{library.file} is missing"}
    error = missing_libraries(found)
    assert isinstance(error, DeviceError)
    assert f"library {library.name} cannot be used: {library.file} is missing" in str(error)
    assert error.hint.startswith(library.brings)


def test_the_libraries_of_tensorrt_are_asked_for_by_its_own_provider_alone():
    found = {each.name: "x" if each.optional else "" for each in LIBRARIES}
    assert missing_libraries(found) is None
    error = missing_libraries(found, also=TENSORRT_10)
    assert "the NVIDIA library nvinfer 10 cannot be used" in str(error)
    assert "pip install 'tensorrt-cu13-libs>=10,<11'" in error.hint
    assert set(TENSORRT_10) <= {each.name for each in LIBRARIES if each.optional}


@pytest.mark.skipif(sys.platform != "linux", reason="shared objects of Linux")
def test_a_library_that_is_there_and_does_not_open_says_why(tmp_path, monkeypatch):
    folder = tmp_path / "site-packages" / "nvidia" / "cu13" / "lib"
    folder.mkdir(parents=True)
    (folder / "libcurand.so.10").write_bytes(b"no library")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "site-packages")])
    assert "file too short" in open_libraries()["curand"]


class Status(int):
    name = "cudaErrorX"


class StandIn:
    """The CUDA runtime as far as CudaDevice calls it."""

    cudaStreamNonBlocking = 1  # noqa: N815  CUDA's names
    cudaEventDisableTiming = 2  # noqa: N815

    def __init__(self, cards=1, fails=""):
        self.cards, self.fails, self.calls = cards, fails, []

    def __getattr__(self, name):
        def call(*arguments):
            self.calls.append((name, *arguments))
            if name == self.fails:
                return (Status(2), None)
            results = {
                "cudaGetDeviceCount": (Status(0), self.cards),
                "cudaGetDeviceProperties": (
                    Status(0),
                    SimpleNamespace(name=b"A card", major=9, minor=0),
                ),
                "cudaStreamCreateWithFlags": (Status(0), 77),
                "cudaEventCreateWithFlags": (Status(0), f"event {len(self.calls)}"),
                "cudaMemGetInfo": (Status(0), 5, 9),
            }
            return results.get(name, (Status(0),))

        return call


def test_a_card_has_a_stream_and_events_that_are_used_again():
    cuda = StandIn(cards=2)
    card = CudaDevice(1, cuda)
    assert (card.name, card.stream, card.memory()) == ("A card sm_90", 77, (5, 9))
    for _ in range(5):
        card.wait(card.mark())
    assert sum(call[0] == "cudaEventCreateWithFlags" for call in cuda.calls) == 1
    assert [call for call in cuda.calls if call[0] == "cudaSetDevice"][-1] == ("cudaSetDevice", 1)


def test_a_card_that_is_not_there_is_named():
    with pytest.raises(DeviceError, match="no NVIDIA card 2; the driver finds 2") as caught:
        CudaDevice(2, StandIn(cards=2))
    assert caught.value.hint == "0 to 1 are there"


def test_what_a_card_says_becomes_one_sentence():
    with pytest.raises(OutOfMemoryError, match="cudaStreamCreateWithFlags failed: cudaErrorX"):
        CudaDevice(0, StandIn(fails="cudaStreamCreateWithFlags"))
    card = CudaDevice(0, StandIn())
    card._cuda = SimpleNamespace(cudaFoo=lambda: (Status(35),))
    with pytest.raises(DeviceError, match="cudaFoo failed"):
        card.call("cudaFoo")


def names_used():
    """Read the names of CUDA's runtime out of cudadevice.py."""
    tree = ast.parse(Path(cudadevice.__file__).read_text("utf-8"))
    texts = {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " not in node.value
    }
    attributes = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            owner = getattr(node.value, "attr", "")  # an enumeration's, or the module
            attributes.add(f"{owner}.{node.attr}" if owner.startswith("cuda") else node.attr)
    found = (each for each in texts | attributes if re.fullmatch(r"cuda[A-Z][A-Za-z.]+", each))
    return sorted(found)


def test_names_are_read_out_of_the_source():
    assert {"cudaEventRecord", "cudaMemGetInfo", "cudaStreamNonBlocking"} <= set(names_used())
    assert "cudaMemcpyKind.cudaMemcpyHostToDevice" in names_used()


CHILD = """
import json, sys
from functools import reduce
from pathlib import Path
from engine.backends.cudalibraries import open_libraries
found = open_libraries()
from cuda.bindings import runtime as cuda
from engine.backends.cuda import cuda_place
from engine.backends.onnxruntime import OnnxRuntimeBackend
from engine.backends.ortproviders import CUDA, Provider, cuda_provider
from engine.errors import DeviceError

model, names, wrong = json.loads(sys.argv[1])


def said(provider):
    try:
        OnnxRuntimeBackend(provider).open(Path(model), {"input_ids": (1, 32)})
    except DeviceError as error:
        return str(error)
    return "opened"


def changed(option):
    options = dict(usual.options) | option
    return said(Provider(name=CUDA, device="cuda:0", options=options, static=True))


usual = cuda_provider(0, 4096, graphs=True, exact=False)
try:
    place = cuda_place(0).name
except DeviceError as error:
    place = str(error)


def there(name):
    try:
        return bool(reduce(getattr, name.split("."), cuda)) or True
    except AttributeError:
        return False


print(json.dumps({
    "libraries": found,
    "missing": [name for name in names if not there(name)],
    "usual": [said(cuda_provider(0, 4096, graphs=g, exact=e)) for g in (0, 1) for e in (0, 1)],
    "wrong": [changed(each) for each in wrong],
    "place": place,
}))
"""
WRONG = {
    "prefer_nwhc": ("1", "Unknown provider option"),
    "arena_extend_strategy": ("kSameAsAsked", "Failed to map enum name to value"),
    "cudnn_conv_algo_search": ("EXHAUSTIV", "Failed to map enum name to value"),
    "enable_cuda_graph": ("maybe", "Failed to parse value"),
    "user_compute_stream": ("here", "Failed to parse value"),
}


@pytest.mark.gpu_libs
@pytest.mark.skipif(
    not PYTHON, reason="SAFELIGHT_CUDA_PYTHON names no environment with safelight[cuda]"
)
@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler for the stand-in")
@pytest.mark.skipif(sys.platform != "linux", reason="the stand-in is a shared object of Linux")
def test_the_real_provider_library_knows_every_option(tmp_path):
    """It parses its options before it asks for a card: a wrong name or value is told apart from
    "no driver". Of the driver it needs one function to be loaded at all.
    """
    (tmp_path / "driver.c").write_text("int cuTensorMapEncodeTiled(void) { return 999; }\n")
    library = ["-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", tmp_path / "libcuda.so.1"]
    subprocess.run(["cc", *library, tmp_path / "driver.c"], check=True, timeout=60)
    root = Path(cudadevice.__file__).parents[2]
    model = root / "safelight" / "models" / "pocket" / "text_encoder" / "model.onnx"
    wrong = [{name: value} for name, (value, _) in WRONG.items()]
    given = json.dumps([str(model), names_used(), wrong])
    ended = subprocess.run(
        [PYTHON, "-c", CHILD, given],
        check=False,  # looked at below
        env=os.environ | {"PYTHONPATH": str(root), "LD_LIBRARY_PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)  # so nothing else was printed: no warning, no falling back
    assert {each.name: told["libraries"][each.name] for each in NEEDED} == {
        each.name: "" for each in NEEDED
    }
    assert told["missing"] == []
    for each in told["usual"]:
        assert "CUDAExecutionProvider cannot load text_encoder/model.onnx" in each
        assert "CUDA failure 35" in each  # no driver: all options were read
    for (_, expected), each in zip(WRONG.values(), told["wrong"], strict=True):
        assert expected in each
    assert "cudaGetDeviceCount failed: cudaErrorInsufficientDriver" in told["place"]
