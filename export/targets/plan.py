"""Builds a TensorRT plan from a typed graph through NVIDIA's `tensorrt` package (11 or later).

The network is strongly typed: what the graph says is computed in fp16 or fp32 is. A plan fits one
kind of card and one version of TensorRT; who keeps it puts both into its key.

`unverified on hardware`: every name used here was looked up in the real binding.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.backends.cudadevice import CudaDevice
from engine.backends.cudalibraries import TENSORRT_10, missing_libraries, open_libraries
from engine.backends.ortproviders import TENSORRT as PROVIDER
from engine.errors import DeviceError
from export.errors import GraphError
from export.targets.profile import ShapeRange

__all__ = [
    "NEEDED",
    "USUAL",
    "PlanOptions",
    "build_plan",
    "card_name",
    "check_provider",
    "context_options",
    "driver_version",
    "load_tensorrt",
    "write_context_model",
]

NEEDED = (
    "pip install 'safelight[tensorrt]' (TensorRT 11 for CUDA 13; its libraries come from NVIDIA's"
    " own index, which its installation guide names), and a driver for CUDA 13"
)
LEAST_VERSION = 11
CACHE_LIMIT = 1 << 28  # bytes of a timing cache; one of SDXL's unet has about 2 MB


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanOptions:
    """How a plan is built. refittable: its weights can be exchanged, at some cost in speed.

    level: 0..5, how long the builder searches; 3 is TensorRT's own. timing_cache: a file in which
    measured kernels are kept, so that the next build is quicker. workspace: bytes that one kernel
    may use, 0 for all of the card.
    """

    refittable: bool = False
    level: int = 3
    timing_cache: Path | None = None
    workspace: int = 0


USUAL = PlanOptions()


def load_tensorrt() -> Any:
    """Import `tensorrt`. Raises DeviceError, which says what to install."""
    try:
        trt = importlib.import_module("tensorrt")
    except Exception as error:  # a missing library shows as ImportError, OSError or RuntimeError
        raise DeviceError(
            f"the target tensorrt needs the package `tensorrt`: {_short(error)}", hint=NEEDED
        ) from error
    version = str(getattr(trt, "__version__", "0"))
    if int(version.partition(".")[0]) < LEAST_VERSION:
        raise DeviceError(
            f"TensorRT {version} is too old; {LEAST_VERSION} or later is needed", hint=NEEDED
        )
    return trt


def build_plan(
    trt: Any,
    graph: Path,
    plan: Path,
    ranges: Mapping[str, ShapeRange],
    options: PlanOptions = USUAL,
) -> int:
    """Compile the ONNX file `graph` for the card at hand, write `plan`, give its size in bytes.

    Raises DeviceError without a usable card, GraphError where TensorRT refuses the graph.
    """
    logger = _logger(trt)
    builder = _made(lambda: trt.Builder(logger))
    typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(typed)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(graph)):
        told = [parser.get_error(place).desc() for place in range(parser.num_errors)]
        raise GraphError(f"TensorRT cannot read {_place(graph)}: {_first(told)}")
    config = _config(trt, builder, ranges, options)
    cache = _attach_cache(config, options.timing_cache)
    made = builder.build_serialized_network(network, config)
    if made is None:
        raise GraphError(f"TensorRT cannot build {_place(graph)}: {_first(logger.errors)}")
    plan.write_bytes(memoryview(made))
    if cache is not None and options.timing_cache is not None:
        _replace(options.timing_cache, memoryview(config.get_timing_cache().serialize()))
    return int(made.nbytes)


def card_name() -> str:
    """Name the first NVIDIA card and its compute capability. Raises DeviceError without one."""
    return _card().name


def driver_version() -> str:
    """Name the newest CUDA that the driver knows. Raises DeviceError without a card."""
    return _card().driver()


def _card() -> CudaDevice:
    try:
        return CudaDevice()
    except DeviceError as error:
        raise DeviceError(f"no NVIDIA card can be asked: {error}", hint=NEEDED) from error


def _made(make: Any) -> Any:
    try:
        builder = make()
    except (TypeError, RuntimeError) as error:  # the binding's ways to say that it got no builder
        raise DeviceError(
            f"TensorRT finds no NVIDIA card that it can use: {_short(error)}", hint=NEEDED
        ) from error
    return builder


def _config(trt: Any, builder: Any, ranges: Mapping[str, ShapeRange], options: PlanOptions) -> Any:
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    for name, shapes in ranges.items():
        profile.set_shape(name, shapes.least, shapes.best, shapes.most)
    config.add_optimization_profile(profile)
    config.builder_optimization_level = options.level
    # The islands are there because of numbers that need fp32: TF32 keeps ten bits of them.
    config.clear_flag(trt.BuilderFlag.TF32)
    if options.refittable:
        config.set_flag(trt.BuilderFlag.REFIT)
    if options.workspace:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace)
    return config


def _attach_cache(config: Any, file: Path | None) -> Any:
    """Give the builder the timings in `file`, or none if they are of another card."""
    if file is None:
        return None
    kept = file.read_bytes() if file.is_file() and file.stat().st_size <= CACHE_LIMIT else b""
    cache = config.create_timing_cache(kept)
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, ignore_mismatch=False)
    return cache


def _replace(file: Path, data: memoryview) -> None:
    partial = file.with_name(f".{file.name}.partial")
    partial.write_bytes(data)
    partial.replace(file)


def _logger(trt: Any) -> Any:
    class Kept(trt.ILogger):
        """Keeps what TensorRT says of its errors; nothing is printed."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, msg: str) -> None:
            """Keep errors."""
            if severity in {trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR}:
                self.errors.append(msg)

    return Kept()


