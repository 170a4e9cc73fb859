"""The work that targets in fp16 share: observe each component, write a graph, hold it against fp32.

A derived graph is compared on the inputs that were recorded while a picture was drawn, by ONNX
Runtime on the CPU: what a GPU makes of it is another matter, and the report says so.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from engine.backends import Array
from engine.bundle import Bundle
from export.errors import GraphError, ParityError
from export.targets.activations import Observation, observe, open_graph
from export.targets.rounding import rounding
from export.targets.trajectories import recorded_inputs
from export.weights import DATA_NAME, INLINE_LIMIT, MODEL_NAME

__all__ = [
    "Progress",
    "Source",
    "check_graph",
    "fidelity",
    "largest",
    "observed",
    "read_graph",
    "reasons",
    "save_graph",
    "worst",
]

Progress = Callable[[str, float], None]
PSNR_CAP = 200.0  # dB; what equal arrays get, since JSON has no infinity


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """One component of a bundle: its fp32 graph, what it was given, what became of it."""

    name: str
    file: Path
    runs: Sequence[Mapping[str, Array]]
    seen: Observation


def observed(bundle: Bundle, progress: Progress) -> Iterator[Source]:
    """Draw a picture, then yield each component that took part, watched along the way.

    progress: a stage's name and the done fraction, 0..1. Raises the engine's errors, GraphError.
    """
    progress("draw", 0.0)
    recorded = recorded_inputs(bundle)
    names = [name for name in bundle.manifest.components if name in recorded]
    for place, name in enumerate(names):
        progress(f"observe {name}", (1 + place) / (1 + len(names)))
        file = bundle.model(name)
        seen = observe(file, recorded[name])
        yield Source(name=name, file=file, runs=recorded[name], seen=seen)
    progress("done", 1.0)


def save_graph(model: ir.Model, folder: Path) -> Path:
    """Write model.onnx and model.onnx_data into `folder`, one weight at a time; give the graph."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / MODEL_NAME
    ir.save(model, file, external_data=DATA_NAME, size_threshold_bytes=INLINE_LIMIT)
    return file


def read_graph(file: Path) -> onnx.ModelProto:
    """Read a graph without its weights."""
    return onnx.load(file, load_external_data=False)


def check_graph(proto: onnx.ModelProto) -> None:
    """Hold a graph of standard operators against ONNX's checker and strict shape inference.

    Raises GraphError: then the fault is ours or a library's.
    """
    try:
        onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)
    except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError) as error:
        text = " ".join(str(error).split())[:300]
        raise GraphError(f"the derived graph is not well typed: {text}") from error


def fidelity(source: Source, proto: onnx.ModelProto, folder: Path) -> float:
    """Give the PSNR in dB of a derived graph's worst output against fp32.

    What a node makes in fp16 is rounded to fp16, as on a card; sums run in fp32 within a node.
    folder: where the derived graph's weights lie. Raises ParityError when NaN or Inf comes out.
    """
    run = open_graph(rounding(proto), folder)
    least = PSNR_CAP
    for inputs, wanted in zip(source.runs, source.seen.outputs, strict=True):
        got = run(inputs)
        for name, exact in wanted.items():
            if not np.isfinite(got[name]).all():
                raise ParityError(
                    f"{source.name} in fp16 gives NaN or Inf as {name}",
                    hint="nothing was kept; run this model in fp32 or bf16",
                )
            error = float(np.sqrt(np.mean((got[name].astype(np.float64) - exact) ** 2)))
            span = float(np.ptp(exact)) or 1.0
            least = min(least, PSNR_CAP if error == 0 else 20 * math.log10(span / error))
    return round(least, 1)


def worst(parts: Mapping[str, Mapping[str, object]], *keys: str) -> float:
    """Give the least of the components' PSNRs in dB."""
    return min(float(str(part[key])) for part in parts.values() for key in keys)


def reasons(model: ir.Model, wide: Mapping[str, str]) -> dict[str, int]:
    """Count why nodes of the finished graph compute in fp32."""
    return dict(Counter(wide[str(node.name)] for node in model.graph if str(node.name) in wide))


def largest(source: Source) -> dict[str, object]:
    """Name the tensor with the largest number, for the report."""
    ranges = source.seen.ranges
    name = max(ranges, key=ranges.__getitem__)
    value = ranges[name]
    return {"tensor": name, "value": None if math.isinf(value) else float(f"{value:.6g}")}
