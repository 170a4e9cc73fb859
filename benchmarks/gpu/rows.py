"""What is measured of one network: a row for each way to run it, each in its own few lines.

A row gives the JSON of the report: seconds to load and to build, PSNR of one evaluation against
fp32 on the processor, times by count of steps, memory on the card. To build is what is compiled,
measured or captured: with TensorRT it is done once and kept. What a row cannot do it says by an
exception.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.gpu.compiled import context, plan
from benchmarks.gpu.graphs import Model, graph_of, inputs_of, shapes_of
from benchmarks.gpu.orders import Order, queued, step_program, step_shapes, stepped
from benchmarks.gpu.timing import psnr, timed
from engine.errors import DeviceError

__all__ = ["LATE", "ROWS", "reference"]

Row = Callable[[Order], dict[str, Any]]


def reference(model: Model, pictures: int, work: Path) -> NDArray[np.float32]:
    """Evaluate once in fp32 on the processor, by whichever library is there."""
    graph, shapes = graph_of(model, "plain", work), shapes_of(model, pictures)
    given = inputs_of(model, pictures)
    try:
        from engine.backends.torch import TorchBackend

        return TorchBackend("fp32").load(graph, shapes).run(given)
    except DeviceError:  # there is no torch here
        from engine.backends.onnxruntime import OnnxRuntimeBackend

        return OnnxRuntimeBackend().load(graph, shapes).run(given).copy()


def _torch(order: Order, *, compiles: bool = False, graphs: bool = False) -> dict[str, Any]:
    from engine.backends.torch import TorchBackend, runtime

    torch = runtime()
    start = time.perf_counter()
    on_card = order.device == "cuda"
    if graphs and not on_card:
        raise LookupError("CUDA graphs take a card")
    if compiles and not on_card:
        raise LookupError("compiling for a processor takes minutes, and is not asked here")
    backend = TorchBackend(order.precision, order.device, compiles=compiles, graphs=graphs)
    if on_card:
        torch.cuda.reset_peak_memory_stats()
    session = backend.load(order.graph("plain"), shapes_of(order.model, order.pictures))
    loaded = time.perf_counter()
    result = session.run(inputs_of(order.model, order.pictures))  # compiles and captures
    built = time.perf_counter()
    wait = torch.cuda.synchronize if on_card else _nothing
    times = timed(session.enqueue, wait, order.counts, order.rounds)
    return {
        "precision": order.precision,
        "includes": "the network",
        "load_s": round(loaded - start, 2),
        "build_s": round(built - loaded, 2),
        "psnr": psnr(result, order.wanted),
        "times": times,
        "memory_mib": torch.cuda.max_memory_allocated() >> 20 if on_card else None,
        "libraries": {"torch": str(torch.__version__)},
    }


def _ort(order: Order, *, form: str, graphs: bool) -> dict[str, Any]:
    from engine.backends.cuda import DeviceSession
    from engine.backends.onnxruntime import OnnxRuntimeBackend, runtime
    from engine.backends.ortvalues import OrtValues

    if form == "fused" and order.device != "cuda":
        raise LookupError("fused operators have kernels for cards alone")
    place = _place(order)
    start = time.perf_counter()
    before = place.memory()[0]
    graph, shapes = order.graph(form), shapes_of(order.model, order.pictures)
    session = OnnxRuntimeBackend(place.provider(graphs, False)).open(graph, shapes)
    values = OrtValues(runtime(), place.values, place.number)
    device = DeviceSession(runtime(), session, shapes, values, graph.name)
    loaded = time.perf_counter()
    result = device.run(inputs_of(order.model, order.pictures))  # chooses kernels and captures
    built = time.perf_counter()
    times = queued(order, device.enqueue, place.timeline)
    return {
        "precision": "fp16" if form == "fused" else ("fp32", "fp32 (TF32)")[order.device == "cuda"],
        "includes": "the network",
        "load_s": round(loaded - start, 2),
        "build_s": round(built - loaded, 2),
        "psnr": psnr(result, order.wanted),
        "times": times,
        "memory_mib": (before - place.memory()[0]) >> 20 or None,
        "libraries": {"onnxruntime": str(runtime().__version__)},
    }


def _steps(order: Order) -> dict[str, Any]:
    """The step graph, as the engine runs it: nothing but launches between two steps."""
    from engine.backends.onnxruntime import OnnxRuntimeBackend, runtime
    from engine.backends.ortstep import open_step
    from engine.backends.ortvalues import OrtValues

    place = _place(order)
    on_card = order.device == "cuda"
    program = step_program(order)
    shapes = step_shapes(program)
    start = time.perf_counter()
    before = place.memory()[0]
    graph = order.graph("fused-step" if on_card else "plain-step")
    session = OnnxRuntimeBackend(place.provider(on_card, False)).open(graph, shapes)
    loaded = time.perf_counter()
    values = OrtValues(runtime(), place.values, place.number)
    step = open_step(runtime(), session, shapes, values, place.timeline, graphs=on_card)
    built = time.perf_counter()
    return stepped(order, step, program) | {
        "load_s": round(loaded - start, 2),
        "build_s": round(built - loaded, 2),
        "memory_mib": (before - place.memory()[0]) >> 20 or None,
        "libraries": {"onnxruntime": str(runtime().__version__)},
    }


def _place(order: Order) -> Any:
    from engine.backends.cuda import cuda_place, processor_place

    return cuda_place(0) if order.device == "cuda" else processor_place()


def _nothing() -> None:
    """A processor is done when it returns."""


ROWS: Mapping[str, Mapping[str, Row]] = {
    "torch": {
        "torch eager": _torch,
        "torch + CUDA graph": lambda order: _torch(order, graphs=True),
        "torch.compile": lambda order: _torch(order, compiles=True),
    },
    "onnxruntime": {
        "ONNX Runtime plain": lambda order: _ort(order, form="plain", graphs=False),
        "ONNX Runtime fused": lambda order: _ort(order, form="fused", graphs=False),
        "ONNX Runtime fused + CUDA graph": lambda order: _ort(order, form="fused", graphs=True),
        "safelight: one graph a step": _steps,
    },
    "tensorrt": {
        "TensorRT plan + CUDA graph": lambda order: plan(order, whole=False),
        "safelight: one plan a step": lambda order: plan(order, whole=True),
    },
    "onnxruntime-tensorrt": {
        "ONNX Runtime TensorRT + CUDA graph": lambda order: context(order, whole=False),
        "safelight: one EP-context model a step": lambda order: context(order, whole=True),
    },
}
# What builds for minutes comes when all else is measured.
LATE = ("tensorrt", "onnxruntime-tensorrt")
