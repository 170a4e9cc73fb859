"""Writes one component as a typed graph of standard operators in fp16, and measures it.

Weights keep the checkpoint's names, by which a refittable plan exchanges them. Normalisations over
pictures compute in fp32: their sums run over up to a million numbers.
"""

from pathlib import Path

import onnx_ir as ir

from export.targets.activations import wide_nodes
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

__all__ = ["normalisations", "write_typed"]

NORMALISATIONS = ("GroupNormalization", "InstanceNormalization")


def write_typed(source: Source, folder: Path) -> dict[str, object]:
    """Write `folder`/model.onnx and its weights; give the component's part of the report.

    Raises GraphError where a type does not fit, ParityError.
    """
    model = open_model(source.file)
    wide = normalisations(model) | wide_nodes(model.graph, source.seen.ranges)
    halved = to_half(model, wide)
    graph = read_graph(save_graph(model, folder))
    check_graph(graph)
    return {
        "nodes_fp16": halved.narrow,
        "nodes_fp32": halved.wide,
        "fp32_because": reasons(model, wide),
        "casts": halved.casts,
        "largest": largest(source),
        "psnr": fidelity(source, graph, folder),
    }


def normalisations(model: ir.Model) -> dict[str, str]:
    """Give the names of group normalisations, which TensorRT gets in fp32, with that reason."""
    return {
        str(node.name): "normalisation" for node in model.graph if node.op_type in NORMALISATIONS
    }
