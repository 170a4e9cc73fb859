"""The input buffers of a session: preset arrays that every run writes into."""

from collections.abc import Mapping

import numpy as np

from engine.backends import Array
from engine.errors import DeviceError

__all__ = ["fill"]


def fill(buffers: Mapping[str, Array], inputs: Mapping[str, Array]) -> None:
    """Copy each input into its buffer, in the buffer's dtype. Raises DeviceError on a wrong shape.

    One value may be given for a buffer of one dimension (the timestep).
    """
    for name, buffer in buffers.items():
        value = inputs[name]
        if value.shape != buffer.shape and value.ndim:
            raise DeviceError(
                f"input '{name}' has shape {value.shape}; the session was loaded for {buffer.shape}"
            )
        if buffer.dtype.kind in "iu" and value.dtype.kind == "f":
            value = np.rint(value)
        np.copyto(buffer, value, casting="unsafe")
