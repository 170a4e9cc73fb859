"""ONNX Runtime on NVIDIA cards: the form `cuda` of a bundle in fp16, or its own graphs in fp32.

All buffers lie on the card; what goes in and comes out is copied once. The unet of a form has a
step graph beside it, and then a trajectory is one run call a step, replayed as a CUDA graph.

The same code runs on the processor's own values (`processor_place`), which is how it is tested.
On a card it is `unverified on hardware`.
"""

import ctypes
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from engine.backends import Array, Libraries, Shapes
from engine.backends.buffers import fill
from engine.backends.cudadevice import CudaDevice
from engine.backends.cudalibraries import missing_libraries, open_libraries
from engine.backends.devicestep import DeviceStep, Timeline
from engine.backends.onnxruntime import OnnxRuntimeBackend, runtime
from engine.backends.ortproviders import Provider, cuda_provider
from engine.backends.ortstep import Carry, open_step
from engine.backends.ortvalues import DTYPES, OrtValues
from engine.derived import Derived, DerivedKey, fitting, listed
from engine.errors import BundleError, DeviceError, EngineError
from engine.memory import room_for
from engine.stepgraph import FILE_NAME

__all__ = ["CudaBackend", "DeviceSession", "Place", "cuda_place", "key_for", "processor_place"]

PRECISIONS: Final = ("fp16", "fp32")
# What runs many times.
GRAPHED: Final = ("unet", "unet_control", "unet_deep", "unet_shallow", "unet_thin")


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where values lie and graphs run. device: as records name it; name: as people do. values,
    number: as ONNX Runtime calls it. provider: gives one with CUDA graphs or without, exact or not.
    memory: bytes that are free and all of them, or zeros. carry: copies from one address there to
    another: to, from, bytes.
    """

    device: str
    name: str
    values: str
    number: int
    provider: Callable[[bool, bool], Provider]
    timeline: Timeline
    memory: Callable[[], tuple[int, int]]
    carry: Carry


class _Now:
    """The timeline of a device that is done when it returns."""

    def mark(self) -> object:
        return None

    def wait(self, mark: object) -> None:  # noqa: ARG002  there is nothing to wait for
        return None


def processor_place() -> Place:
    """Give the processor as a place: the same calls, nothing captured."""
    return Place(
        device="CPU",
        name="the processor",
        values="cpu",
        number=0,
        provider=lambda _graphs, _exact: Provider(static=True),
        timeline=_Now(),
        memory=lambda: (0, 0),
        carry=_moved,
    )


def _moved(to: int, source: int, size: int) -> None:
    ctypes.memmove(to, source, size)


def cuda_place(number: int) -> Place:
    """Give a card. Raises DeviceError for a missing library, driver or card, with what mends it."""
    found = open_libraries()
    missing = missing_libraries(found)
    if missing:
        raise missing
    card = CudaDevice(number)

    def provider(graphs: bool, exact: bool) -> Provider:
        return cuda_provider(number, card.stream, graphs=graphs, exact=exact)

    return Place(
        device=f"cuda:{number}",
        name=card.name,
        values="cuda",
        number=number,
        provider=provider,
        timeline=card,
        memory=card.memory,
        carry=card.copy_across,
    )


def key_for(bundle_hash: str) -> DerivedKey:
    """Give the key of a bundle's form `cuda`, for the onnxruntime-gpu that is installed."""
    try:
        installed = version("onnxruntime-gpu")
    except PackageNotFoundError:
        installed = "unknown"
    return DerivedKey(
        identity=bundle_hash,
        target="cuda",
        precision="fp16",
        device="cuda",
        shapes=(),
        libraries={"onnxruntime-gpu": installed},
    )


