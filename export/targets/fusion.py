"""Fuses a graph into the operators for which ONNX Runtime has CUDA kernels, in a derived copy.

MultiHeadAttention, GroupNorm, SkipGroupNorm, SkipLayerNormalization, NhwcConv, BiasSplitGelu and
Gelu of the domain `com.microsoft` (onnxruntime, docs/ContribOperators.md). It happens in fp32,
before the graph is made narrow, and what must stay in fp32 is not touched.
"""

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes

from export.targets.half import FLOAT, set_type, stored_weight
from export.targets.layout import Layout
from export.targets.patterns import (
    attention_at,
    gated_gelu_at,
    gelu_at,
    group_norm_at,
    made_by,
    other_input,
)

__all__ = ["DOMAIN", "Fusions", "fuse"]

DOMAIN = "com.microsoft"
# The CUDA kernel of BiasSplitGelu is compiled for these widths alone (bias_split_gelu.cc).
SPLIT_WIDTHS = (2560, 5120, 10240)


@dataclass(frozen=True, kw_only=True, slots=True)
class Fusions:
    """What was fused: operator -> count, and what was not: reason -> count."""

    made: Counter[str] = field(default_factory=Counter)
    left: Counter[str] = field(default_factory=Counter)


def fuse(model: ir.Model, wide: Collection[str]) -> Fusions:
    """Fuse `model` in place. wide: names of nodes that must compute in fp32, and stay as they are.

    Weights keep their values; those of convolutions are turned to [out, height, width, in].
    """
    work = _Fuser(model, wide)
    for kind, rewrite in (
        ("Softmax", work.attention),
        ("Split", work.gated_gelu),
        ("Erf", work.gelu),
        ("InstanceNormalization", work.group_norm),
    ):
        work.each(kind, rewrite)
    work.each("LayerNormalization", work.skip_layer_norm)
    work.each("GroupNorm", work.skip_group_norm)
    work.each("Conv", work.convolution)
    work.layout.propagate()
    passes.RemoveUnusedNodesPass()(model)
    model.opset_imports[DOMAIN] = 1
    model.graph.sort()
    return work.found


