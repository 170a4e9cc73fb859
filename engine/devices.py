"""Which back end computes, on what, in which precision, and why: decided once and said aloud."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from engine.cores import physical_cores
from engine.errors import DeviceError, EngineError, RequestError, unknown_name

if TYPE_CHECKING:
    from engine.backends import Backend
    from engine.backends.openvino import OpenVinoBackend

__all__ = ["DEVICES", "PRECISIONS", "Choice", "choose", "describe"]

DEVICES: Final = ("auto", "cpu", "cuda", "onnxruntime", "openvino", "tensorrt")
PRECISIONS: Final = ("auto", "bf16", "fp16", "fp32", "int8")
NVIDIA_DRIVER: Final = Path("/proc/driver/nvidia/version")
_CPU_NAMES: Final = ("", "CPU")
_PIP: Final = {
    "cuda": "pip install 'safelight[cuda]'",
    "tensorrt": "pip install 'safelight[tensorrt]'",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """A back end and the reason for it, in one line that a user can read."""

    backend: "Backend"
    reason: str


def choose(device: str = "auto", precision: str = "auto", cache_dir: Path | None = None) -> Choice:
    """Pick the back end for `device` and `precision`; nothing falls back silently.

    device: auto, cpu (the fastest for the processor), openvino[:CPU], onnxruntime[:CPU], cuda[:n],
    tensorrt. precision: auto, fp32, bf16, fp16, int8 (a form made before; on
    OpenVINO). cache_dir: where compiled models and derived forms are kept.
    Raises RequestError for unknown names and DeviceError for what cannot be used here.
    """
    kind, _, which = device.partition(":")
    if kind not in DEVICES:
        raise unknown_name("device", device, DEVICES)
    if precision not in PRECISIONS:
        raise unknown_name("precision", precision, PRECISIONS)
    if kind in _PIP:
        raise _no_card(device, kind, which)
    if which not in (_CPU_NAMES if kind in {"onnxruntime", "openvino"} else ("",)):
        raise RequestError(
            f"unknown device '{device}'", hint="auto, cpu, openvino:CPU, onnxruntime:CPU, cuda:0"
        )
    if kind == "onnxruntime":
        return _onnxruntime(precision, "asked for")
    if kind == "openvino":
        return _openvino(precision, cache_dir, "asked for")
    note = _card_note() if kind == "auto" else ""
    if find_spec("openvino") is not None:
        return _openvino(precision, cache_dir, "the fastest on a processor" + note)
    if find_spec("onnxruntime") is not None:
        return _onnxruntime(precision, "OpenVINO is not installed" + note)
    raise DeviceError(
        "neither OpenVINO nor ONNX Runtime is installed", hint="pip install 'safelight[cpu]'"
    )


def describe(device: str, precision: str, cache_dir: Path | None = None) -> dict[str, Any]:
    """Say what there is to compute with and what would be chosen; it raises nothing.

    The values are texts, numbers, lists or dicts of them, ready for JSON.
    """
    facts: dict[str, Any] = {
        "processor": platform.processor() or platform.machine(),
        "cores": physical_cores(),
        "libraries": _libraries(),
        "NVIDIA driver": _driver(),
    }
    if find_spec("openvino") is not None:
        facts |= _openvino_facts()
    try:
        choice = choose(device, precision, cache_dir)
    except EngineError as error:
        facts["chosen"] = "nothing"
        facts["reason"] = f"{error} ({error.hint})" if error.hint else str(error)
        return facts
    facts["chosen"] = f"{choice.backend.name} {choice.backend.device} {choice.backend.precision}"
    facts["reason"] = choice.reason
    return facts


def _openvino(precision: str, cache_dir: Path | None, why: str) -> Choice:
    from engine.backends.openvino import OpenVinoBackend

    if precision == "int8":
        backend = OpenVinoBackend(precision, cache_dir)
        why += f"; approximate: the unet in 8-bit integers, the rest in {backend.hint}"
        return Choice(backend=backend, reason=_openvino_reason(backend, why))
    if precision != "auto":
        backend = OpenVinoBackend(precision, cache_dir)
        return Choice(backend=backend, reason=_openvino_reason(backend, why))
    backend = OpenVinoBackend("fp32", cache_dir)
    if "BF16" not in backend.capabilities:
        note = "the processor has no bf16 arithmetic"
    else:
        backend = OpenVinoBackend("bf16", cache_dir)
        note = "the processor has bf16 arithmetic"
    return Choice(backend=backend, reason=_openvino_reason(backend, f"{why}; {note}"))


def _openvino_reason(backend: "OpenVinoBackend", why: str) -> str:
    return f"OpenVINO, {backend.processor}, {backend.precision}: {why}"


def _onnxruntime(precision: str, why: str) -> Choice:
    from engine.backends.onnxruntime import OnnxRuntimeBackend

    if precision not in {"auto", "fp32"}:
        raise DeviceError(
            f"ONNX Runtime does not compute in {precision} on a processor",
            hint="--precision fp32, or --device openvino",
        )
    backend = OnnxRuntimeBackend()
    return Choice(backend=backend, reason=f"ONNX Runtime, CPU, fp32: {why}")


def _no_card(device: str, kind: str, which: str) -> EngineError:
    if which and not (kind == "cuda" and which.isdecimal()):
        return RequestError(f"unknown device '{device}'", hint="cuda, cuda:0, cuda:1, tensorrt")
    card = "there is an NVIDIA driver" if NVIDIA_DRIVER.exists() else "no NVIDIA driver was found"
    return DeviceError(
        f"device '{device}' cannot be used: {card}, and this version has no back end for it",
        hint=f"{_PIP[kind]} is where its libraries come from; --device cpu works now",
    )


def _card_note() -> str:
    return (
        "; an NVIDIA card is here, and not used in this version" if NVIDIA_DRIVER.exists() else ""
    )


def _driver() -> str:
    try:
        return NVIDIA_DRIVER.read_text("utf-8", "replace").splitlines()[0][:200]
    except (OSError, IndexError):
        return "none"


def _libraries() -> Mapping[str, str]:
    found: dict[str, str] = {}
    for name in ("numpy", "openvino", "onnxruntime", "onnxruntime-gpu", "tensorrt"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def _openvino_facts() -> dict[str, Any]:
    from engine.backends.openvino import runtime

    try:
        core = runtime().Core()
    except EngineError as error:
        return {"OpenVINO": str(error)}
    return {
        "processor": core.get_property("CPU", "FULL_DEVICE_NAME"),
        "arithmetic": sorted(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")),
        "OpenVINO devices": list(core.available_devices),
    }
