"""Makes ONNX Runtime round to fp16 on the CPU as a card does, so that errors and overflow show.

It has no fp16 arithmetic there: it computes such nodes in fp32 and leaves out the casts between
neighbours, those that stand in the graph as well, so that nothing would ever be rounded.
"""

import onnx
from onnx import TensorProto, helper

__all__ = ["rounding"]

# They move numbers and make none.
MOVING = (
    "Cast",
    "Concat",
    "Expand",
    "Gather",
    "Identity",
    "Reshape",
    "Slice",
    "Split",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
)


def rounding(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Give a copy in which every number that a node makes in fp16 is stored in fp16.

    Behind each such node stand two Identity nodes, which ONNX Runtime does run in fp16: it
    computes a single one between casts in fp32, and drops them when it optimises.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    halves = {
        value.name
        for value in copy.graph.value_info
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16
    }
    nodes = list(copy.graph.node)
    del copy.graph.node[:]
    for node in nodes:
        wanted = [] if node.op_type in MOVING else [name for name in node.output if name in halves]
        for place, name in enumerate(node.output):
            if name in wanted:
                node.output[place] = f"{name}/raw"
        copy.graph.node.append(node)
        for name in wanted:
            once = f"{name}/once"
            copy.graph.node.append(helper.make_node("Identity", [f"{name}/raw"], [once]))
            copy.graph.node.append(helper.make_node("Identity", [once], [name]))
    return copy
