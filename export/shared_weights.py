"""Points the weights of a second graph at the external data that the first one has written."""

from pathlib import Path

import onnx_ir as ir

from export.errors import GraphError
from export.weights import INLINE_LIMIT

__all__ = ["save_beside"]

CONSTANTS_LIMIT = (
    1 << 20
)  # bytes of constants that the second graph may hold itself; real ones: 2 KiB


def save_beside(model: ir.Model, first: Path, out: Path) -> None:
    """Write `model` to `out`, in the folder of `first`, whose weights it takes by their names.

    Its own weights are not read. Raises GraphError where one is not in `first` in the same form.
    """
    stored = {
        name: value.const_value
        for name, value in ir.load(first).graph.initializers.items()
        if isinstance(value.const_value, ir.ExternalTensor)
    }
    inline = 0
    for name, value in model.graph.initializers.items():
        own, theirs = value.const_value, stored.get(name)
        if own is None:
            raise GraphError(f"{out.name}: the weight '{name}' has no value")
        if "." not in name:  # the tracer's own constant: its number means nothing elsewhere
            inline += own.nbytes
        elif theirs is not None and (theirs.dtype, theirs.shape) == (own.dtype, own.shape):
            value.const_value = theirs
        elif isinstance(own, ir.LazyTensor) and own.nbytes > INLINE_LIMIT:
            raise GraphError(f"{out.name}: {first.name} has no weight '{name}' of this form")
        else:  # small enough to stand in both graphs
            inline += own.nbytes
    if inline > CONSTANTS_LIMIT:
        raise GraphError(f"{out.name} holds {inline} bytes of constants that {first.name} has not")
    ir.save(model, out)
