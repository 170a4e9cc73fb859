"""The seam between the denoising loop and what computes: a Backend loads components into Sessions.

Implementations: `openvino`, `onnxruntime`, and the shipped `fake` (numpy, for tests and dry runs).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Array", "Backend", "Session"]

Array = NDArray[np.generic]


class Session(Protocol):
    """One compiled component (text_encoder, unet, vae_decoder, vae_encoder) at fixed input shapes."""

    def run(self, inputs: Mapping[str, Array]) -> Array:
        """Compute the component's first output, float32.

        inputs: name -> array, with the shapes and dtypes that the session was loaded for.
        The result may be a buffer that the next run overwrites: copy what must live longer.
        """
        ...


class Backend(Protocol):
    """Something that runs ONNX components. Loading is explicit and may take seconds."""

    name: str  # openvino, onnxruntime, fake
    device: str  # CPU, GPU.0, cuda:0
    precision: str  # what really computes: fp32, bf16, fp16
    libraries: tuple[tuple[str, str], ...]  # name, version

    def load(self, model: Path, shapes: Mapping[str, tuple[int, ...]]) -> Session:
        """Compile `model` (an .onnx file) for these input shapes; raises BundleError, DeviceError."""
        ...

    def exact(self) -> "Backend":
        """Give the same device in fp32, for the repair of a picture that overflowed."""
        ...
