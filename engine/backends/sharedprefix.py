"""What a unet computes alike for all texts, computed once.

A unet shows one picture to every text. Up to where a text is first looked at (Stable Diffusion 1
and 2: the first residual block and the first self-attention, at full resolution) the rows of its
batch are equal: they are computed as one row, and repeated where the texts come in.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from engine.backends import Array, Session, Shapes

__all__ = ["OnePicture", "all_rows", "one_picture", "one_text", "share_prefix", "texts_of"]

# Inputs with a row for each text that are one picture: what is drawn, what steers a ControlNet.
PICTURES: Final = ("sample", "controlnet_cond")
_ALIKE: Final = frozenset({*PICTURES, "timestep", "conditioning_scale"})
_TEXT: Final = "encoder_hidden_states"


def texts_of(shapes: Shapes) -> int:
    """Give how many texts one picture is shown to; 1 where each has a row of its own."""
    texts, rows = (shapes.get(name, (1,))[0] for name in (_TEXT, PICTURES[0]))
    return texts if rows == 1 else 1


def one_picture(shapes: Shapes) -> Shapes:
    """Give a unet's shapes with pictures of one row; those of other components as they are."""
    if _TEXT not in shapes:
        return shapes
    return {name: _first(shape) if name in PICTURES else shape for name, shape in shapes.items()}


def one_text(shapes: Shapes) -> Shapes:
    """Give a unet's shapes for one text."""
    return {name: _first(shape) for name, shape in shapes.items()}


def all_rows(shapes: Shapes) -> Shapes:
    """Give the shapes of a network that has a row of the picture for each text."""
    texts = texts_of(shapes)
    return {
        name: (texts, *shape[1:]) if name in PICTURES and shape[0] == 1 else shape
        for name, shape in shapes.items()
    }


def _first(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (1, *shape[1:]) if shape else shape


class OnePicture:
    """A unet's session that was loaded for `one_picture`, and is given a row for each text."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def run(self, inputs: Mapping[str, Array]) -> NDArray[np.float32]:
        """Run on the pictures' first rows: the others are equal."""
        return self._session.run(_first_rows(inputs))

    def run_all(self, inputs: Mapping[str, Array]) -> dict[str, NDArray[np.float32]]:
        """Run on the pictures' first rows, for every output."""
        return self._session.run_all(_first_rows(inputs))


def _first_rows(inputs: Mapping[str, Array]) -> dict[str, Array]:
    return {name: each[:1] if name in PICTURES else each for name, each in inputs.items()}


def share_prefix(ov: Any, graph: Any, one: Any) -> Any:
    """Give a model like `graph` whose pictures have one row. ov: the openvino module.

    graph: static, with a row for each text. one: a copy of it, static for one text. Both are used
    up. Where a node that sees texts asks for what all rows have alike, it gets what `one` computes,
    repeated.
    """
    op = ov.opset13
    inputs, ones = _inputs(graph), _inputs(one)
    texts: int = inputs[_TEXT].get_output_shape(0)[0]
    nodes: list[Any] = graph.get_ordered_ops()
    singles: list[Any] = one.get_ordered_ops()  # may be fewer: some are folded for one row
    alone: dict[str, Any] = {each.get_friendly_name(): each for each in singles}
    names_of_all = {each.get_friendly_name() for each in nodes}
    seeing = {each.get_friendly_name() for name, each in inputs.items() if name not in _ALIKE}
    if (len(alone), len(names_of_all)) != (len(singles), len(nodes)):
        nodes = []  # two nodes of one name: nothing is certain, nothing shared
    repeated: dict[tuple[str, int], Any] = {}
    for node in nodes:
        if node.get_type_name() == "ShapeOf":  # a size is the same for all rows
            continue
        asked = [(port, port.get_source_output()) for port in node.inputs()]
        names = [source.get_node().get_friendly_name() for _, source in asked]
        if seeing.isdisjoint(names):
            continue
        seeing.add(node.get_friendly_name())
        for (port, source), name in zip(asked, names, strict=True):
            key = name, source.get_index()
            if name in seeing or name not in alone:
                continue
            value = alone[name].output(source.get_index())
            if not _is_row_of(value, source, texts):
                continue
            if key not in repeated:
                repeated[key] = op.concat([value] * texts, 0).output(0)
            port.replace_source_output(repeated[key])
    for name, parameter in inputs.items():
        node, row = parameter.output(0), ones[name].output(0)
        if name not in _ALIKE:  # `one` is asked for a text's size alone: any text tells it
            kind = parameter.get_element_type().to_dtype()
            row.replace(op.constant(np.zeros(list(row.get_shape()), kind)).output(0))
        elif name in PICTURES:  # for what still asks for all rows, such as for their number
            node.replace(op.concat([row] * texts, 0).output(0))
        else:
            row.replace(node)
    parameters: list[Any] = [
        ones[name] if name in PICTURES else node for name, node in inputs.items()
    ]
    return ov.Model(graph.get_results(), parameters, graph.get_friendly_name())


def _inputs(graph: Any) -> dict[str, Any]:
    return {port.get_any_name(): port.get_node() for port in graph.inputs}


def _is_row_of(value: Any, whole: Any, rows: int) -> bool:
    """Say whether `value` has the shape of one row of `whole`."""
    if value.get_partial_shape().is_dynamic or whole.get_partial_shape().is_dynamic:
        return False
    row, all_rows = list(value.get_shape()), list(whole.get_shape())
    return bool(row) and row[0] == 1 and all_rows == [rows, *row[1:]]
