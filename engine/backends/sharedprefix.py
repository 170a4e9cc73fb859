"""What a unet computes alike for all texts, computed once.

A unet shows each picture to every text. Up to where a text is first looked at (Stable Diffusion 1
and 2: the first residual block and the first self-attention, at full resolution) the rows of all
texts are equal: they are computed once, and repeated where the texts come in.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from engine.backends import Array, Session, Shapes

__all__ = ["SharedPictures", "all_rows", "one_text", "share_prefix", "shared_pictures", "texts_of"]

# Inputs with a row for each text that are one picture: what is drawn, what steers a ControlNet.
PICTURES: Final = ("sample", "controlnet_cond")
_ALIKE: Final = frozenset({*PICTURES, "timestep", "conditioning_scale"})
_TEXT: Final = "encoder_hidden_states"


def texts_of(shapes: Shapes) -> int:
    """Give how many texts each picture is shown to; 1 where the picture has a row for each."""
    texts, rows = (shapes.get(name, (1,))[0] for name in (_TEXT, PICTURES[0]))
    return texts // rows if rows and texts % rows == 0 else 1


def shared_pictures(shapes: Shapes, pictures: int = 1) -> Shapes:
    """Give a unet's shapes with a row for each picture alone; those of other components as they
    are.
    """
    if _TEXT not in shapes:
        return shapes
    return {
        name: _rows(shape, pictures) if name in PICTURES else shape
        for name, shape in shapes.items()
    }


def one_text(shapes: Shapes) -> Shapes:
    """Give a unet's shapes for one text, beside as many pictures."""
    pictures = shapes.get(PICTURES[0], (1,))[0]
    return {name: _rows(shape, pictures) for name, shape in shapes.items()}


def all_rows(shapes: Shapes) -> Shapes:
    """Give the shapes of a network that has a row of the pictures for each text."""
    texts = texts_of(shapes)
    return {
        name: (texts * shape[0], *shape[1:]) if name in PICTURES else shape
        for name, shape in shapes.items()
    }


def _rows(shape: tuple[int, ...], rows: int) -> tuple[int, ...]:
    return (rows, *shape[1:]) if shape else shape


class SharedPictures:
    """A unet's session that was loaded for `shared_pictures`, and is given rows for each text."""

    def __init__(self, session: Session, pictures: int) -> None:
        self._session = session
        self._pictures = pictures

    def run(self, inputs: Mapping[str, Array]) -> NDArray[np.float32]:
        """Run on the first text's rows of the pictures: the others are equal."""
        return self._session.run(self._first(inputs))

    def run_all(self, inputs: Mapping[str, Array]) -> dict[str, NDArray[np.float32]]:
        """Run on the first text's rows of the pictures, for every output."""
        return self._session.run_all(self._first(inputs))

    def _first(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        return {
            name: each[: self._pictures] if name in PICTURES else each
            for name, each in inputs.items()
        }


def share_prefix(ov: Any, graph: Any, one: Any) -> Any:
    """Give a model like `graph` whose pictures have a row each. ov: the openvino module.

    graph: static, with a row of each picture for each text, the first text's before the second's.
    one: a copy of it, static for one text. Both are used up. Where a node that sees texts asks for
    what all of them have alike, it gets what `one` computes, repeated.
    """
    op = ov.opset13
    inputs, ones = _inputs(graph), _inputs(one)
    pictures: int = ones[PICTURES[0]].get_output_shape(0)[0]
    texts: int = inputs[_TEXT].get_output_shape(0)[0] // pictures
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
            if not _is_part_of(value, source, pictures, texts):
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


def _is_part_of(value: Any, whole: Any, pictures: int, texts: int) -> bool:
    """Say whether `value` has the shape of one text's rows of `whole`."""
    if value.get_partial_shape().is_dynamic or whole.get_partial_shape().is_dynamic:
        return False
    part, all_rows = list(value.get_shape()), list(whole.get_shape())
    return bool(part) and part[0] == pictures and all_rows == [texts * pictures, *part[1:]]
