"""Opens an exported component in each installed runtime, in fp32, for the parity gate."""

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["Run", "fitting", "installed", "open_component"]

Arrays = Mapping[str, NDArray[np.generic]]
Run = Callable[[Arrays], dict[str, NDArray[np.float32]]]
RUNTIMES = ("onnxruntime", "openvino")
# Peak memory over the weights in f32, measured on SD 1.5's unet. OpenVINO folds the casts and packs
# the weights anew; ONNX Runtime is opened so that it does neither.
SIZES = {"onnxruntime": 1.2, "openvino": 2.9}


def installed() -> tuple[str, ...]:
    """Name the runtimes that can be imported here."""
    return tuple(name for name in RUNTIMES if find_spec(name) is not None)


def fitting(runtimes: Sequence[str], weights: int, available: int) -> tuple[str, ...]:
    """Give those that have room for a network of `weights` bytes in f32, or else the smallest.

    available: bytes of free memory. What is left out is not in the bundle's parity report.
    """
    room = [name for name in runtimes if SIZES[name] * weights <= available]
    return tuple(room or sorted(runtimes, key=SIZES.__getitem__)[:1])


def open_component(runtime: str, model: Path) -> Run:
    """Load `model` in `runtime` and give a function from named inputs to named outputs."""
    return _onnxruntime(model) if runtime == "onnxruntime" else _openvino(model)


def _onnxruntime(model: Path) -> Run:
    import onnxruntime

    if hasattr(onnxruntime, "disable_telemetry_events"):
        onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; warnings are about its own fusions
    # As the graph stands, and as small as it is stored: folding the weights' casts and packing them
    # anew would hold them three times, 20 GB for SDXL. The engine's own sessions optimise.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False  # it plans a block of all widened weights for each shape
    options.add_session_config_entry("session.disable_prepacking", "1")
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    names = [port.name for port in session.get_outputs()]

    def run(inputs: Arrays) -> dict[str, NDArray[np.float32]]:
        found = session.run(names, dict(inputs))
        return {name: np.asarray(each) for name, each in zip(names, found, strict=True)}

    return run


def _openvino(model: Path) -> Run:
    from engine.backends.openvino import runtime  # a plain import of openvino phones home

    core = runtime().Core()
    compiled = core.compile_model(
        core.read_model(model), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    request = compiled.create_infer_request()

    def run(inputs: Arrays) -> dict[str, NDArray[np.float32]]:
        found = request.infer(dict(inputs))
        return {port.get_any_name(): found[port].copy() for port in compiled.outputs}

    return run
