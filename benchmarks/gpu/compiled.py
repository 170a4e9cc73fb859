"""The rows that compile first: a plan by the package `tensorrt`, and an EP-context model by ONNX
Runtime's TensorRT provider, each of the network alone and of a whole step.
"""

import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.gpu.graphs import inputs_of, shapes_of
from benchmarks.gpu.orders import Order, queued, step_program, step_shapes, stepped
from benchmarks.gpu.timing import psnr

if TYPE_CHECKING:
    from engine.backends.cuda import Place
    from engine.backends.cudadevice import CudaDevice
    from export.targets.plan import PlanOptions
    from export.targets.profile import ShapeRange

__all__ = ["context", "measure_context", "measure_plan", "plan"]


def plan(order: Order, *, whole: bool) -> dict[str, Any]:
    """Measure a strongly typed plan on the card. whole: of a step, and not of the network alone."""
    from engine.backends.cudadevice import CudaDevice
    from engine.backends.tensorrt import load_tensorrt

    _check_card(order, "TensorRT")
    return measure_plan(order, load_tensorrt(), CudaDevice(), whole=whole)


def measure_plan(order: Order, trt: Any, card: "CudaDevice", *, whole: bool) -> dict[str, Any]:
    """Build, load and time a plan. trt: the package `tensorrt`."""
    from engine.backends.tensorrt import TensorRtSession, open_plan_step, silent_logger
    from engine.backends.tensorrtnetwork import CudaValues, LoadedPlan, Network
    from export.targets.plan import build_plan

    program = step_program(order)
    shapes = step_shapes(program) if whole else shapes_of(order.model, order.pictures)
    graph = order.graph("typed-step" if whole else "typed")
    file = order.work / f"{graph.parent.name}-{graph.stem}-{order.pictures}.plan"
    start = time.perf_counter()
    build_plan(trt, graph, file, _ranges(graph, shapes), _options(order))
    built = time.perf_counter()
    before = card.memory()[0]
    engine = LoadedPlan(trt, silent_logger(trt), card, file.read_bytes(), file.name)
    network = Network(card, engine, shapes)
    if whole:
        step = open_plan_step(card, network, shapes, file.name)
        loaded = time.perf_counter()
        found = stepped(order, step, program)
    else:
        session = TensorRtSession(card, network, CudaValues(card), file.name, graph=True)
        loaded = time.perf_counter()
        result = session.run(inputs_of(order.model, order.pictures))
        found = {
            "precision": order.precision,
            "includes": "the network",
            "psnr": psnr(result, order.wanted),
            "times": queued(order, session.enqueue, card),
        }
    return found | {
        "load_s": round(loaded - built, 2),
        "build_s": round(built - start, 2),
        "memory_mib": (before - card.memory()[0]) >> 20 or None,
        "libraries": {"tensorrt": str(trt.__version__)},
    }


def context(order: Order, *, whole: bool) -> dict[str, Any]:
    """Measure an EP-context model on the card; whole: as above."""
    from engine.backends.epcontext import context_place
    from export.targets.plan import write_context_model

    _check_card(order, "ONNX Runtime's TensorRT provider")
    place, versions = context_place(0)
    return measure_context(order, place, versions, write_context_model, whole=whole)


def measure_context(
    order: Order,
    place: "Place",
    versions: Mapping[str, str],
    write: Callable[..., None],
    *,
    whole: bool,
) -> dict[str, Any]:
    """Build, load and time an EP-context model. write: as `export.targets.plan` has it."""
    from engine.backends.cuda import DeviceSession
    from engine.backends.onnxruntime import OnnxRuntimeBackend, runtime
    from engine.backends.ortstep import open_step
    from engine.backends.ortvalues import OrtValues
    from engine.backends.plansizes import output_shapes
    from engine.onnxheader import read_onnx_header

    on_card = place.values == "cuda"
    program = step_program(order)
    shapes = step_shapes(program) if whole else shapes_of(order.model, order.pictures)
    graph = order.graph("typed-step" if whole else "typed")
    folder = order.work / f"{graph.parent.name}-{graph.stem}-{order.pictures}-context"
    shutil.rmtree(folder, ignore_errors=True)  # an engine of an earlier run would be found again
    folder.mkdir(parents=True)
    file = folder / "ctx.onnx"
    start = time.perf_counter()
    write(graph, file, _ranges(graph, shapes), _options(order))
    built = time.perf_counter()
    before = place.memory()[0]
    session = OnnxRuntimeBackend(place.provider(True, False)).open(file, shapes)
    values = OrtValues(runtime(), place.values, place.number)
    if whole:
        step = open_step(
            runtime(),
            session,
            shapes,
            values,
            place.timeline,
            graphs=on_card,
            place=file.name,
            carry=place.carry,
        )
        loaded = time.perf_counter()
        found = stepped(order, step, program)
    else:
        header = read_onnx_header(graph)
        outputs = output_shapes(header.inputs, header.outputs, shapes)
        device = DeviceSession(runtime(), session, shapes, values, file.name, outputs=outputs)
        loaded = time.perf_counter()
        result = device.run(inputs_of(order.model, order.pictures))
        found = {
            "precision": order.precision,
            "includes": "the network",
            "psnr": psnr(result, order.wanted),
            "times": queued(order, device.enqueue, place.timeline),
        }
    return found | {
        "load_s": round(loaded - built, 2),
        "build_s": round(built - start, 2),
        "memory_mib": (before - place.memory()[0]) >> 20 or None,
        "libraries": {name: versions[name] for name in ("onnxruntime-gpu", "tensorrt")},
    }


def _check_card(order: Order, what: str) -> None:
    if order.device != "cuda":
        raise LookupError(f"{what} builds for cards alone")


def _options(order: Order) -> "PlanOptions":
    from export.targets.plan import PlanOptions

    # Kernels that one network measured are those of the others too: it saves minutes of builds.
    return PlanOptions(timing_cache=order.work / "timings")


def _ranges(graph: Path, shapes: Mapping[str, tuple[int, ...]]) -> "dict[str, ShapeRange]":
    """Give a profile of exactly these shapes, for the inputs that have a free size."""
    from engine.onnxheader import read_onnx_header
    from export.targets.profile import ShapeRange

    free = (
        name
        for name, port in read_onnx_header(graph).inputs.items()
        if any(isinstance(side, str) for side in port.shape)
    )
    return {
        name: ShapeRange(least=shapes[name], best=shapes[name], most=shapes[name]) for name in free
    }
