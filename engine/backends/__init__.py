"""The seam between the denoising loop and what computes: a Backend loads components into Sessions.

Implementations: `openvino`, `onnxruntime`, `cuda`, and the shipped `fake` (numpy, for tests and dry
runs).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from engine.stepgraph import Program

__all__ = [
    "Array",
    "Backend",
    "CountedMemory",
    "DeviceMemory",
    "Libraries",
    "Session",
    "Shapes",
    "SharingBackend",
    "StepBackend",
    "StepSession",
]

Array = NDArray[np.generic]
Shapes = Mapping[str, tuple[int, ...]]
Libraries = tuple[tuple[str, str], ...]


class Session(Protocol):
    """One compiled component (text_encoder, unet, vae_decoder...) at fixed input shapes."""

    def run(self, inputs: Mapping[str, Array]) -> NDArray[np.float32]:
        """Compute the component's first output, float32.

        inputs: name -> array, with the shapes that the session was loaded for; values are converted
        to the component's own dtypes (a broken timestep for a whole-number input is rounded).
        The result may be a buffer that the next run overwrites: copy what must live longer.
        Raises DeviceError when the device fails.
        """
        ...

    def run_all(self, inputs: Mapping[str, Array]) -> dict[str, NDArray[np.float32]]:
        """Compute every output by name, in the component's order, in arrays of the caller's own."""
        ...


class Backend(Protocol):
    """Something that runs ONNX components. Loading is explicit and may take seconds.

    name: openvino, onnxruntime, fake. device: CPU, GPU.0, cuda:0. precision: what really computes:
    fp32, bf16, fp16. libraries: name, version.
    """

    @property
    def name(self) -> str: ...
    @property
    def device(self) -> str: ...
    @property
    def precision(self) -> str: ...
    @property
    def libraries(self) -> Libraries: ...

    def load(self, model: Path, shapes: Shapes, *, identity: str = "") -> Session:
        """Compile `model` (an .onnx file) for these input shapes; raises BundleError, DeviceError.

        A shape () for an input that has one dimension means one value. identity: changes whenever
        a byte of the model does (the bundle's hash and the component); compiled forms may then be
        kept and found again by it. Empty: nothing is kept.
        """
        ...

    def exact(self) -> "Backend":
        """Give the same device in fp32, for the repair of a picture that overflowed."""
        ...


class StepSession(Protocol):
    """A trajectory on a device by the step graph (`engine.stepgraph`), at fixed shapes."""

    def begin(self, program: "Program") -> None:
        """Upload a trajectory; raises DeviceError."""
        ...

    def enqueue(self) -> None:
        """Ask for one more step, and return before it is done."""
        ...

    def wait(self, left: int) -> None:
        """Wait until at most `left` of the steps that were asked for are not done."""
        ...

    def denoised(self) -> NDArray[np.float32]:
        """Copy the newest prediction f32[P, 4, h, w], after all steps that were asked for."""
        ...

    def latents(self) -> NDArray[np.float32]:
        """Copy the latents f32[P, 4, h, w], after all steps that were asked for."""
        ...


@runtime_checkable
class StepBackend(Protocol):
    """A back end that may run a whole step as one graph, beside all that `Backend` has."""

    @property
    def how(self) -> str:
        """Say how the step graph runs, for the reason in a picture's record."""
        ...

    @property
    def mixed(self) -> str:
        """Say what runs otherwise than `precision` says, for the same reason; '' for nothing."""
        ...

    def step_model(self, model: Path, identity: str) -> Path | None:
        """Give the step graph for a unet, or None where there is none; raises BundleError."""
        ...

    def load_step(self, model: Path, shapes: Shapes, *, identity: str) -> StepSession:
        """Open it for these shapes of all its inputs; raises as `Backend.load` does."""
        ...


@runtime_checkable
class SharingBackend(Protocol):
    """A back end that may compute once what a unet's texts have in common, beside all that
    `Backend` has.
    """

    @property
    def shares_prefix(self) -> bool:
        """Say whether `load` takes a unet's shapes with one row of the picture and several of the
        text: its session is then given the picture once.
        """
        ...


@runtime_checkable
class DeviceMemory(Protocol):
    """A back end whose device has a memory of its own, beside all that `Backend` has."""

    def memory(self) -> tuple[int, int]:
        """Give the bytes that are free now and all of them; zeros where the device does not say.

        Nothing is waited for. Raises DeviceError.
        """
        ...


@runtime_checkable
class CountedMemory(Protocol):
    """A back end whose library counts what it holds of a device, beside all that `Backend` has."""

    @property
    def counts_memory(self) -> bool:
        """Say whether it counts on this device."""
        ...

    def reset_peak_memory(self) -> None:
        """Let the peak be what is held now."""
        ...

    def peak_memory(self) -> int:
        """Give the most bytes that were held at once since the last reset."""
        ...
