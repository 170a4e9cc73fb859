"""TensorRT: runs the plans of a bundle's form `tensorrt` on one card, the unet's by CUDA graphs.

A plan fits one kind of card, one version of TensorRT and the sizes that it was built for: all are
in the form's key. What has no plan (a safety checker, an upscaler) runs on the processor. A bundle
with LoRAs added takes its base's refittable plan, whose weights are exchanged on the card; that
plan stays there when the bundle is changed for another one of the same base.
`unverified on hardware`.
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from engine.backends import Array, Backend, Libraries, Session, Shapes
from engine.backends.buffers import fill
from engine.backends.cudadevice import CudaDevice
from engine.backends.devicestep import DeviceStep, StepBuffers
from engine.backends.plansizes import form_with
from engine.backends.tensorrtnetwork import CudaValues, LoadedPlan, Network
from engine.backends.tensorrtrefit import Exchange, base_of
from engine.derived import Derived, DerivedKey, fitting, listed
from engine.errors import BundleError, DeviceError
from engine.memory import room_for

__all__ = [
    "TensorRtBackend",
    "TensorRtSession",
    "load_tensorrt",
    "open_plan_step",
    "silent_logger",
]

LEAST_VERSION: Final = 11
PIP: Final = "pip install 'safelight[tensorrt]', whose libraries come from NVIDIA's own index"
PLAN: Final = "model.plan"
STEP_PLAN: Final = "step.plan"
REFIT: Final = "tensorrt-refit"
TARGETS: Final = ("tensorrt", REFIT)  # the second one is somewhat slower
GRAPHED: Final = ("unet",)


def load_tensorrt() -> Any:
    """Import `tensorrt`, 11 or later. Raises DeviceError with what installs it."""
    try:
        trt = importlib.import_module("tensorrt")
    except Exception as error:  # a missing library shows as ImportError, OSError or RuntimeError
        raise DeviceError(
            f"TensorRT cannot be loaded: {type(error).__name__}: {str(error)[:200]}", hint=PIP
        ) from error
    version = str(getattr(trt, "__version__", "0"))
    if int(version.partition(".")[0]) < LEAST_VERSION:
        raise DeviceError(f"TensorRT {version} is too old; {LEAST_VERSION} is needed", hint=PIP)
    return trt


@dataclass(frozen=True, kw_only=True, slots=True)
class _Fitted:
    """A plan that was found. exchange: of its weights, for a refittable one."""

    file: Path
    exchange: Exchange | None


class TensorRtBackend:
    """Runs plans. cache_dir: where derived forms are. rest: the back end for what has no plan."""

    def __init__(self, trt: Any, card: CudaDevice, cache_dir: Path | None, rest: Backend) -> None:
        self._trt = trt
        self._card = card
        self._cache_dir = cache_dir
        self._rest = rest
        self._logger = silent_logger(trt)
        self.name: Final = "tensorrt"
        self.device: Final = f"cuda:{card.number}"
        self.precision: Final = "fp16"
        self.libraries: Libraries = (("tensorrt", str(trt.__version__)), *rest.libraries)
        self._aside: set[str] = set()
        # Component -> its refittable plan that was loaded last.
        self._kept: dict[str, tuple[Path, LoadedPlan]] = {}

    @property
    def how(self) -> str:
        """Say how steps run."""
        return "one plan a step, replayed as a CUDA graph"

    @property
    def mixed(self) -> str:
        """Say what has no plan, and so runs beside."""
        names = ", ".join(sorted(self._aside))
        if not names:
            return ""
        return f"{names}, where used, without a plan by {self._rest.name} {self._rest.precision}"

    def load(self, model: Path, shapes: Shapes, *, identity: str = "") -> Session:
        """Load a component's plan, or the component itself where the form has no plan of it."""
        component = identity.partition("/")[2]
        plan = self._plan(model, shapes, identity, PLAN) if component else None
        if plan is None:
            self._aside.add(component or model.parent.name)
            return self._rest.load(model, shapes, identity=identity)
        place = f"{component}/{PLAN}"
        with room_for("TensorRT", place, shapes):
            network = self._network(plan, shapes, place)
            return TensorRtSession(
                self._card, network, CudaValues(self._card), place, graph=component in GRAPHED
            )

    def exact(self) -> Backend:
        """Give the processor in fp32: no plan has another precision than its own."""
        return self._rest.exact()

    def step_model(self, model: Path, identity: str) -> Path | None:
        """Give the plan of the step graph, or None where no form has one."""
        found = self._plan(model, {}, identity, STEP_PLAN)
        return found.file if found else None

    def load_step(self, model: Path, shapes: Shapes, *, identity: str) -> DeviceStep:
        """Load the step's plan and capture both of its directions."""
        plan = self._plan(model, shapes, identity, STEP_PLAN)
        if plan is None:
            raise BundleError(f"{model.parent.name} has no plan of whole steps")
        place = f"{identity.partition('/')[2]}/{STEP_PLAN}"
        with room_for("TensorRT", place, shapes):
            network = self._network(plan, shapes, place)
            return open_plan_step(self._card, network, shapes, place)

    def memory(self) -> tuple[int, int]:
        """Give the card's free bytes and all of them."""
        return self._card.memory()

    def _network(self, found: _Fitted, shapes: Shapes, place: str) -> Network:
        return Network(self._card, self._loaded(found, place), shapes, found.exchange)

    def _loaded(self, found: _Fitted, place: str) -> LoadedPlan:
        """Load a plan, or give the refittable one that is on the card already."""
        component = place.partition("/")[0]
        kept = self._kept.get(component)
        if kept is not None and kept[0] == found.file:
            return kept[1]
        self._kept.pop(component, None)
        kept = None  # its memory goes before the next one is loaded
        refits = found.exchange is not None
        data = found.file.read_bytes()
        plan = LoadedPlan(self._trt, self._logger, self._card, data, place, refits=refits)
        if refits:
            self._kept[component] = found.file, plan
        return plan

    def _plan(self, model: Path, shapes: Shapes, identity: str, name: str) -> _Fitted | None:
        """Find a plan among the bundle's forms that fit this card and version, or for a bundle with
        LoRAs added among its base's. Raises BundleError where there is no form at all.
        """
        bundle, _, component = identity.partition("/")
        forms = self._forms(bundle)
        base, hashed = ("", "") if forms else base_of(model)
        if hashed:
            forms = [form for form in self._forms(hashed) if form.key.target == REFIT]
        if not forms:
            raise self._no_form(model, bundle, base)
        file = f"{component}/{name}"
        chosen = form_with(forms, file, shapes)
        if chosen is None or self._cache_dir is None:
            return None
        chosen.verify(self._cache_dir)
        exchange = None
        if chosen.key.target == REFIT:
            graph = chosen.folder / component / "model.onnx"
            exchange = Exchange(graph, model if hashed else None)
        return _Fitted(file=chosen.folder / file, exchange=exchange)

    def _forms(self, bundle: str) -> list[Derived]:
        if self._cache_dir is None:
            return []
        keys = [self._key(bundle, target) for target in TARGETS]
        return [form for key in keys for form in fitting(self._cache_dir, key)]

    def _key(self, bundle: str, target: str) -> DerivedKey:
        return DerivedKey(
            identity=bundle,
            target=target,
            precision="fp16",
            device=self._card.name,
            shapes=(),
            libraries={"tensorrt": str(self._trt.__version__), "driver": self._card.driver()},
        )

    def _no_form(self, model: Path, bundle: str, base: str) -> BundleError:
        key = self._key(bundle, TARGETS[0])
        others = listed(self._cache_dir, bundle) if self._cache_dir else ()
        differs = [key.differs(each.key) for each in others if each.key.target in TARGETS]
        name = model.parents[1].name
        if base and not differs:
            return BundleError(
                f"'{name}' has no TensorRT plan, and '{base}' none whose weights can be exchanged",
                hint=f"`safelight export {base} --target tensorrt --refit` builds one that serves"
                f" all LoRAs on '{base}'",
            )
        return BundleError(
            f"'{name}' has no TensorRT plan{f' that fits: its {differs[0]}' if differs else ''}",
            hint=f"`safelight export {name} --target tensorrt` builds it",
        )


