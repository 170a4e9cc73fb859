"""What ONNX Runtime's own operators compute, written in ONNX's: a fused graph runs without a GPU.

GroupNorm, SkipGroupNorm, NhwcConv and BiasSplitGelu have kernels for CUDA alone. Here each becomes
a function of the graph by its description (onnxruntime, docs/ContribOperators.md), so that a fused
graph's numbers can be compared on a CPU. `schema_faults` holds every use against ONNX Runtime's own
list of operators.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import onnx
from onnx import helper, parser

from engine.backends.onnxruntime import runtime
from export.targets.fusion import DOMAIN

__all__ = ["CHECK_DOMAIN", "schema_faults", "spelled_out"]

CHECK_DOMAIN = "safelight.check"
OPSET = 18
FLOAT_TYPES = {1: "tensor(float)", 10: "tensor(float16)"}


def spelled_out(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Give a copy whose CUDA-only operators are functions of standard ones."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    ranks = {
        value.name: len(value.type.tensor_type.shape.dim)
        for value in (*copy.graph.value_info, *copy.graph.input)
    }
    names: dict[str, str] = {}
    for node in copy.graph.node:
        write = BODIES.get(node.op_type) if node.domain == DOMAIN else None
        if write is None:
            continue
        body = write(node, ranks)
        names.setdefault(body, f"{node.op_type}_{len(names)}")
        node.domain, node.op_type = CHECK_DOMAIN, names[body]
        del node.attribute[:]
    head = f'<domain: "{CHECK_DOMAIN}", opset_import: ["" : {OPSET}]>'
    copy.functions.extend(
        parser.parse_function(f"{head} {name} {body}") for body, name in names.items()
    )
    if names:
        copy.opset_import.append(helper.make_opsetid(CHECK_DOMAIN, 1))
    return copy


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {item.name: helper.get_attribute_value(item) for item in node.attribute}


def _normalised(node: onnx.NodeProto, x: str) -> str:
    """Write the lines from `x` f[N, H, W, C] to `y`, computed in fp32 as the kernel does."""
    given = _attributes(node)
    groups = given["groups"]
    ones, zeros = ", ".join(["1.0"] * groups), ", ".join(["0.0"] * groups)
    lines = [
        f"wide = Cast <to = 1> ({x})",
        "first = Transpose <perm = [0, 3, 1, 2]> (wide)",
        "shape = Shape (first)",
        f"grouped = Constant <value_ints = [0, {groups}, -1]> ()",
        "flat = Reshape (first, grouped)",
        f"one = Constant <value_floats = [{ones}]> ()",
        f"zero = Constant <value_floats = [{zeros}]> ()",
        f"normed = InstanceNormalization <epsilon = {given['epsilon']:.9e}> (flat, one, zero)",
        "back = Reshape (normed, shape)",
        "last = Transpose <perm = [0, 2, 3, 1]> (back)",
        "scaled = Mul (last, gamma)",
        "shifted = Add (scaled, beta)",
    ]
    end = "shifted"
    if given["activation"]:
        lines += ["gate = Sigmoid (shifted)", "swish = Mul (shifted, gate)"]
        end = "swish"
    return "\n".join([*lines, f"y = CastLike ({end}, {x})"])


def _group_norm(node: onnx.NodeProto, ranks: Mapping[str, int]) -> str:  # noqa: ARG001
    return f"(x, gamma, beta) => (y) {{ {_normalised(node, 'x')} }}"


def _skip_group_norm(node: onnx.NodeProto, ranks: Mapping[str, int]) -> str:
    outputs = "y, s" if len(node.output) > 1 else "y"
    lines = ["axes = Constant <value_ints = [1, 2]> ()", "spread = Unsqueeze (skip, axes)"]
    vector = ranks.get(node.input[3]) == 2
    added = [*lines, "s = Add (x, spread)"] if vector else ["s = Add (x, skip)"]
    body = "\n".join([*added, _normalised(node, "s")])
    return f"(x, gamma, beta, skip) => ({outputs}) {{ {body} }}"


def _nhwc_conv(node: onnx.NodeProto, ranks: Mapping[str, int]) -> str:  # noqa: ARG001
    given = ", ".join(
        f"{name} = {list(value) if not isinstance(value, int) else value}"
        for name, value in sorted(_attributes(node).items())
    )
    bias = ", bias" if len(node.input) > 2 else ""
    return f"""(x, w{bias}) => (y) {{
        first = Transpose <perm = [0, 3, 1, 2]> (x)
        weight = Transpose <perm = [0, 3, 1, 2]> (w)
        made = Conv <{given}> (first, weight{bias})
        y = Transpose <perm = [0, 2, 3, 1]> (made)
    }}"""


def _bias_split_gelu(node: onnx.NodeProto, ranks: Mapping[str, int]) -> str:  # noqa: ARG001
    return """(x, bias) => (y) {
        added = Add (x, bias)
        wide = Cast <to = 1> (added)
        left, right = Split <axis = -1, num_outputs = 2> (wide)
        root = Constant <value_float = 1.4142135623730951> ()
        one = Constant <value_float = 1.0> ()
        half = Constant <value_float = 0.5> ()
        divided = Div (right, root)
        error = Erf (divided)
        plus = Add (error, one)
        halved = Mul (plus, half)
        gelu = Mul (right, halved)
        made = Mul (left, gelu)
        y = CastLike (made, x)
    }"""


BODIES: Mapping[str, Callable[[onnx.NodeProto, Mapping[str, int]], str]] = {
    "GroupNorm": _group_norm,
    "SkipGroupNorm": _skip_group_norm,
    "NhwcConv": _nhwc_conv,
    "BiasSplitGelu": _bias_split_gelu,
}


def schema_faults(proto: onnx.ModelProto) -> Iterator[str]:
    """Yield what ONNX Runtime's own operator list does not know of this graph's operators.

    Looked at: name, attributes, how many inputs and outputs, and their float types.
    """
    kinds = {
        value.name: value.type.tensor_type.elem_type
        for value in (*proto.graph.value_info, *proto.graph.input, *proto.graph.output)
    }
    kinds |= {tensor.name: tensor.data_type for tensor in proto.graph.initializer}
    binding = runtime().capi.onnxruntime_pybind11_state
    known = {
        schema.name: schema
        for schema in binding.get_all_operator_schema()
        if schema.domain == DOMAIN
    }
    for node in proto.graph.node:
        if node.domain == DOMAIN:
            schema = known.get(node.op_type)
            if schema is None:
                yield f"there is no operator {node.op_type}"
            else:
                yield from _faults_of(node, schema, kinds)


def _faults_of(node: onnx.NodeProto, schema: Any, kinds: Mapping[str, int]) -> Iterator[str]:
    for item in node.attribute:
        if item.name not in schema.attributes:
            yield f"{node.op_type} has no attribute {item.name}"
    given = {item.name for item in node.attribute}
    for name, item in schema.attributes.items():
        if item.required and name not in given:
            yield f"{node.op_type} needs the attribute {name}"
    if not schema.min_input <= len(node.input) <= schema.max_input:
        yield f"{node.op_type} takes {schema.min_input} to {schema.max_input} inputs"
    if not schema.min_output <= len(node.output) <= schema.max_output:
        yield f"{node.op_type} gives {schema.min_output} to {schema.max_output} outputs"
    allowed = {item.type_param_str: set(item.allowed_type_strs) for item in schema.type_constraints}
    bound: dict[str, str] = {}
    pairs = (*zip(node.input, schema.inputs, strict=False),
             *zip(node.output, schema.outputs, strict=False))  # fmt: skip
    for name, port in pairs:
        kind = FLOAT_TYPES.get(kinds.get(name, 0))
        if not name or kind is None:
            continue
        if kind not in allowed.get(port.typeStr, {kind}):
            yield f"{node.op_type} does not take {kind} as {port.name}"
        if bound.setdefault(port.typeStr, kind) != kind:
            yield f"{node.op_type} takes one type as {port.typeStr}, not {kind} as well"