class _Fuser:
    """The rewriting rules, each given the node in the middle of its pattern."""

    def __init__(self, model: ir.Model, wide: Collection[str]) -> None:
        self.model = model
        self.graph = graph = model.graph
        self.wide = wide
        self.layout = Layout(graph)
        self.found = Fusions()

    def each(self, kind: str, rewrite: Callable[[ir.Node], None]) -> None:
        """Apply a rule to every node of a kind, then drop what it left without a user."""
        for node in [node for node in self.graph if node.op_type == kind]:
            rewrite(node)
        passes.RemoveUnusedNodesPass()(self.model)

    def _may(self, what: str, nodes: tuple[ir.Node, ...]) -> bool:
        stays = any(node.name in self.wide for node in nodes)
        self.found.left[f"{what}: computes in fp32"] += stays
        return not stays

    def _put(self, node: ir.Node, old: ir.Value) -> ir.Value:
        """Put a fused node where `old` was made; its first output takes the name."""
        new = node.outputs[0]
        new.name, old.name = old.name, f"{old.name}/unfused"
        set_type(new, FLOAT, old.shape)
        maker = old.producer()
        if maker is None:
            raise ValueError("a fused value is made by a node")
        self.graph.insert_before(maker, node)
        old.replace_all_uses_with(new, replace_graph_outputs=True)
        self.found.made[node.op_type] += 1
        return new

    def attention(self, softmax: ir.Node) -> None:
        """MultiHeadAttention of q, k and v as the linear layers give them."""
        match = attention_at(softmax)
        if match is None:
            self.found.left["MultiHeadAttention: another pattern"] += 1
        elif self._may("MultiHeadAttention", match.nodes):
            attributes = {"num_heads": match.heads, "scale": match.scale}
            attributes |= {"unidirectional": 1} if match.causal else {}
            node = ir.node(
                "MultiHeadAttention",
                [match.q, match.k, match.v],
                attributes,
                domain=DOMAIN,
                name=f"{match.end.name}/attention",
            )
            self._put(node, match.end)

    def gated_gelu(self, split: ir.Node) -> None:
        """BiasSplitGelu, where the kernel knows the width."""
        match = gated_gelu_at(split)
        if match is None:
            return
        width = match.bias.shape[0] if match.bias.shape is not None else None
        if width not in SPLIT_WIDTHS:
            self.found.left[f"BiasSplitGelu: no kernel for {width} channels"] += 1
        elif self._may("BiasSplitGelu", match.nodes):
            name = f"{match.end.name}/split_gelu"
            node = ir.node("BiasSplitGelu", [match.x, match.bias], domain=DOMAIN, name=name)
            self._put(node, match.end)

    def gelu(self, erf: ir.Node) -> None:
        """Gelu, where it was not a part of BiasSplitGelu."""
        match = gelu_at(erf)
        if match is not None and self._may("Gelu", match.nodes):
            node = ir.node("Gelu", [match.x], domain=DOMAIN, name=f"{match.end.name}/gelu")
            self._put(node, match.end)

    def group_norm(self, norm: ir.Node) -> None:
        """GroupNorm, SiLU included, with channels last: the only layout of the kernel."""
        match = group_norm_at(norm)
        if match is None:
            self.found.left["GroupNorm: not of four dimensions"] += 1
            return
        channels = match.scale.shape[0] if match.scale.shape is not None else None
        # A thread of the kernel takes two neighbouring channels, and groups of an odd number come
        # out wrong without a word (group_norm_impl_kernel.cuh).
        if not isinstance(channels, int) or channels % (2 * match.groups):
            self.found.left["GroupNorm: an odd number of channels a group"] += 1
        elif self._may("GroupNorm", match.nodes):
            attributes = {
                "epsilon": match.epsilon,
                "groups": match.groups,
                "activation": int(match.swish),
            }
            node = ir.node(
                "GroupNorm",
                [self.layout.last(match.x), match.scale, match.shift],
                attributes,
                domain=DOMAIN,
                name=f"{match.end.name}/group_norm",
            )
            self._put_last(node, match.end)

    def _put_last(self, node: ir.Node, old: ir.Value) -> None:
        """Put a node whose output has the channels last in the place of `old`."""
        self.found.made[node.op_type] += 1
        self.layout.replace(node, old)

    def skip_group_norm(self, norm: ir.Node) -> None:
        """SkipGroupNorm of a sum that is normalised next; the sum itself is its second output."""
        turned = made_by(norm.inputs[0], "Transpose")
        total = turned.inputs[0] if turned is not None else None
        added = made_by(total, "Add")
        if turned is None or total is None or added is None:
            return
        pair = self._summands(added)
        if pair is None or not self._may("SkipGroupNorm", (added,)):
            return
        others = [use for use in total.uses() if use.node is not turned]
        node = ir.node(
            "SkipGroupNorm",
            [pair[0], norm.inputs[1], norm.inputs[2], pair[1]],
            dict(norm.attributes),
            domain=DOMAIN,
            num_outputs=2 if others else 1,
            name=f"{norm.name}/skip",
        )
        normed = norm.outputs[0]
        node.outputs[0].name, normed.name = normed.name, f"{normed.name}/unskipped"
        set_type(node.outputs[0], FLOAT, normed.shape)
        self.graph.insert_before(norm, node)
        normed.replace_all_uses_with(node.outputs[0])
        if others:
            self.layout.replace_sum(node, total)
        self.found.made["GroupNorm"] -= 1
        self.found.made["SkipGroupNorm"] += 1

    def _summands(self, added: ir.Node) -> tuple[ir.Value, ir.Value] | None:
        """Give x f[N, H, W, C] and skip f[N, H, W, C] or f[N, C] of a sum of pictures."""
        first, second = added.inputs
        if first is None or second is None:
            return None
        for whole in (first, second):
            rest = other_input(added, whole)
            spread = made_by(rest, "Unsqueeze")
            vector = spread.inputs[0] if spread is not None else None
            if vector is not None and vector.shape is not None and len(vector.shape) == 2:
                return self.layout.last(whole), vector
        same = first.shape is not None and first.shape == second.shape and len(first.shape) == 4
        return (self.layout.last(first), self.layout.last(second)) if same else None

    def skip_layer_norm(self, norm: ir.Node) -> None:
        """SkipLayerNormalization of a sum f[N, S, D], its linear layer's bias included."""
        total = norm.inputs[0]
        added = made_by(total, "Add")
        if total is None or added is None or len(norm.inputs) != 3:
            return
        x, skip = added.inputs
        if x is None or skip is None or x.shape is None or x.shape != skip.shape:
            return
        if len(x.shape) != 3 or norm.attributes["axis"].as_int() not in {2, -1}:
            return
        if not self._may("SkipLayerNormalization", (added, norm)):
            return
        x, skip, bias = _without_bias(x, skip)
        others = [use for use in total.uses() if use.node is not norm]
        node = ir.node(
            "SkipLayerNormalization",
            [x, skip, *norm.inputs[1:], *([] if bias is None else [bias])],
            {"epsilon": norm.attributes["epsilon"]},
            domain=DOMAIN,
            num_outputs=4 if others else 1,
            name=f"{norm.name}/skip",
        )
        if others:
            node.outputs[1].name = node.outputs[2].name = ""  # mean and deviation: not wanted
            summed = node.outputs[3]
            summed.name, total.name = total.name, f"{total.name}/unskipped"
            set_type(summed, FLOAT, total.shape)
        self._put(node, norm.outputs[0])
        if others:
            total.replace_all_uses_with(node.outputs[3], replace_graph_outputs=True)

    def convolution(self, conv: ir.Node) -> None:
        """NhwcConv, its weights turned when the file is written."""
        x, weight = conv.inputs[0], conv.inputs[1]
        stored = stored_weight(weight) if weight is not None else None
        group = conv.attributes.get("group")
        plain = group is None or group.as_int() == 1
        if x is None or stored is None or stored.const_value is None or not plain:
            self.found.left["NhwcConv: grouped, or without a stored weight"] += 1
        elif stored.shape is None or len(stored.shape) != 4:
            self.found.left["NhwcConv: not of two dimensions"] += 1
        elif self._may("NhwcConv", (conv,)):
            turned = _turned_weight(self.graph, stored, conv)
            kept = {name: item for name, item in conv.attributes.items() if name != "auto_pad"}
            node = ir.node(
                "NhwcConv",
                [self.layout.last(x), turned, *conv.inputs[2:]],
                kept,
                domain=DOMAIN,
                name=f"{conv.outputs[0].name}/nhwc",
            )
            self._put_last(node, conv.outputs[0])


