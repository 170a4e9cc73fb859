"""The `cuda` target: graphs for ONNX Runtime's CUDA provider, fused, in fp16 with fp32 islands.

First fused, then made narrow, because a pattern is sought in fp32. Inputs and outputs stay those of
the bundle (float32, int64), so that the engine's loop drives it as it drives the others. A derived
graph is for CUDA alone: four of its operators have no other kernel.

`unverified on hardware`: no card was at hand. What can be known without one is in the report: how
far both the plain and the fused fp16 graph are from fp32 when ONNX Runtime computes them on a CPU.
"""

import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from engine.bundle import Bundle
from export.errors import GraphError
from export.targets.activations import wide_nodes
from export.targets.contrib import schema_faults, spelled_out
from export.targets.fusion import fuse
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

__all__ = ["build"]

UNVERIFIED = "unverified on hardware: compared by ONNX Runtime on the CPU, never run on a card"
PLAIN = ".plain"  # of the graph before fusion, which is measured and removed


def build(
    bundle: Bundle,
    out: Path,
    *,
    shapes: Sequence[object] = (),  # noqa: ARG001  the graphs stay free in batch, height and width
    progress: Progress,
) -> dict[str, object]:
    """Write COMPONENT/model.onnx with its weights into `out` and give the report.

    The report has for each component: how many nodes compute in fp16 and in fp32 and why, the
    largest activation, what was fused and what was not and why, and the PSNR in dB of the plain and
    the fused fp16 graph. Raises ParityError where one of them is too far from fp32, GraphError, and
    the engine's errors.
    """
    parts = {
        source.name: _derive(source, out / source.name) for source in observed(bundle, progress)
    }
    return {"components": parts, "verified": UNVERIFIED}


def _derive(source: Source, folder: Path) -> dict[str, object]:
    model = open_model(source.file)
    wide = wide_nodes(model.graph, source.seen.ranges)
    plain = folder / PLAIN
    try:
        to_half(model, wide)
        graph = read_graph(save_graph(model, plain))
        check_graph(graph)
        unfused = check_fidelity(source, "not fused", fidelity(source, graph, plain))
    finally:
        shutil.rmtree(plain, ignore_errors=True)
    model = open_model(source.file)
    fusions = fuse(model, wide)
    halved = to_half(model, wide)
    graph = read_graph(save_graph(model, folder))
    faults = Counter(schema_faults(graph))
    if faults:
        raise GraphError(f"{source.name}: {next(iter(faults))}")
    spelled = spelled_out(graph)
    check_graph(spelled)
    fused = check_fidelity(source, "fused", fidelity(source, spelled, folder))
    return {
        "nodes_fp16": halved.narrow,
        "nodes_fp32": halved.wide,
        "fp32_because": dict(Counter(wide.values())),
        "casts": halved.casts,
        "transposes": sum(node.op_type == "Transpose" for node in graph.graph.node),
        "largest": largest(source),
        "fused": {name: count for name, count in sorted(fusions.made.items()) if count},
        "not_fused": {name: count for name, count in sorted(fusions.left.items()) if count},
        "psnr_plain": unfused,
        "psnr_fused": fused,
    }