def open_plan_step(card: CudaDevice, network: Network, shapes: Shapes, place: str) -> DeviceStep:
    """Give a step's plan with its buffers, captured in both directions. place: for errors."""
    dtypes = {name: kind for name, (_, kind) in network.inputs.items()}
    buffers = StepBuffers(CudaValues(card), dtypes, shapes, place)
    ways = _Ways(network, buffers, place)
    return DeviceStep("TensorRT", buffers, ways, card, graphs=True, prepare=ways.prepare)


class _Ways:
    """Runs a step's plan in its two directions, each a CUDA graph."""

    def __init__(self, network: Network, buffers: StepBuffers, place: str) -> None:
        self._network = network
        self._buffers = buffers
        self._place = place
        self._captured = self._capture()

    def __call__(self, which: int) -> None:
        """Ask for a step. Raises DeviceError where another bundle's weights are in the plan."""
        if not self._network.dressed:
            raise DeviceError(
                f"the weights of {self._place} were exchanged while it drew a picture",
                hint="generate again, one model at a time",
            )
        self._captured[which]()

    def prepare(self) -> None:
        """Put this bundle's weights into the plan, and capture anew if that changed any."""
        if self._network.dress():
            self._captured = self._capture()

    def _capture(self) -> list[Callable[[], None]]:
        found: list[Callable[[], None]] = []
        for which in (0, 1):
            self._buffers.clear()
            inputs, outputs = self._buffers.bound(which)
            self._buffers.rewind(which)
            found.append(self._network.captured(inputs | outputs))
        return found


