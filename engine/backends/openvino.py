"""OpenVINO: reads ONNX directly, static shapes; on the CPU in bf16 where it computes that.

Only the runtime (`Core`) is used. Importing the plain package also imports its converter, and that
reports the import to its maker over the network; see `runtime`.
"""

import importlib
import sys
import threading
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from engine.backends import Array, Libraries, Shapes
from engine.backends.attention import attend_by_kernel, attention_operation
from engine.backends.blobs import Blob, BlobCache
from engine.backends.buffers import fill
from engine.backends.convolutions import convolution_operation, convolve_by_kernel
from engine.backends.exporting import exported
from engine.backends.norms import norm_operation, normalise_by_kernel
from engine.backends.ownoperations import collected, cut_off, keep
from engine.backends.rewrites import VERSION, rewrite
from engine.backends.sharedprefix import all_rows, one_text, share_prefix, texts_of
from engine.backends.weights import weights_to_bf16
from engine.cores import core_limit
from engine.devicenames import no_openvino_device
from engine.errors import BundleError, DeviceError
from engine.forms import Source, no_int8, source_of
from engine.kernels import library as kernels
from engine.memory import give_back, requested_bytes, room_for

__all__ = ["HINTS", "OpenVinoBackend", "runtime"]

# Our precision -> OpenVINO's hint, and the capability that the processor must have for it.
HINTS: Final = {"fp32": ("f32", "FP32"), "bf16": ("bf16", "BF16"), "fp16": ("f16", "FP16")}
LARGE: Final = 256 << 20  # bytes of a compiled model; pocket's have 40 MB
_CONVERTER: Final = "openvino.tools.ovc"
# Two threads in their first calls can lock each other out for good: the binding takes a C++ guard
# and the interpreter's lock in either order (seen in 2026.4). Loading is therefore one at a time.
_LOADING: Final = threading.Lock()


def runtime() -> Any:
    """Import `openvino` without its converter and without its telemetry.

    The package's `__init__` imports the converter inside `try: ... except ImportError: pass`, and
    the converter sends an 'import' event unless a file in the home forbids it. None in sys.modules
    is Python's way to say that a module cannot be imported: the telemetry stays so for the life
    of the process, the converter only while `openvino` is being imported. Raises DeviceError.
    """
    if "openvino" in sys.modules:
        return sys.modules["openvino"]
    modules: dict[str, ModuleType | None] = sys.modules  # pyright: ignore[reportAssignmentType]
    modules.setdefault("openvino_telemetry", None)
    modules.setdefault(_CONVERTER, None)
    try:
        return importlib.import_module("openvino")
    except (ImportError, OSError) as error:
        raise DeviceError(
            f"OpenVINO cannot be loaded: {error}", hint="pip install 'safelight[cpu]'"
        ) from error
    finally:
        if modules.get(_CONVERTER, ...) is None:
            del modules[_CONVERTER]


