"""Adds to a stored weight in f32 and rounds the sum to what the weight is stored in.

The one place where it is done, for an export as for a finished bundle: so both have the same bits.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from export.errors import SourceError
from export.weightfiles import Addition

__all__ = ["merged"]


def merged(
    stored: NDArray[np.floating], additions: Iterable[Addition], name: str
) -> NDArray[np.floating]:
    """Give `stored` plus all `additions`, in its own shape and dtype, rounded once.

    name: of the weight, for the message. Raises SourceError for a sum beyond the dtype's numbers.
    """
    whole = stored.astype(np.float32)
    for addition in additions:
        whole += addition.delta(stored).reshape(whole.shape)
    with np.errstate(over="ignore"):  # looked at below
        rounded = whole.astype(stored.dtype)
    if not np.isfinite(rounded).all():
        raise SourceError(f"with what is added, '{name}' holds numbers beyond fp16's")
    return rounded
