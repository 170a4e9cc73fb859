"""The names that a device can be asked for by, and what to say where it cannot be had."""

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from engine.errors import DeviceError, unknown_name

__all__ = [
    "DEVICES",
    "NVIDIA_DRIVER",
    "DeviceName",
    "card_note",
    "check_packages",
    "installed",
    "no_openvino_device",
    "no_provider",
    "parse_device",
]

DEVICES: Final = (
    "auto",
    "coreml",
    "cpu",
    "cuda",
    "directml",
    "onnxruntime",
    "openvino",
    "tensorrt",
    "torch",
)
NVIDIA_DRIVER: Final = Path("/proc/driver/nvidia/version")
# Kind -> what may stand behind its colon; upper case for OpenVINO's own names.
_PLACES: Final[Mapping[str, str]] = {
    "cuda": r"\d{1,3}(,\d{1,3}){0,15}",
    "directml": r"\d{1,3}",
    "onnxruntime": r"CPU|TENSORRT(\.\d{1,3})?",
    "openvino": r"CPU|GPU(\.\d{1,3}){0,2}|NPU",
    "tensorrt": r"\d{1,3}",
    "torch": r"CPU|CUDA(\.\d{1,3})?",
}
# What is offered for a name that is near one of them.
_EXAMPLES: Final = (
    *DEVICES,
    "cuda:0",
    "directml:0",
    "onnxruntime:CPU",
    "onnxruntime:TENSORRT",
    "openvino:CPU",
    "openvino:GPU",
    "openvino:GPU.1",
    "openvino:NPU",
    "tensorrt:0",
)
# Kind -> the distributions that its back end needs, and the line that installs them. The second
# way to TensorRT, by ONNX Runtime's provider, needs what `cuda` needs and two libraries.
_NEEDS: Final[Mapping[str, tuple[tuple[str, ...], str]]] = {
    "cuda": (("onnxruntime-gpu", "cuda-bindings"), "pip install 'safelight[cuda]'"),
    "onnxruntime": (("onnxruntime-gpu", "cuda-bindings"), "pip install 'safelight[cuda]'"),
    "tensorrt": (("tensorrt", "cuda-bindings"), "pip install 'safelight[tensorrt]'"),
    "torch": (("torch",), "pip install 'safelight[export]'"),
}

_OTHERWISE: Final[Mapping[str, str]] = {
    "tensorrt": "or 'safelight[cuda]' and TensorRT 10 for ONNX Runtime's provider; "
}


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceName:
    """A device as it was asked for. kind: one of DEVICES. which: behind the colon, or empty."""

    kind: str
    which: str

    @property
    def on_card(self) -> bool:
        """Say whether it is NVIDIA's card, or torch's choice of one."""
        return self.kind in {"cuda", "tensorrt", "torch"} or self.by_provider

    @property
    def by_provider(self) -> bool:
        """Say whether ONNX Runtime's TensorRT provider is asked for: onnxruntime:TENSORRT[.n]."""
        return self.kind == "onnxruntime" and self.which.startswith("TENSORRT")

    def __str__(self) -> str:
        return f"{self.kind}:{self.which}" if self.which else self.kind


def parse_device(text: str) -> DeviceName:
    """Read auto, cpu, cuda[:n], tensorrt[:n], openvino[:CPU|:GPU|:GPU.n|:NPU], directml[:n],
    onnxruntime[:CPU|:TENSORRT[.n]]...

    Raises RequestError with the nearest name for what is none.
    """
    kind, colon, which = text.partition(":")
    which = which.upper()
    fits = re.fullmatch(_PLACES.get(kind, ""), which) if colon else True
    if kind not in DEVICES or not fits or (colon and not which):
        raise unknown_name("device", text, _EXAMPLES)
    return DeviceName(kind=kind, which=which)


def check_packages(device: DeviceName, needs: str = "") -> None:
    """Raise DeviceError where a package that the device needs is not installed.

    needs: the kind whose packages those are, where it is not the device's own.
    """
    packages, pip = _NEEDS[needs or device.kind]
    other = "" if needs else _OTHERWISE.get(device.kind, "")
    facts = [f"{name} is not installed" for name in packages if not installed(name)]
    if not facts:
        return
    if device.kind != "torch":
        there = NVIDIA_DRIVER.exists()
        facts.append("there is an NVIDIA driver" if there else "no NVIDIA driver was found")
    raise DeviceError(
        f"device '{device}' cannot be used: {', '.join(facts)}",
        hint=f"{pip} brings what is missing; {other}--device cpu works now",
    )


def no_provider(provider: str, available: list[str]) -> DeviceError:
    """Say that the ONNX Runtime that is installed was built without `provider`, and which has it.

    available: the providers that it has.
    """
    systems = {"CoreMLExecutionProvider": "darwin", "DmlExecutionProvider": "win32"}
    names = {"darwin": "macOS", "win32": "Windows"}
    wanted = systems.get(provider, sys.platform)
    if wanted != sys.platform:
        hint = f"there is one in {names[wanted]} alone; --device cpu works here"
    elif provider == "DmlExecutionProvider":
        hint = "pip install onnxruntime-directml, in an environment without the cpu extra"
    elif provider == "CoreMLExecutionProvider":
        hint = "pip install --upgrade 'safelight[cpu]'"
    else:
        hint = "pip install 'safelight[cuda]', in an environment without the cpu extra"
    return DeviceError(
        f"this ONNX Runtime has no {provider}; it has {', '.join(available)}", hint=hint
    )


def no_openvino_device(device: str, available: list[str]) -> DeviceError:
    """Say that OpenVINO finds no such device, and what it needs to. available: what it finds."""
    hints = {
        "GPU": "it takes Intel's driver for OpenCL (on Linux the package intel-opencl-icd) and"
        " access to /dev/dri",
        "NPU": "it takes Intel's driver for the NPU and access to /dev/accel",
    }
    return DeviceError(
        f"OpenVINO finds no {device} here; it has {', '.join(available) or 'nothing'}",
        hint=hints.get(device.partition(".")[0], "pip install 'safelight[cpu]'"),
    )


def card_note() -> str:
    """Say that a card is passed over, for the reason of a choice; empty where there is none."""
    if not NVIDIA_DRIVER.exists():
        return ""
    return "; an NVIDIA card is here, and passed over: --device cuda takes it"


def installed(package: str) -> bool:
    """Say whether a distribution is installed."""
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True
