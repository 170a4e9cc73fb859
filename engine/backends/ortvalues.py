"""Values of ONNX Runtime on one device, and a count of what was allocated and copied.

`ortvalue_from_shape_and_type` and `update_inplace` need nothing but ONNX Runtime itself: no torch.
"""

from typing import Any

import numpy as np

from engine.backends import Array

__all__ = ["DTYPES", "OrtValues"]

DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
}


class OrtValues:
    """Makes, fills and reads values on a device. allocations, uploads, downloads: how often.

    device: cpu or cuda, as ONNX Runtime calls it; number: which card.
    """

    def __init__(self, ort: Any, device: str = "cpu", number: int = 0) -> None:
        self._ort = ort
        self.device = device
        self.number = number
        self.allocations = self.uploads = self.downloads = 0

    def empty(self, shape: tuple[int, ...], dtype: type[np.generic]) -> Any:
        """Allocate a value; what is in it is not known."""
        self.allocations += 1
        return self._ort.OrtValue.ortvalue_from_shape_and_type(
            list(shape), dtype, self.device, self.number
        )

    def put(self, value: Any, array: Array) -> None:
        """Copy an array of the value's own shape and dtype into it; done when it returns."""
        self.uploads += 1
        value.update_inplace(np.ascontiguousarray(array))

    def get(self, value: Any) -> Array:
        """Copy a value into an array of the caller's own."""
        self.downloads += 1
        return np.array(value.numpy())
