"""The `tensorrt` target: strongly typed graphs in fp16 with fp32 islands, and plans of them.

The graphs hold standard operators alone, and weights keep the checkpoint's names, by which a
refittable plan exchanges them. Normalisations over pictures compute in fp32: their sums run over
up to a million numbers. `unverified on hardware`.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.bundle import Bundle
from export.targets.activations import wide_nodes
from export.targets.half import open_model, to_half
from export.targets.narrowing import (
    Progress,
    Source,
    check_fidelity,
    check_graph,
    fidelity,
    largest,
    observed,
    read_graph,
    save_graph,
)
from export.targets.plan import USUAL, PlanOptions, build_plan, load_tensorrt
from export.targets.profile import Profile, profile_of, shape_ranges

__all__ = ["PLAN_NAME", "build", "write_typed_graphs"]

PLAN_NAME = "model.plan"
UNVERIFIED = "unverified on hardware: compared by ONNX Runtime on the CPU, never run on a card"
NORMALISATIONS = ("GroupNormalization", "InstanceNormalization")


def build(
    bundle: Bundle,
    out: Path,
    *,
    shapes: Sequence[Sequence[int]] = (),
    progress: Progress,
    options: PlanOptions = USUAL,
) -> dict[str, object]:
    """Write COMPONENT/model.plan, and the typed graph that it was made of, into `out`.

    shapes: (width, height) or (width, height, batch) in pixels that the plans must cover, the
    first one the fastest. Gives the report of `write_typed_graphs` with plan sizes, shapes and
    TensorRT's version. Raises DeviceError without TensorRT or a card before anything is written.
    """
    trt = load_tensorrt()
    profile = profile_of(bundle.manifest, shapes)
    report = write_typed_graphs(bundle, out, progress=lambda s, f: progress(s, f / 2))
    parts: dict[str, dict[str, object]] = report["components"]  # pyright: ignore[reportAssignmentType]
    for place, (name, part) in enumerate(parts.items()):
        progress(f"build {name}", (1 + place / len(parts)) / 2)
        part.update(_plan(trt, bundle, out / name, profile, options))
    return report | {"tensorrt": str(trt.__version__), "refittable": options.refittable}


def _plan(
    trt: Any, bundle: Bundle, folder: Path, profile: Profile, options: PlanOptions
) -> dict[str, object]:
    ranges = shape_ranges(bundle.manifest.components[folder.name].inputs, profile)
    size = build_plan(trt, folder / "model.onnx", folder / PLAN_NAME, ranges, options)
    shapes = {name: [each.least, each.best, each.most] for name, each in ranges.items()}
    return {"plan_bytes": size, "shapes": shapes}


def write_typed_graphs(bundle: Bundle, out: Path, *, progress: Progress) -> dict[str, Any]:
    """Write COMPONENT/model.onnx with its weights into `out`: what TensorRT compiles.

    Gives for each component how many nodes compute in fp16 and in fp32 and why, the largest
    activation, and the PSNR in dB against fp32. Needs no TensorRT. Raises ParityError, GraphError
    and the engine's errors.
    """
    parts = {
        source.name: _typed(source, out / source.name) for source in observed(bundle, progress)
    }
    return {"components": parts, "verified": UNVERIFIED}


def _typed(source: Source, folder: Path) -> dict[str, object]:
    model = open_model(source.file)
    wide = wide_nodes(model.graph, source.seen.ranges)
    for node in model.graph:
        if node.op_type in NORMALISATIONS:
            wide.setdefault(str(node.name), "normalisation")
    halved = to_half(model, wide)
    graph = read_graph(save_graph(model, folder))
    check_graph(graph)
    return {
        "nodes_fp16": halved.narrow,
        "nodes_fp32": halved.wide,
        "fp32_because": dict(Counter(wide.values())),
        "casts": halved.casts,
        "largest": largest(source),
        "psnr": check_fidelity(source, "typed", fidelity(source, graph, folder)),
    }
