"""ONNX Runtime: the universal fallback on the CPU, in fp32.

Asked for a provider that it cannot load, the library prints a warning and computes on the CPU; here
that is a DeviceError.
"""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from engine.backends import Array, Libraries, Shapes
from engine.backends.buffers import fill
from engine.cores import physical_cores
from engine.errors import BundleError, DeviceError

__all__ = ["CPU", "OnnxRuntimeBackend", "runtime"]

CPU: Final = "CPUExecutionProvider"
_DTYPES: Final = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
}
_ERRORS_ONLY: Final = 3  # ORT's severity; warnings speak of its own fusions


def runtime() -> Any:
    """Import `onnxruntime` with its Windows telemetry off. Raises DeviceError without it."""
    try:
        ort = importlib.import_module("onnxruntime")
    except (ImportError, OSError) as error:
        raise DeviceError(
            f"ONNX Runtime cannot be loaded: {error}", hint="pip install 'safelight[cpu]'"
        ) from error
    if hasattr(ort, "disable_telemetry_events"):
        ort.disable_telemetry_events()
    return ort


class OnnxRuntimeBackend:
    """Runs components in ONNX Runtime.

    provider: an execution provider by ORT's name; DeviceError when this build has not got it.
    device: how the pictures' records name it. threads: 0 takes the physical cores that this
    process may use (ORT's own default pins threads to cores that a container may not have).
    """

    def __init__(self, provider: str = CPU, device: str = "CPU", threads: int = 0) -> None:
        self._ort = runtime()
        available: list[str] = self._ort.get_available_providers()
        if provider not in available:
            raise DeviceError(
                f"this ONNX Runtime has no {provider}; it has {', '.join(available)}",
                hint="pip install 'safelight[cuda]', in an environment without the cpu extra",
            )
        self.name: Final = "onnxruntime"
        self.device: Final = device
        self.precision: Final = "fp32"
        self.libraries: Libraries = (("onnxruntime", str(self._ort.__version__)),)
        self._provider = provider
        self._threads = threads or physical_cores()

    def load(
        self,
        model: Path,
        shapes: Shapes,
        *,
        identity: str = "",  # noqa: ARG002 - sessions are made from the source graph each time
    ) -> "OnnxRuntimeSession":
        """Open a session and bind its buffers for these shapes."""
        try:
            session = self._ort.InferenceSession(
                str(model), self._options(), providers=[self._provider]
            )
        except Exception as error:  # the library's classes have no root of their own
            if self._provider == CPU:  # which runs every graph: then the file is at fault
                raise BundleError(
                    f"ONNX Runtime cannot read {_place(model)}", hint="safelight models verify"
                ) from error
            raise DeviceError(
                f"{self._provider} cannot load {_place(model)}: {type(error).__name__}"
            ) from error
        got = session.get_providers()[0]
        if got != self._provider:
            raise DeviceError(f"ONNX Runtime took {got} where {self._provider} was asked for")
        return OnnxRuntimeSession(self._ort, session, shapes, _place(model))

    def exact(self) -> "OnnxRuntimeBackend":
        """Give itself: it computes in fp32 already."""
        return self

    def _options(self) -> Any:
        options = self._ort.SessionOptions()
        options.log_severity_level = _ERRORS_ONLY
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1  # the graphs are chains
        # Threads spin for work within a run (worth 5 % of a step) but not between runs, where they
        # would heat a laptop for nothing.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        if self._provider != CPU:
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        return options


class OnnxRuntimeSession:
    """One component whose inputs and output are bound once to arrays of ours."""

    def __init__(self, ort: Any, session: Any, shapes: Shapes, place: str) -> None:
        self._ort = ort
        self._session = session
        self._place = place
        self._binding = session.io_binding()
        self._buffers: dict[str, Array] = {}
        for port in session.get_inputs():
            if port.name not in shapes:
                raise BundleError(f"{place} has an input '{port.name}' that nothing is known of")
            shape = (1,) if shapes[port.name] == () and len(port.shape) == 1 else shapes[port.name]
            buffer = np.zeros(shape, dtype=_DTYPES[port.type])
            self._buffers[port.name] = buffer
            # A value on the CPU shares the array's memory, so writing the array is enough.
            self._binding.bind_ortvalue_input(port.name, ort.OrtValue.ortvalue_from_numpy(buffer))
        self._output_name: str = session.get_outputs()[0].name
        self._output: NDArray[np.float32] | None = None

    def run(self, inputs: Mapping[str, Array]) -> NDArray[np.float32]:
        """Compute the first output f32, a buffer that the next run overwrites."""
        fill(self._buffers, inputs)
        if self._output is None:
            return self._first()
        self._run()
        return self._output

    def run_all(self, inputs: Mapping[str, Array]) -> dict[str, NDArray[np.float32]]:
        """Compute every output f32; for what runs once a picture, so nothing is bound."""
        fill(self._buffers, inputs)
        names = [port.name for port in self._session.get_outputs()]
        try:
            found: list[Array] = self._session.run(names, self._buffers)
        except Exception as error:  # the library's classes have no root of their own
            raise self._failed() from error
        return {name: each.astype(np.float32) for name, each in zip(names, found, strict=True)}

    def _first(self) -> NDArray[np.float32]:
        """Let ORT allocate the output once, which tells its shape, then bind an array of ours."""
        self._binding.bind_output(self._output_name, "cpu")
        self._run()
        result: Array = self._binding.get_outputs()[0].numpy()
        output = result.astype(np.float32)
        if result.dtype == np.float32:
            self._output = output
            self._binding.bind_ortvalue_output(
                self._output_name, self._ort.OrtValue.ortvalue_from_numpy(output)
            )
        return output

    def _run(self) -> None:
        try:
            self._session.run_with_iobinding(self._binding)
        except Exception as error:  # the library's classes have no root of their own
            raise self._failed() from error

    def _failed(self) -> DeviceError:
        sizes = ", ".join(f"{name} {list(each.shape)}" for name, each in self._buffers.items())
        return DeviceError(
            f"ONNX Runtime failed on {self._place} with {sizes}",
            hint="multiples of 64 pixels fit every model",
        )


def _place(model: Path) -> str:
    return f"{model.parent.name}/{model.name}"