class OpenVinoBackend:
    """Runs components in one of OpenVINO's plugins.

    device: CPU, GPU, GPU.1 or NPU; DeviceError where there is none.
    precision: fp32, bf16 or fp16; DeviceError when the device has no arithmetic for it, since
    the plugin would quietly compute in another one. int8 is the unet's quantised form, and for all
    else the fastest of bf16 and fp32, which `hint` names. cache_dir: where compiled models are
    kept, in the sub folder `openvino`, and derived forms are found; None: neither. threads: 0
    leaves the choice to the plugin, which takes physical cores that the process may use, but for a
    container's CPU quota, which it does not know of.
    """

    def __init__(
        self, precision: str, cache_dir: Path | None, threads: int = 0, *, device: str = "CPU"
    ) -> None:
        ov = runtime()
        self._core = ov.Core()
        if device != "CPU":  # looking for others loads their plugins: it takes a while
            self._check_device(device)
        self.name: Final = "openvino"
        self.device: Final = device
        self.precision: Final = precision
        self.libraries: Libraries = (("openvino", str(ov.__version__)),)
        self.processor: str = self._core.get_property(device, "FULL_DEVICE_NAME")
        self.capabilities: tuple[str, ...] = tuple(
            self._core.get_property(device, "OPTIMIZATION_CAPABILITIES")
        )
        self._cache_dir = cache_dir
        self._threads = threads
        self._blobs = BlobCache(cache_dir / "openvino") if cache_dir else None
        fastest = "bf16" if "BF16" in self.capabilities else "fp32"
        self.hint: Final = fastest if precision == "int8" else precision
        hint, capability = HINTS.get(self.hint, ("", ""))
        if capability not in self.capabilities or (precision == "int8" and device != "CPU"):
            raise DeviceError(
                f"this {'processor' if device == 'CPU' else device} ({self.processor}) does not"
                f" compute in {precision}",
                hint="--precision fp32 runs everywhere; auto takes the fastest that there is",
            )
        self._options: dict[str, str | int] = {
            "INFERENCE_PRECISION_HINT": hint,
            "PERFORMANCE_HINT": "LATENCY",
        }
        limit = (threads or core_limit()) if device == "CPU" else 0
        if limit:
            self._options["INFERENCE_NUM_THREADS"] = limit
        # On other devices and in int8 graphs run as they are.
        self.shares_prefix: Final = device == "CPU" and precision != "int8"
        self._own: tuple[tuple[Any, type], ...] = ()
        self._opens_gelus = False
        self.kernel = self._find_kernels() if device == "CPU" else "none"

    def _find_kernels(self) -> str:
        found, name = kernels.find(self._threads or core_limit())
        if found is None:
            return "none"
        if self.hint == "fp32":  # what is asked for in fp32 stays fp32 to the end
            name = "f32 on AVX2"
            norms = partial(normalise_by_kernel, bf16=False)
            self._own = (
                (convolve_by_kernel, convolution_operation(runtime(), found)),
                (norms, norm_operation(runtime(), found, bf16=False)),
            )
            # With vectors twice as wide OpenVINO has not been measured beside these; convolutions
            # win by a quarter of the products anywhere.
            if not found.has_avx512:
                self._opens_gelus = True
                attention = partial(attend_by_kernel, bf16=False)
                self._own += ((attention, attention_operation(runtime(), found, bf16=False)),)
        elif found.has_bf16:
            self._own = (
                (attend_by_kernel, attention_operation(runtime(), found)),
                (normalise_by_kernel, norm_operation(runtime(), found)),
            )
        else:
            return "none"
        for _, made in self._own:
            self._core.add_extension(made)  # so that compiled models with it are read again
        return f"{name} {kernels.VERSION}"

    def _check_device(self, device: str) -> None:
        there: list[str] = list(self._core.available_devices)
        # GPU is the first one where there are several: GPU.0, GPU.1
        if device not in there and not any(each.startswith(f"{device}.") for each in there):
            raise no_openvino_device(device, there)

    def load(self, model: Path, shapes: Shapes, *, identity: str = "") -> "OpenVinoSession":
        """Compile for static shapes, or take the compiled form from the cache.

        The form `openvino` or `int8` of the bundle is read in the place of `model` where the cache
        has it; a spoilt form `openvino` is passed over, since `model` computes the same.
        """
        with _LOADING:
            source = self._source(model, shapes, identity)
            try:
                return self._load(source, shapes)
            except BundleError:
                if source.form is None or source.form.key.target == "int8":
                    raise
                return self._load(Source(model, identity), shapes)

    def exact(self) -> "OpenVinoBackend":
        """Give the same device in fp32, or the processor where the device has no fp32 (an NPU)."""
        if self.precision == "fp32":
            return self
        device = self.device if "FP32" in self.capabilities else "CPU"
        return OpenVinoBackend("fp32", self._cache_dir, self._threads, device=device)

    def _source(self, model: Path, shapes: Shapes, identity: str) -> Source:
        if self._cache_dir and identity:
            int8 = self.precision == "int8"
            return source_of(model, all_rows(shapes), identity, cache=self._cache_dir, int8=int8)
        if self.precision == "int8" and "timestep" in shapes and model.suffix != ".xml":
            raise no_int8(model)
        return Source(model, identity)

    def _load(self, source: Source, shapes: Shapes) -> "OpenVinoSession":
        with collected() as operations:
            session = self._open(source, shapes)
        session.operations = operations
        return session

    def _open(self, source: Source, shapes: Shapes) -> "OpenVinoSession":
        key, blob = "", None
        if self._blobs and source.identity:
            key = self._blobs.key(self._parts(shapes, source.identity))
            blob = self._blobs.get(key)
        compiled = self._import(blob, key) if blob is not None else None
        if compiled is None:
            compiled, blob = self._make(source, shapes, key)
        self._check(compiled)
        place = _place(source.model)
        with room_for("OpenVINO", place, shapes):
            session = OpenVinoSession(compiled, tuple(shapes), place, blob)
        if blob is not None:
            blob.unload()  # the plugin computes with copies, in the layout that is fast
        return session

    def _make(self, source: Source, shapes: Shapes, key: str) -> tuple[Any, Blob | None]:
        """Compile. What is large is read again from where it was kept: all that it was made of
        would stay in memory with it.
        """
        if self._cache_dir:
            source.check(self._cache_dir)
        rewritten = source.form is None or source.form.key.target != "int8"
        with collected() as operations:
            compiled = self._compile(source.model, shapes, key, rewritten=rewritten)
        blob = self._blobs.get(key) if self._blobs and key else None
        if blob is None or len(blob.data) < LARGE:
            keep(*operations)
            return compiled, None
        del compiled
        cut_off(runtime(), operations)
        give_back()
        again = self._import(blob, key)
        if again is None:
            return self._compile(source.model, shapes, "", rewritten=rewritten), None
        return again, blob

    def _parts(self, shapes: Shapes, identity: str) -> dict[str, object]:
        return {
            "identity": identity,
            "shapes": {name: list(shape) for name, shape in shapes.items()},
            "options": self._options,
            "device": self.device,
            "libraries": self.libraries,
            "processor": [self.processor, *self.capabilities],
            "rewrites": VERSION,
            "kernel": self.kernel,
        }

    def _import(self, blob: Blob, key: str) -> Any | None:
        try:
            tensor = runtime().Tensor(blob.data, shared_memory=True)
            with blob.passing():
                return self._core.import_model(tensor, self.device, self._options)
        except RuntimeError as error:
            if self._blobs and requested_bytes(error) < 0:  # verified, and refused: compile anew
                self._blobs.drop(key)
            return None

    def _compile(self, model: Path, shapes: Shapes, key: str, *, rewritten: bool) -> Any:
        """Compile, and keep what came of it in the cache under `key`, unless that is empty."""
        try:
            with room_for("OpenVINO", _place(model), shapes):
                graph = self._core.read_model(model)
        except RuntimeError as error:
            raise BundleError(
                f"OpenVINO cannot read {_place(model)}", hint="safelight models verify"
            ) from error
        unknown = [port for port in graph.inputs if not port.get_names() & set(shapes)]
        if unknown:
            name: str = unknown[0].get_any_name()
            raise BundleError(f"{_place(model)} has an input '{name}' that nothing is known of")
        rewritten = rewritten and self.device == "CPU"  # a quantised form runs as it was measured
        one = graph.clone() if texts_of(shapes) > 1 else None
        _reshape(graph, all_rows(shapes), model)
        if one is not None:
            _reshape(one, one_text(shapes), model)
            graph = share_prefix(runtime(), graph, one)
        if rewritten:
            for by_kernel, made in self._own:
                by_kernel(runtime(), graph, made)
            rewrite(runtime(), graph, open_gelus=self._opens_gelus)
            if self.hint == "bf16":
                weights_to_bf16(runtime(), graph)
        place = self._blobs.workplace() if self._blobs and key else nullcontext()
        with place as folder:
            options, writes = self._options, folder is not None and self.device == "CPU"
            if writes:
                options = options | {"CACHE_DIR": str(folder)}
            try:
                with room_for("OpenVINO", _place(model), shapes):
                    compiled = self._core.compile_model(graph, self.device, options)
            except RuntimeError as error:
                raise DeviceError(f"OpenVINO cannot compile {_place(model)}") from error
            if self._blobs and folder is not None:
                with suppress(MemoryError, OSError):  # it will be compiled again: that is all
                    parts = exported(compiled, folder, wrote=writes)
                    if parts is not None:
                        self._blobs.put(key, parts)
        return compiled

    def _check(self, compiled: Any) -> None:
        got: str = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        if got != self._options["INFERENCE_PRECISION_HINT"]:
            raise DeviceError(f"OpenVINO computes in {got} where {self.precision} was asked for")
        ran: str | list[str] = compiled.get_property("EXECUTION_DEVICES")
        devices = [ran] if isinstance(ran, str) else ran
        if any(each.partition(".")[0] != self.device.partition(".")[0] for each in devices):
            raise DeviceError(
                f"OpenVINO computes on {', '.join(devices)} where {self.device} was asked for"
            )