def check_provider() -> Any:
    """Give `onnxruntime` with its TensorRT provider, whose libraries are open then.

    Raises DeviceError where it has none or one of them is missing, with what mends it.
    """
    try:
        ort = importlib.import_module("onnxruntime")
        there = PROVIDER in ort.get_available_providers()
    except (ImportError, OSError):
        there, ort = False, None
    if not there:
        raise DeviceError(
            f"this ONNX Runtime has no {PROVIDER}",
            hint="pip install 'safelight[cuda]', and TensorRT 10 beside it",
        )
    missing = missing_libraries(open_libraries(), also=TENSORRT_10)
    if missing:
        raise missing
    return ort


def write_context_model(
    graph: Path,
    context: Path,
    ranges: Mapping[str, ShapeRange],
    options: PlanOptions = USUAL,
) -> None:
    """Compile `graph` by ONNX Runtime's TensorRT provider into an EP-context model.

    The other way to the same end, for whoever has onnxruntime-gpu and TensorRT 10, which that
    provider asks for. There the network is weakly typed, so fp32 islands are not kept to: only for
    graphs without them. Raises DeviceError, GraphError.
    """
    ort = check_provider()
    settings = ort.SessionOptions()
    settings.log_severity_level = 4  # what fails is raised
    settings.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    provider = context_options(context, ranges, options)
    try:
        session = ort.InferenceSession(str(graph), settings, providers=[(PROVIDER, provider)])
    except Exception as error:  # the library's classes have no root of their own
        raise DeviceError(f"{PROVIDER} cannot load {_place(graph)}: {_short(error)}") from error
    if session.get_providers()[0] != PROVIDER or not context.is_file():
        raise GraphError(f"{PROVIDER} wrote no context model of {_place(graph)}")


def context_options(
    context: Path, ranges: Mapping[str, ShapeRange], options: PlanOptions
) -> dict[str, str]:
    """Give the provider's options: profiles, caches, and where the context model goes."""

    def listed(which: str) -> str:
        return ",".join(
            f"{name}:{'x'.join(map(str, getattr(shapes, which)))}"
            for name, shapes in ranges.items()
        )

    # Switches are True or False: the Python binding refuses 1 of this provider.
    found = {
        "trt_fp16_enable": "True",
        "trt_dump_ep_context_model": "True",
        "trt_ep_context_file_path": str(context),
        # The engine in a file beside: one protocol buffer ends at 2 GB.
        "trt_ep_context_embed_mode": "0",
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_prefix": context.stem,
        "trt_builder_optimization_level": str(options.level),
        "trt_profile_min_shapes": listed("least"),
        "trt_profile_opt_shapes": listed("best"),
        "trt_profile_max_shapes": listed("most"),
    }
    if options.timing_cache is not None:
        found |= {
            "trt_timing_cache_enable": "True",
            "trt_timing_cache_path": str(options.timing_cache.parent),
        }
    return found


def _place(graph: Path) -> str:
    return f"{graph.parent.name}/{graph.name}"


def _first(texts: list[str]) -> str:
    return _short(texts[0]) if texts else "it does not say why"


def _short(error: object) -> str:
    return " ".join(str(error).split())[:300]
