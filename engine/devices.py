"""Which back end computes, on what, in which precision, and why: decided once and said aloud."""

import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from engine.cores import physical_cores
from engine.devicenames import (
    DEVICES,
    NVIDIA_DRIVER,
    DeviceName,
    card_note,
    check_packages,
    installed,
    parse_device,
)
from engine.errors import DeviceError, EngineError, unknown_name

if TYPE_CHECKING:
    from engine.backends import Backend
    from engine.backends.openvino import OpenVinoBackend

__all__ = ["DEVICES", "PRECISIONS", "Choice", "choose", "describe"]

_LIBRARIES: Final = (
    "numpy",
    "openvino",
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-directml",
    "tensorrt",
    "torch",
)
PRECISIONS: Final = ("auto", "bf16", "fp16", "fp32", "int8")


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """A back end and the reason for it, in one line that a user can read. others: the same on
    further devices, which share the pictures of requests (`engine.replicas`).
    """

    backend: "Backend"
    reason: str
    others: tuple["Backend", ...] = ()


def choose(device: str = "auto", precision: str = "auto", cache_dir: Path | None = None) -> Choice:
    """Pick the back end for `device` and `precision`; nothing falls back silently.

    device: auto, cpu (the fastest for the processor), openvino[:CPU|:GPU|:GPU.n|:NPU],
    onnxruntime[:CPU|:TENSORRT[.n]], coreml, directml[:n], cuda[:n[,n...]], tensorrt[:n], torch.
    precision: auto, fp32, bf16, fp16, int8 (a form made before; on OpenVINO's CPU). cache_dir:
    where compiled models and derived forms are kept. Only `auto` and `cpu` pass over a library that
    does not work, and the reason says which and why; `tensorrt` is the package of that name, or
    where it is not installed ONNX Runtime's TensorRT provider, which the reason says as well.
    Raises RequestError for unknown names and DeviceError for what cannot be used here.
    """
    asked = parse_device(device)
    if precision not in PRECISIONS:
        raise unknown_name("precision", precision, PRECISIONS)
    on_cards = {"cuda": _cuda, "tensorrt": _tensorrt}
    if asked.kind in on_cards:
        return on_cards[asked.kind](asked, precision, cache_dir)
    if asked.kind == "torch":
        return _torch(asked, precision)
    if asked.by_provider:
        return _contexts(asked, precision, cache_dir, "asked for")
    if asked.kind == "openvino":
        return _openvino(precision, cache_dir, "asked for", asked.which or "CPU")
    if asked.kind in {"coreml", "directml", "onnxruntime"}:
        return _onnxruntime(precision, "asked for", asked.kind, asked.which)
    return _processor(precision, cache_dir, card_note() if asked.kind == "auto" else "")


def _processor(precision: str, cache_dir: Path | None, note: str) -> Choice:
    """Take the fastest library that works on the processor, and say what was passed over."""
    makers: dict[str, Callable[[str], Choice]] = {
        "openvino": lambda why: _openvino(precision, cache_dir, why),
        "onnxruntime": lambda why: _onnxruntime(precision, why),
    }
    names = {"openvino": "OpenVINO", "onnxruntime": "ONNX Runtime"}
    first: DeviceError | None = None
    why = "the fastest on a processor"
    for library, make in makers.items():
        if find_spec(library) is None:
            why = f"{names[library]} is not installed"
            continue
        try:
            return make(why + note)
        except DeviceError as error:
            first = first or error
            why = f"{names[library]} is passed over: {error}"
    if first is not None:
        raise first
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
        "kernel": _kernel(),
        "libraries": _libraries(),
        "NVIDIA driver": _driver(),
    }
    if NVIDIA_DRIVER.exists() or _names_card(device):
        facts |= _nvidia_facts()
    if find_spec("openvino") is not None:
        facts |= _openvino_facts()
    if find_spec("onnxruntime") is not None:
        facts |= _onnxruntime_facts()
    try:
        choice = choose(device, precision, cache_dir)
    except EngineError as error:
        facts["chosen"] = "nothing"
        facts["reason"] = f"{error} ({error.hint})" if error.hint else str(error)
        return facts
    facts["chosen"] = f"{choice.backend.name} {choice.backend.device} {choice.backend.precision}"
    facts["reason"] = choice.reason
    return facts