def _without_bias(x: ir.Value, skip: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value | None]:
    """Give two summands, and the f[D] that was added to one of them for this sum alone."""
    for one, rest in ((x, skip), (skip, x)):
        added = made_by(one, "Add")
        if added is None or len(one.uses()) != 1 or one.is_graph_output():
            continue
        for place, value in enumerate(added.inputs):
            plain = added.inputs[1 - place]
            if value is not None and plain is not None and _is_vector(value):
                return plain, rest, value
    return x, skip, None


def _is_vector(value: ir.Value) -> bool:
    return stored_weight(value) is not None and value.shape is not None and len(value.shape) == 1


def _turned_weight(graph: ir.Graph, stored: ir.Value, conv: ir.Node) -> ir.Value:
    """Give f[out, h, w, in] of a stored f[out, in, h, w], widened where it is stored in fp16."""
    name, values = f"{stored.name}/nhwc", stored.const_value
    if name in graph.initializers:
        turned = graph.initializers[name]
    else:
        if values is None:
            raise ValueError("a stored weight has values")

        def read() -> ir.TensorProtocol:
            array = np.asarray(values.numpy()).transpose(0, 2, 3, 1)
            return ir.tensor(np.ascontiguousarray(array), name=name)

        out, into, high, wide = values.shape.numpy()
        shape = ir.Shape([out, high, wide, into])
        turned = ir.Value(name=name)
        set_type(turned, values.dtype, shape)
        turned.const_value = ir.LazyTensor(read, dtype=values.dtype, shape=shape, name=name)
        graph.register_initializer(turned)
    if turned.dtype == FLOAT:
        return turned
    cast = ir.node("Cast", [turned], {"to": FLOAT}, name=f"{conv.name}/nhwc/widen")
    cast.outputs[0].name = f"{conv.name}/nhwc/fp32"
    set_type(cast.outputs[0], FLOAT, turned.shape)
    graph.insert_before(conv, cast)
    return cast.outputs[0]