class CudaBackend:
    """Runs components on one card.

    precision: fp16 takes the form `cuda` from cache_dir (BundleError where there is none), and of
    components that the form has not, the bundle's own graph in fp32; fp32 takes the bundle's graphs
    alone. DeviceError for another one, or where ONNX Runtime has no such provider. captured:
    whether the step graph became CUDA graphs; None before one was loaded. aside: the components
    that were loaded in fp32 since the form has them not.
    """

    def __init__(self, precision: str, cache_dir: Path | None, place: Place) -> None:
        if precision not in PRECISIONS:
            raise DeviceError(
                f"ONNX Runtime does not compute in {precision} on {place.device}",
                hint=f"one of: {', '.join(PRECISIONS)}",
            )
        self._ort = runtime()
        self._place = place
        self._cache_dir = cache_dir
        exact = precision == "fp32"
        self._plain = OnnxRuntimeBackend(place.provider(False, exact))
        self._graphed = OnnxRuntimeBackend(place.provider(True, exact))
        self.name: Final = "onnxruntime"
        self.device: Final = place.device
        self.precision: Final = precision
        self.libraries: Libraries = self._plain.libraries
        self.captured: bool | None = None
        self.aside: set[str] = set()
        self._refusal = ""  # why the step graph was not captured

    @property
    def how(self) -> str:
        """Say how steps run."""
        refusal = f" ({self._refusal})" if self._refusal else ""
        graph = "replayed as a CUDA graph" if self.captured else f"without CUDA graphs{refusal}"
        return f"one graph a step, {graph}"

    @property
    def mixed(self) -> str:
        """Say what runs in another precision than this one."""
        return f"{', '.join(sorted(self.aside))}, where used, in fp32" if self.aside else ""

    def load(self, model: Path, shapes: Shapes, *, identity: str = "") -> "DeviceSession":
        """Open a component's graph on the card, its buffers with it."""
        file = self._file(model, identity)
        graphed = model.parent.name in GRAPHED
        session = (self._graphed if graphed else self._plain).open(file, shapes)
        return DeviceSession(self._ort, session, shapes, self._values(), _name(file))

    def step_model(self, model: Path, identity: str) -> Path | None:
        """Give the step graph of a unet, or None where its form has none."""
        if self.precision == "fp32" or not identity:
            return None
        found = self._form(model, identity)
        file = f"{identity.partition('/')[2]}/{FILE_NAME}"
        return found.folder / file if file in found.files else None

    def load_step(self, model: Path, shapes: Shapes, *, identity: str) -> DeviceStep:
        """Open the step graph and capture it; where that fails, it runs without CUDA graphs."""
        file = self.step_model(model, identity)
        if file is None:
            raise BundleError(f"{_name(model)} has no step graph")
        try:
            step = self._open_step(file, shapes, graphs=self._place.values == "cuda")
        except DeviceError as error:
            if self._place.values != "cuda":
                raise
            self._refusal = str(error)
            step = self._open_step(file, shapes, graphs=False)
        self.captured = step.graphs
        return step

    def exact(self) -> "CudaBackend":
        """Give the same card in fp32."""
        return self if self.precision == "fp32" else CudaBackend("fp32", None, self._place)

    def memory(self) -> tuple[int, int]:
        """Give the card's free bytes and all of them; zeros where it does not say."""
        return self._place.memory()

    def _open_step(self, file: Path, shapes: Shapes, *, graphs: bool) -> DeviceStep:
        session = (self._graphed if graphs else self._plain).open(file, shapes)
        return open_step(
            self._ort,
            session,
            shapes,
            self._values(),
            self._place.timeline,
            graphs=graphs,
            place=_name(file),
        )

    def _values(self) -> OrtValues:
        return OrtValues(self._ort, self._place.values, self._place.number)

    def _file(self, model: Path, identity: str) -> Path:
        if self.precision == "fp32" or not identity:
            return model
        form = self._form(model, identity)
        component = identity.partition("/")[2]
        file = f"{component}/model.onnx"
        if file in form.files:
            return form.folder / file
        self.aside.add(component)
        return model

    def _form(self, model: Path, identity: str) -> Derived:
        key = key_for(identity.partition("/")[0])
        forms = fitting(self._cache_dir, key) if self._cache_dir else []
        if not forms or self._cache_dir is None:
            name = model.parents[1].name
            raise BundleError(
                f"'{name}' has no form for NVIDIA cards{self._others(key)}",
                hint=f"`safelight export {name} --target cuda` makes it; or --precision fp32",
            )
        forms[0].verify(self._cache_dir)
        return forms[0]

    def _others(self, key: DerivedKey) -> str:
        if self._cache_dir is None:
            return ""
        found = (each.key for each in listed(self._cache_dir, key.identity))
        others = [key.differs(other) for other in found if other.target == "cuda"]
        return f" that fits: its {others[0]}" if others else ""


