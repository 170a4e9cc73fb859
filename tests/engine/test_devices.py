"""Devices are chosen by name, with a reason, and nothing falls back silently."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import onnxruntime
import pytest

from engine.backends.onnxruntime import OnnxRuntimeBackend
from engine.backends.openvino import OpenVinoBackend
from engine.backends.ortproviders import Provider
from engine.devices import DEVICES, PRECISIONS, choose, describe
from engine.errors import DeviceError, EngineError, RequestError
from tests.engine.tiny_graph import DEPTH, write_product


@pytest.fixture(scope="module")
def capabilities():
    return OpenVinoBackend("fp32", None).capabilities


def test_auto_takes_openvino_in_the_fastest_honest_precision(capabilities):
    choice = choose()
    assert choice.backend.name == "openvino"
    bf16 = "BF16" in capabilities
    assert choice.backend.precision == ("bf16" if bf16 else "fp32")
    assert choice.reason.startswith("OpenVINO, ")
    assert ("has bf16" if bf16 else "has no bf16") in choice.reason


@pytest.mark.parametrize(
    ("device", "name"),
    [
        ("cpu", "openvino"),
        ("openvino", "openvino"),
        ("openvino:CPU", "openvino"),
        ("onnxruntime", "onnxruntime"),
        ("onnxruntime:CPU", "onnxruntime"),
    ],
)
def test_a_device_by_name_in_fp32(device, name, tmp_path):
    choice = choose(device, "fp32", tmp_path)
    assert (choice.backend.name, choice.backend.device, choice.backend.precision) == (
        name,
        "CPU",
        "fp32",
    )
    assert "fp32" in choice.reason
    assert list(tmp_path.iterdir()) == []  # choosing writes nothing


@pytest.mark.parametrize(
    ("device", "precision", "says"),
    [
        ("cpuu", "auto", "did you mean 'cpu'"),
        ("", "auto", "unknown device ''"),
        ("cpu:1", "auto", "unknown device 'cpu:1'"),
        ("auto:CPU", "auto", "unknown device"),
        ("openvino:GPUU", "auto", "did you mean 'openvino:GPU'"),
        ("openvino:AUTO", "auto", "unknown device 'openvino:AUTO'"),
        ("openvino:", "auto", "unknown device 'openvino:'"),
        ("openvino:MULTI:GPU,CPU", "auto", "unknown device"),
        ("coreml:1", "auto", "unknown device 'coreml:1'; did you mean 'coreml'"),
        ("directml:x", "auto", "unknown device"),
        ("torch:x", "auto", "unknown device"),
        ("Cuda", "auto", "did you mean 'cuda'"),
        ("onnxruntime:0", "auto", "unknown device"),
        ("cuda:x", "auto", "unknown device 'cuda:x'"),
        ("tensorrt:x", "auto", "unknown device"),
        ("cpu", "fp8", "unknown precision 'fp8'"),
        ("cuda", "half", "unknown precision"),
    ],
)
def test_an_unknown_name_is_a_bad_value(device, precision, says):
    with pytest.raises(RequestError, match=says) as raised:
        choose(device, precision)
    assert raised.value.hint


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:3", "tensorrt", "tensorrt:1"])
def test_a_card_is_never_replaced_by_the_cpu(device):
    with pytest.raises(DeviceError, match=f"device '{device}'") as raised:
        choose(device)
    kind = device.partition(":")[0]
    assert f"pip install 'safelight[{kind}]'" in raised.value.hint
    library = {"cuda": "onnxruntime-gpu", "tensorrt": "tensorrt"}[kind]
    assert (f"{library} is not installed" in str(raised.value)) == (not installed(library))


def installed(distribution):
    try:
        return bool(version(distribution))
    except PackageNotFoundError:
        return False


@pytest.mark.parametrize(
    ("device", "says"),
    [
        ("openvino:GPU", "OpenVINO finds no GPU here; it has"),
        ("openvino:gpu.3", "OpenVINO finds no GPU.3 here; it has"),
        ("openvino:NPU", "OpenVINO finds no NPU here; it has"),
        ("coreml", "no CoreMLExecutionProvider; it has"),
        ("directml", "no DmlExecutionProvider; it has"),
        ("directml:1", "no DmlExecutionProvider; it has"),
    ],
)
def test_what_is_not_here_is_named_with_what_it_needs(device, says):
    name = device.upper().partition(":")[2]
    if name and name in describe("cpu", "fp32").get("OpenVINO devices", ()):
        pytest.skip("this machine has the device")
    provider = says.split()[1].rstrip(";")
    if provider in onnxruntime.get_available_providers():
        pytest.skip("this build has the provider")
    with pytest.raises(DeviceError, match=says) as raised:
        choose(device)
    assert raised.value.hint


def test_a_library_that_does_not_work_is_passed_over_by_auto_alone_and_named(tmp_path):
    """A broken OpenVINO in front of the real one, in a process of its own."""
    (tmp_path / "openvino").mkdir()
    (tmp_path / "openvino" / "__init__.py").write_text("raise ImportError('libhwloc is missing')")
    program = (
        "from engine import DeviceError, choose\n"
        "for device in ('auto', 'cpu'):\n"
        "    choice = choose(device)\n"
        "    print(choice.backend.name, choice.reason)\n"
        "try:\n"
        "    choose('openvino')\n"
        "except DeviceError as error:\n"
        "    print(error, error.hint)\n"
    )
    path = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    first, second, third = done.stdout.splitlines()
    for line in (first, second):
        assert line.startswith("onnxruntime ONNX Runtime, CPU, fp32: OpenVINO is passed over")
        assert "libhwloc is missing" in line
    assert "OpenVINO cannot be loaded: libhwloc is missing" in third
    assert "safelight[cpu]" in third


def test_a_provider_that_does_not_take_the_whole_graph_is_an_error_not_the_cpu(tmp_path):
    """Azure's provider is in every build, can be asked for, and computes none of this."""
    azure = Provider(name="AzureExecutionProvider", device="azure")
    if azure.name not in onnxruntime.get_available_providers():
        pytest.skip("this build has no such provider")
    model = write_product(tmp_path / "unet" / "model.onnx")
    with pytest.raises(DeviceError, match="AzureExecutionProvider") as raised:
        OnnxRuntimeBackend(azure).load(model, {"x": (2, DEPTH)})
    assert raised.value.hint