def _openvino(precision: str, cache_dir: Path | None, why: str, device: str = "CPU") -> Choice:
    from engine.backends.openvino import OpenVinoBackend

    def make(precision: str) -> OpenVinoBackend:
        return OpenVinoBackend(precision, cache_dir, device=device)

    if precision == "int8":
        backend = make(precision)
        why += f"; approximate: the unet in 8-bit integers, the rest in {backend.hint}"
        return Choice(backend=backend, reason=_openvino_reason(backend, why))
    if precision != "auto":
        backend = make(precision)
        return Choice(backend=backend, reason=_openvino_reason(backend, why))
    if device != "CPU":
        backend = make("fp16")  # what its GPUs and NPUs are built for
        why += "; no such device was at hand when this was written"
        return Choice(backend=backend, reason=_openvino_reason(backend, why))
    backend = make("fp32")
    if "BF16" not in backend.capabilities:
        note = "the processor has no bf16 arithmetic"
    else:
        backend = make("bf16")
        note = "the processor has bf16 arithmetic"
    return Choice(backend=backend, reason=_openvino_reason(backend, f"{why}; {note}"))


def _openvino_reason(backend: "OpenVinoBackend", why: str) -> str:
    return f"OpenVINO, {backend.processor}, {backend.precision}: {why}"


def _onnxruntime(precision: str, why: str, kind: str = "onnxruntime", which: str = "") -> Choice:
    from engine.backends.onnxruntime import OnnxRuntimeBackend
    from engine.backends.ortproviders import PROVIDERS, provider_for

    provider = provider_for(kind, which)
    backend = OnnxRuntimeBackend(provider)
    if precision not in {"auto", "fp32"}:
        raise DeviceError(
            f"ONNX Runtime does not compute in {precision} on {PROVIDERS[provider.name]}",
            hint="--precision fp32, or --device openvino",
        )
    place = f"{PROVIDERS[provider.name]} ({provider.device})"
    if kind == "onnxruntime":
        place = "CPU"
    else:
        why += "; no such device was at hand when this was written"
    if provider.shares:
        why += "; operators that it lacks run on the processor"
    return Choice(backend=backend, reason=f"ONNX Runtime, {place}, fp32: {why}")


def _kernel() -> str:
    from engine.kernels.library import find

    found, why = find()
    if found is None:
        return f"none ({why}): OpenVINO computes it all"
    what = "large convolutions in fp32"
    if not found.has_avx512:
        what += ", attention in fp32"
    if found.has_bf16:
        what = f"attention and norms in bf16, {what}"
    return f"{found.name}, {found.threads} threads: {what}, in OpenVINO"


def _cuda(asked: DeviceName, precision: str, cache_dir: Path | None) -> Choice:
    check_packages(asked)
    from engine.backends.cuda import CudaBackend, cuda_place

    numbers = dict.fromkeys(int(each) for each in (asked.which or "0").split(","))
    places = [cuda_place(number) for number in numbers]
    precision = "fp16" if precision == "auto" else precision
    backend, *others = (CudaBackend(precision, cache_dir, place) for place in places)
    place = places[0]
    why = "asked for; unverified on hardware when this was written"
    devices = ", ".join(each.device for each in places)
    reason = f"ONNX Runtime, {place.name} ({devices}), {backend.precision}: {why}"
    return Choice(backend=backend, reason=reason, others=tuple(others))