class DeviceSession:
    """One component whose inputs and outputs lie on the device, at addresses that stay."""

    def __init__(
        self,
        ort: Any,
        session: Any,
        shapes: Shapes,
        values: OrtValues,
        place: str,
        *,
        outputs: Shapes | None = None,
    ) -> None:
        """outputs: shapes of what the session itself knows no fixed shape of."""
        self._session = session
        self._queued = ort.RunOptions()
        self._queued.add_run_config_entry("disable_synchronize_execution_providers", "1")
        self._values = values
        self._place = place
        self._staged: dict[str, Array] = {}
        self._inputs: dict[str, Any] = {}
        self._outputs: dict[str, Any] = {}
        self._binding = session.io_binding()
        with room_for("ONNX Runtime", place, shapes):
            for port in session.get_inputs():
                if port.name not in shapes:
                    raise BundleError(
                        f"{place} has an input '{port.name}' that nothing is known of"
                    )
                asked = shapes[port.name]
                shape = (1,) if asked == () and len(port.shape) == 1 else asked
                self._staged[port.name] = np.zeros(shape, dtype=DTYPES[port.type])
                self._inputs[port.name] = values.empty(shape, DTYPES[port.type])
                self._binding.bind_ortvalue_input(port.name, self._inputs[port.name])
            for port in session.get_outputs():
                known = outputs.get(port.name) if outputs else None
                shape: tuple[Any, ...] = known or tuple(port.shape)
                if not all(isinstance(side, int) for side in shape):
                    raise BundleError(
                        f"{place} gives '{port.name}' of no fixed shape: {list(port.shape)}",
                        hint="another device takes such a graph: --device cpu",
                    )
                value = values.empty(shape, DTYPES[port.type])
                self._outputs[port.name] = value
                self._binding.bind_ortvalue_output(port.name, value)

    def run(self, inputs: Mapping[str, Array]) -> NDArray[np.float32]:
        """Compute the first output f32."""
        self._run(inputs)
        first = next(iter(self._outputs.values()))
        return self._values.get(first).astype(np.float32, copy=False)

    def run_all(self, inputs: Mapping[str, Array]) -> dict[str, NDArray[np.float32]]:
        """Compute every output f32."""
        self._run(inputs)
        return {
            name: self._values.get(value).astype(np.float32, copy=False)
            for name, value in self._outputs.items()
        }

    def enqueue(self) -> None:
        """Compute on what lies in the buffers, and return before it is done."""
        self._session.run_with_iobinding(self._binding, self._queued)

    def _run(self, inputs: Mapping[str, Array]) -> None:
        fill(self._staged, inputs)
        for name, array in self._staged.items():
            self._values.put(self._inputs[name], array)
        shapes = {name: array.shape for name, array in self._staged.items()}
        try:
            with room_for("ONNX Runtime", self._place, shapes):
                self._session.run_with_iobinding(self._binding)
        except EngineError:
            raise
        except Exception as error:  # the library's classes have no root of their own
            raise DeviceError(
                f"ONNX Runtime failed on {self._place}: {type(error).__name__}",
                hint="multiples of 64 pixels fit every model",
            ) from error


def _name(model: Path) -> str:
    return f"{model.parent.name}/{model.name}"
