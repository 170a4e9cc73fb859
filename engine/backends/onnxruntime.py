"""ONNX Runtime: the universal fallback on the CPU, in fp32; Core ML and DirectML where it has them.

Asked for a provider that it cannot load, the library prints a warning and computes on the CPU; here
that is a DeviceError.
"""

import importlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from engine.backends import Array, Libraries, Shapes
from engine.backends.buffers import fill
from engine.backends.ortattention import with_attention
from engine.backends.ortproviders import CPU, Provider
from engine.backends.ortvalues import DTYPES
from engine.cores import physical_cores
from engine.devicenames import no_provider
from engine.errors import BundleError, DeviceError, EngineError
from engine.memory import room_for
from engine.onnxheader import read_onnx_header

__all__ = ["CPU", "OnnxRuntimeBackend", "runtime"]

# Where the weights of a graph lie that is given as bytes.
WEIGHTS: Final = "session.model_external_initializers_file_folder_path"
_FATAL_ONLY: Final = 4  # ORT's severity; errors are raised as well, warnings speak of its fusions


def runtime() -> Any:
    """Import `onnxruntime` with its Windows telemetry off. Raises DeviceError without it."""
    try:
        ort = importlib.import_module("onnxruntime")
    except (ImportError, OSError) as error:
        raise DeviceError(
            f"ONNX Runtime cannot be loaded: {error}", hint="pip install 'safelight[cpu]'"
        ) from error
    ort.set_default_logger_severity(_FATAL_ONLY)  # sessions have a logger of their own
    if hasattr(ort, "disable_telemetry_events"):
        ort.disable_telemetry_events()
    return ort


class OnnxRuntimeBackend:
    """Runs components in ONNX Runtime.

    provider: an execution provider; DeviceError when this build has not got it. threads: 0 takes
    the physical cores that this process may use (ORT's own default pins threads to cores that a
    container may not have).
    """

    def __init__(self, provider: Provider = Provider(), threads: int = 0) -> None:  # noqa: B008 - frozen
        self._ort = runtime()
        available: list[str] = self._ort.get_available_providers()
        if provider.name not in available:
            raise no_provider(provider.name, available)
        self.name: Final = "onnxruntime"
        self.device: Final = provider.device
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
        return OnnxRuntimeSession(self._ort, self.open(model, shapes), shapes, _place(model))

    def open(self, model: Path, shapes: Shapes) -> Any:
        """Open the library's own session. Raises as `load` does."""
        source: str | bytes = str(model)
        options = self._options(self._sizes(model, shapes))
        if self._provider.name == CPU and (written := with_attention(model, shapes)) is not None:
            source = written
            options.add_session_config_entry(WEIGHTS, str(model.parent))
        try:
            with room_for("ONNX Runtime", _place(model), shapes):
                session = self._ort.InferenceSession(
                    source,
                    options,
                    providers=[(self._provider.name, dict(self._provider.options))],
                    enable_fallback=0,  # or it prints what failed and computes on the processor
                )
        except EngineError:
            raise
        except Exception as error:  # the library's classes have no root of their own
            if self._provider.name == CPU:  # which runs every graph: then the file is at fault
                raise BundleError(
                    f"ONNX Runtime cannot read {_place(model)}", hint="safelight models verify"
                ) from error
            raise DeviceError(
                f"{self._provider.name} cannot load {_place(model)}: {_said(error)}",
                hint="--device cpu works; or the driver of the device is missing or too old",
            ) from error
        got = session.get_providers()[0]
        if got != self._provider.name:
            raise DeviceError(
                f"ONNX Runtime took {got} where {self._provider.name} was asked for",
                hint="the provider's own libraries or the device's driver are missing",
            )
        return session

    def exact(self) -> "OnnxRuntimeBackend":
        """Give itself: it computes in fp32 already."""
        return self

    def _sizes(self, model: Path, shapes: Shapes) -> dict[str, int]:
        """Give the graph's free sizes by name, for a provider that computes fixed ones faster."""
        if not self._provider.static:
            return {}
        return {
            free: size
            for name, port in read_onnx_header(model).inputs.items()
            for free, size in zip(port.shape, shapes.get(name, ()), strict=False)
            if isinstance(free, str)
        }

    def _options(self, sizes: Mapping[str, int]) -> Any:
        options = self._ort.SessionOptions()
        for name, size in sizes.items():
            options.add_free_dimension_override_by_name(name, size)
        options.log_severity_level = _FATAL_ONLY
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1  # the graphs are chains
        # Threads spin for work within a run (worth 5 % of a step) but not between runs, where they
        # would heat a laptop for nothing.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        if self._provider.name == "DmlExecutionProvider":
            options.enable_mem_pattern = False  # it needs that, and one node after the other
        if self._provider.name != CPU and not self._provider.shares:
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
            buffer = np.zeros(shape, dtype=DTYPES[port.type])
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
            with self._room():
                found: list[Array] = self._session.run(names, self._buffers)
        except EngineError:
            raise
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
            with self._room():
                self._session.run_with_iobinding(self._binding)
        except EngineError:
            raise
        except Exception as error:  # the library's classes have no root of their own
            raise self._failed() from error

    def _room(self) -> AbstractContextManager[None]:
        shapes = {name: each.shape for name, each in self._buffers.items()}
        return room_for("ONNX Runtime", self._place, shapes)

    def _failed(self) -> DeviceError:
        sizes = ", ".join(f"{name} {list(each.shape)}" for name, each in self._buffers.items())
        return DeviceError(
            f"ONNX Runtime failed on {self._place} with {sizes}",
            hint="multiples of 64 pixels fit every model",
        )


def _said(error: Exception) -> str:
    """Give what a provider says of itself: what stands last, without the place in its source."""
    text = " ".join(str(error).split(" ; ")[0].split())
    return f"{type(error).__name__}: {text[-200:]}"


def _place(model: Path) -> str:
    return f"{model.parent.name}/{model.name}"