class TensorRtSession:
    """One plan with memory for its inputs and outputs; graph: replayed as a CUDA graph."""

    def __init__(
        self, card: CudaDevice, network: Network, values: CudaValues, place: str, *, graph: bool
    ) -> None:
        self._card = card
        self._network = network
        self._values = values
        self._place = place
        self._graph = graph
        self._staged: dict[str, Array] = {
            name: np.zeros(shape, kind) for name, (shape, kind) in network.inputs.items()
        }
        self._inputs = {name: values.empty(*each) for name, each in network.inputs.items()}
        self._outputs = {name: values.empty(*each) for name, each in network.outputs.items()}
        self._run = self._ready()

    def run(self, inputs: Mapping[str, Array]) -> NDArray[np.float32]:
        """Compute the first output f32."""
        self._compute(inputs)
        return self._values.get(next(iter(self._outputs.values()))).astype(np.float32, copy=False)

    def run_all(self, inputs: Mapping[str, Array]) -> dict[str, NDArray[np.float32]]:
        """Compute every output f32."""
        self._compute(inputs)
        return {
            name: self._values.get(value).astype(np.float32, copy=False)
            for name, value in self._outputs.items()
        }

    def _ready(self) -> Callable[[], None]:
        network, every = self._network, self._inputs | self._outputs
        return network.captured(every) if self._graph else lambda: network.run(every)

    def enqueue(self) -> None:
        """Compute on what lies in the buffers, and return before it is done."""
        self._run()

    def _compute(self, inputs: Mapping[str, Array]) -> None:
        if self._network.dress():
            self._run = self._ready()
        fill(self._staged, inputs)
        for name, array in self._staged.items():
            self._values.put(self._inputs[name], array)
        shapes = {name: array.shape for name, array in self._staged.items()}
        with room_for("TensorRT", self._place, shapes):
            self._card.take()
            self._run()
            self._card.synchronise()


def silent_logger(trt: Any) -> Any:
    """Give a logger that drops everything: what fails is raised."""

    class Silent(trt.ILogger):
        """Says nothing: what fails is raised."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            """Drop a message."""

    return Silent()
