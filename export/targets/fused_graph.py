"""Writes one component fused and in fp16, and measures what became of it.

First it is fused, then made narrow, because the patterns are sought in fp32.
"""

import shutil
from collections import Counter
from pathlib import Path

from export.errors import GraphError
from export.targets.activations import wide_nodes
from export.targets.contrib import schema_faults, spelled_out
from export.targets.fusion import fuse
from export.targets.half import open_model, to_half
from export.targets.narrowing import (
    Source,
    check_graph,
    fidelity,
    largest,
    read_graph,
    reasons,
    save_graph,
)

__all__ = ["write_fused"]

PLAIN = ".plain"  # folder of the graph before fusion, which is measured and removed


def write_fused(source: Source, folder: Path) -> dict[str, object]:
    """Write `folder`/model.onnx and its weights; give the component's part of the report.

    Raises GraphError when ONNX Runtime does not know what was fused as it stands, ParityError.
    """
    model = open_model(source.file)
    wide = wide_nodes(model.graph, source.seen.ranges)
    plain = folder / PLAIN
    try:
        to_half(model, wide)
        graph = read_graph(save_graph(model, plain))
        check_graph(graph)
        unfused = fidelity(source, graph, plain)
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
    fused = fidelity(source, spelled, folder)
    return {
        "nodes_fp16": halved.narrow,
        "nodes_fp32": halved.wide,
        "fp32_because": reasons(model, wide),
        "casts": halved.casts,
        "transposes": sum(node.op_type == "Transpose" for node in graph.graph.node),
        "largest": largest(source),
        "fused": {name: count for name, count in sorted(fusions.made.items()) if count},
        "not_fused": {name: count for name, count in sorted(fusions.left.items()) if count},
        "psnr_plain": unfused,
        "psnr_fused": fused,
    }