def test_a_static_provider_gets_its_sizes_written_into_the_graph(tmp_path):
    model = write_product(tmp_path / "unet" / "model.onnx")
    backend = OnnxRuntimeBackend(Provider(static=True), threads=1)
    x = np.ones((2, DEPTH), dtype=np.float32)
    expected = OnnxRuntimeBackend(threads=1).load(model, {"x": x.shape}).run({"x": x})
    assert np.array_equal(backend.load(model, {"x": x.shape}).run({"x": x}), expected)
    session = backend.load(model, {"x": x.shape})
    assert session._session.get_inputs()[0].shape == [2, DEPTH]  # and not ["batch", DEPTH]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_precision_that_cannot_be_had_is_not_replaced(precision, capabilities):
    with pytest.raises(DeviceError, match=precision):
        choose("onnxruntime", precision)
    if precision.upper() not in capabilities:
        with pytest.raises(DeviceError, match=precision):
            choose("cpu", precision)


def test_a_choice_is_frozen():
    assert replace(choose("onnxruntime"), reason="x").reason == "x"
    with pytest.raises(AttributeError):
        choose("onnxruntime").reason = "x"


def test_the_description_is_json_and_says_what_would_run():
    facts = describe("cpu", "fp32")
    json.dumps(facts)
    assert facts["chosen"] == "openvino CPU fp32"
    assert facts["reason"].startswith("OpenVINO")
    assert facts["cores"] >= 1
    assert facts["libraries"]["onnxruntime"][0].isdigit()
    assert "FP32" in facts["arithmetic"]


@pytest.mark.parametrize("device", [*DEVICES, "cuda:0", "nonsense"])
@pytest.mark.parametrize("precision", [*PRECISIONS, "nonsense"])
def test_the_description_never_raises_and_agrees_with_the_choice(device, precision):
    facts = describe(device, precision)
    try:
        backend = choose(device, precision).backend
        chosen, reason = f"{backend.name} {backend.device} {backend.precision}", ""
    except EngineError as error:
        chosen, reason = "nothing", str(error)
    assert facts["chosen"] == chosen
    assert reason in facts["reason"]
