"""Devices are chosen by name, with a reason, and nothing falls back silently."""

import json
from dataclasses import replace

import pytest

from engine.backends.openvino import OpenVinoBackend
from engine.devices import DEVICES, PRECISIONS, choose, describe
from engine.errors import DeviceError, EngineError, RequestError


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
        ("openvino:GPU", "auto", "unknown device 'openvino:GPU'"),
        ("onnxruntime:0", "auto", "unknown device"),
        ("cuda:x", "auto", "unknown device 'cuda:x'"),
        ("tensorrt:0", "auto", "unknown device"),
        ("cpu", "fp8", "unknown precision 'fp8'"),
        ("cuda", "half", "unknown precision"),
    ],
)
def test_an_unknown_name_is_a_bad_value(device, precision, says):
    with pytest.raises(RequestError, match=says) as raised:
        choose(device, precision)
    assert raised.value.hint


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:3", "tensorrt"])
def test_a_card_is_never_replaced_by_the_cpu(device):
    with pytest.raises(DeviceError, match=f"device '{device}'") as raised:
        choose(device)
    kind = device.partition(":")[0]
    assert f"pip install 'safelight[{kind}]'" in raised.value.hint


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
