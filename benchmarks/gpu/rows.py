"""What is measured of one network: a row for each way to run it, each in its own few lines.

A row gives the JSON of the report: seconds to load, PSNR of one evaluation against fp32 on the
processor, times by count of steps, memory on the card. What it cannot do it says by an exception.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.gpu.graphs import Model, graph_of, inputs_of, shapes_of
from benchmarks.gpu.timing import psnr, timed
from engine.errors import DeviceError
from engine.stepgraph import COLUMNS, HEAD, LATENTS, SLOTS, Program

__all__ = ["ROWS", "Order", "reference"]

Row = Callable[["Order"], dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Order:
    """What to measure. device: cpu or cuda. wanted: the exact result of `inputs_of`."""

    model: Model
    pictures: int
    device: str
    counts: Sequence[int]
    rounds: int
    work: Path
    wanted: NDArray[np.float32]

    @property
    def precision(self) -> str:
        """Name the arithmetic that the device is fast in."""
        return "fp16" if self.device == "cuda" else "fp32"

    def graph(self, form: str) -> Path:
        """Give the graph in a form."""
        return graph_of(self.model, form, self.work)


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
    result = session.run(inputs_of(order.model, order.pictures))
    loaded = time.perf_counter() - start
    wait = torch.cuda.synchronize if on_card else _nothing
    times = timed(session.enqueue, wait, order.counts, order.rounds)
    return {
        "precision": order.precision,
        "includes": "the network",
        "load_s": round(loaded, 2),
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
    result = device.run(inputs_of(order.model, order.pictures))
    loaded = time.perf_counter() - start
    marks: list[object] = []

    def step() -> None:
        device.enqueue()
        marks.append(place.timeline.mark())

    def wait() -> None:
        while marks:
            place.timeline.wait(marks.pop(0))

    times = timed(step, wait, order.counts, order.rounds)
    return {
        "precision": "fp16" if form == "fused" else ("fp32", "fp32 (TF32)")[order.device == "cuda"],
        "includes": "the network",
        "load_s": round(loaded, 2),
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
    program = _program(order)
    shapes = {name: array.shape for name, array in program.inputs.items()}
    shapes |= {"state": program.state.shape, "row": (1,), "table": program.table.shape}
    shapes |= {"noise": program.noise.shape, "mix": program.mix.shape}
    start = time.perf_counter()
    before = place.memory()[0]
    graph = order.graph("fused-step" if on_card else "plain-step")
    session = OnnxRuntimeBackend(place.provider(on_card, False)).open(graph, shapes)
    values = OrtValues(runtime(), place.values, place.number)
    step = open_step(runtime(), session, shapes, values, place.timeline, graphs=on_card)
    step.begin(program)
    loaded = time.perf_counter() - start
    step.enqueue()
    result = step.latents()
    times = timed(
        step.enqueue,
        lambda: step.wait(0),
        order.counts,
        order.rounds,
        reset=lambda: step.begin(program),
    )
    return {
        "precision": order.precision,
        "includes": "network, guidance, sampler",
        "load_s": round(loaded, 2),
        "psnr": psnr(result, order.wanted[: order.pictures]),
        "times": times,
        "memory_mib": (before - place.memory()[0]) >> 20 or None,
        "libraries": {"onnxruntime": str(runtime().__version__)},
    }


def _program(order: Order) -> Program:
    """Write a trajectory whose every step puts the first text's prediction in x's place."""
    given = inputs_of(order.model, order.pictures)
    count, *rest = given["sample"].shape
    pictures = count // 2
    table = np.zeros((64, COLUMNS), np.float32)
    table[:, : len(HEAD)] = (500.0, 1.0, 0.0, 1.0, 0.0)
    table[:, len(HEAD) + LATENTS] = 1.0  # the newest prediction
    state = np.zeros((SLOTS, pictures, *rest), np.float32)
    state[0] = given["sample"][:pictures]
    inputs = {name: array for name, array in given.items() if name not in {"sample", "timestep"}}
    return Program(
        rows=64,
        table=table,
        noise=np.zeros((1, pictures, *rest), np.float32),
        state=state,
        mix=np.array([1.0, 0.0], np.float32)[:, None, None, None, None],
        inputs=inputs,
    )


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
}