def _tensorrt(asked: DeviceName, precision: str, cache_dir: Path | None) -> Choice:
    """Take the package `tensorrt`, and without it ONNX Runtime's provider, if that is there."""
    if not installed("tensorrt") and installed("onnxruntime-gpu"):
        return _contexts(asked, precision, cache_dir, "the package tensorrt is not installed")
    check_packages(asked)
    from engine.backends.cudadevice import CudaDevice
    from engine.backends.onnxruntime import OnnxRuntimeBackend
    from engine.backends.tensorrt import TensorRtBackend, load_tensorrt

    if precision not in {"auto", "fp16"}:
        raise DeviceError(
            f"plans compute in fp16, not in {precision}", hint="--device cuda computes in fp32 too"
        )
    trt = load_tensorrt()
    card = CudaDevice(int(asked.which or 0))
    backend = TensorRtBackend(trt, card, cache_dir, OnnxRuntimeBackend())
    why = "asked for; unverified on hardware when this was written"
    reason = f"TensorRT, {card.name} ({backend.device}), fp16: {why}"
    return Choice(backend=backend, reason=reason)


def _contexts(asked: DeviceName, precision: str, cache_dir: Path | None, why: str) -> Choice:
    """Take ONNX Runtime's TensorRT provider, and its CUDA provider for what needs fp32."""
    check_packages(asked, needs="onnxruntime")
    from engine.backends.cuda import CudaBackend, cuda_place
    from engine.backends.epcontext import ContextBackend, context_place

    if precision not in {"auto", "fp16"}:
        raise DeviceError(
            f"EP-context models compute in fp16, not in {precision}",
            hint="--device cuda computes in fp32 too",
        )
    number = int(asked.which.removeprefix("TENSORRT").removeprefix(".") or 0)
    place, versions = context_place(number)
    rest = CudaBackend("fp32", None, cuda_place(number))
    backend = ContextBackend(cache_dir, place, versions, rest)
    why += "; unverified on hardware when this was written"
    reason = f"ONNX Runtime's TensorRT provider, {place.name} ({backend.device}), fp16: {why}"
    return Choice(backend=backend, reason=reason)


def _names_card(device: str) -> bool:
    kind, _, which = device.partition(":")
    name = DeviceName(kind=kind, which=which.upper())
    return kind in {"cuda", "tensorrt"} or name.by_provider


def _torch(asked: DeviceName, precision: str) -> Choice:
    """Take the card that torch finds, or the processor, in the precision that each is best in."""
    from engine.backends.torch import TorchBackend, runtime

    place = asked.which.lower().replace(".", ":")
    if not place:
        place = "cuda" if runtime().cuda.is_available() else "cpu"
    on_card = place.startswith("cuda")
    if precision == "auto":
        precision = "fp16" if on_card else "fp32"
    backend = TorchBackend(precision, place, graphs=on_card)
    why = "asked for"
    if on_card:
        why += "; unverified on hardware when this was written"
    return Choice(
        backend=backend,
        reason=f"torch, {backend.card} ({backend.device}), {backend.precision}: {why}",
    )


def _driver() -> str:
    try:
        return NVIDIA_DRIVER.read_text("utf-8", "replace").splitlines()[0][:200]
    except (OSError, IndexError):
        return "none"


def _libraries() -> Mapping[str, str]:
    found: dict[str, str] = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def _nvidia_facts() -> dict[str, Any]:
    """Open each of NVIDIA's libraries, and ask the card for its name and memory."""
    from engine.backends.cudadevice import CudaDevice
    from engine.backends.cudalibraries import open_libraries

    facts: dict[str, Any] = {
        "NVIDIA libraries": {name: why or "opens" for name, why in open_libraries().items()}
    }
    try:
        card = CudaDevice()
        free, total = card.memory()
    except EngineError as error:
        return facts | {"NVIDIA card": f"{error} ({error.hint})"}
    return facts | {"NVIDIA card": f"{card.name}, {free >> 20} of {total >> 20} MiB free"}


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


def _onnxruntime_facts() -> dict[str, Any]:
    from engine.backends.onnxruntime import runtime

    try:
        return {"ONNX Runtime providers": list(runtime().get_available_providers())}
    except EngineError as error:
        return {"ONNX Runtime": str(error)}