class OpenVinoSession:
    """One compiled component with an infer request whose tensors are written and read in place."""

    def __init__(
        self,
        compiled: Any,
        names: tuple[str, ...],
        place: str,
        blob: Blob | None = None,
    ) -> None:
        self.operations: list[Any] = []  # of ours, which the compiled model calls
        self._place = place
        self._blob = blob  # the compiled model may point into it
        self._request = compiled.create_infer_request()
        # By the names asked for: an input whose cast was folded away has several names.
        self._buffers: dict[str, Array] = {
            name: self._request.get_tensor(compiled.input(name)).data for name in names
        }
        self._outputs: dict[str, Array] = {
            port.get_any_name(): self._request.get_output_tensor(place).data
            for place, port in enumerate(compiled.outputs)
        }
        self._output: Array = next(iter(self._outputs.values()))

    def __del__(self) -> None:
        """Let the compiled model go, and then what its operations hold."""
        if self.operations and not sys.is_finalizing():
            del self._request
            cut_off(runtime(), self.operations)

    def run(self, inputs: Mapping[str, Array]) -> NDArray[np.float32]:
        """Compute the first output f32, a buffer that the next run overwrites."""
        fill(self._buffers, inputs)
        try:
            with room_for("OpenVINO", self._place, _shapes(self._buffers)):
                self._request.infer(share_outputs=True)
        except RuntimeError as error:
            raise DeviceError(
                f"OpenVINO failed on {self._place}: {type(error).__name__}"
            ) from error
        return self._output.astype(np.float32, copy=False)

    def run_all(self, inputs: Mapping[str, Array]) -> dict[str, NDArray[np.float32]]:
        """Compute every output f32, copied."""
        self.run(inputs)
        return {name: data.astype(np.float32) for name, data in self._outputs.items()}


def _shapes(buffers: Mapping[str, Array]) -> dict[str, tuple[int, ...]]:
    return {name: buffer.shape for name, buffer in buffers.items()}


def _reshape(graph: Any, shapes: Shapes, model: Path) -> None:
    """Make a graph static; raises BundleError where it does not take the shapes."""
    try:
        graph.reshape(_static(graph, shapes))
    except RuntimeError as error:
        sizes = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
        raise BundleError(
            f"{_place(model)} does not take the sizes {sizes}",
            hint="multiples of 64 pixels fit every model",
        ) from error


def _static(graph: Any, shapes: Shapes) -> dict[str, list[int]]:
    """Give the graph's shape for each input; a single value may be asked for as ()."""
    static: dict[str, list[int]] = {}
    for name, shape in shapes.items():
        rank = graph.input(name).get_partial_shape().rank.get_length()
        static[name] = [1] if shape == () and rank == 1 else list(shape)
    return static


def _place(model: Path) -> str:
    return f"{model.parent.name}/{model.name}"
