"""EP-context models: what ONNX Runtime's TensorRT provider compiled of a bundle, run without its
builder.

For machines that have onnxruntime-gpu and TensorRT 10's libraries, and not the package `tensorrt`.
The form `tensorrt-context` holds the models, each a graph of one node that names the engine beside
it; its key has all that an engine depends on. What the form has not (text encoders, whose numbers
need fp32) runs in fp32 by the CUDA provider. `unverified on hardware`.
"""

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final, cast

from engine.backends import Backend, Libraries, Session, Shapes
from engine.backends.cuda import GRAPHED, DeviceSession, Place
from engine.backends.cudadevice import CudaDevice
from engine.backends.cudalibraries import (
    TENSORRT_10,
    missing_libraries,
    open_libraries,
    tensorrt_10_version,
)
from engine.backends.devicestep import DeviceStep
from engine.backends.onnxruntime import OnnxRuntimeBackend, runtime
from engine.backends.ortproviders import Provider, tensorrt_provider
from engine.backends.ortstep import open_step
from engine.backends.ortvalues import OrtValues
from engine.backends.plansizes import form_with, output_shapes
from engine.derived import Derived, DerivedKey, fitting, listed
from engine.errors import BundleError, DeviceError
from engine.memory import room_for
from engine.onnxheader import read_onnx_header

__all__ = [
    "CONTEXT_NAME",
    "NAME",
    "STEP_CONTEXT_NAME",
    "TARGET",
    "ContextBackend",
    "context_key",
    "context_place",
    "context_versions",
]

NAME: Final = "onnxruntime-tensorrt"
TARGET: Final = "tensorrt-context"
CONTEXT_NAME: Final = "model_ctx.onnx"
STEP_CONTEXT_NAME: Final = "step_ctx.onnx"


def context_versions(driver: str) -> dict[str, str]:
    """Name what an engine of the provider depends on beside the card: for its form's key.

    driver: as `CudaDevice.driver` gives it. TensorRT's libraries must be open.
    """
    try:
        installed = version("onnxruntime-gpu")
    except PackageNotFoundError:
        installed = "unknown"
    tensorrt = tensorrt_10_version() or "unknown"
    return {"onnxruntime-gpu": installed, "tensorrt": tensorrt, "driver": driver}


def context_key(identity: str, card: str, versions: Mapping[str, str]) -> DerivedKey:
    """Give the key of a bundle's EP-context models. identity: the bundle's hash."""
    return DerivedKey(
        identity=identity,
        target=TARGET,
        precision="fp16",
        device=card,
        shapes=(),
        libraries=dict(versions),
    )


def context_place(number: int) -> tuple[Place, dict[str, str]]:
    """Give a card for the TensorRT provider, and the versions for the key of what it runs.

    Raises DeviceError for a missing library, driver or card, with what mends it.
    """
    missing = missing_libraries(open_libraries(), also=TENSORRT_10)
    if missing:
        raise missing
    card = CudaDevice(number)

    def provider(graphs: bool, exact: bool) -> Provider:  # noqa: ARG001  an engine is what it is
        return tensorrt_provider(number, card.stream, graphs=graphs)

    place = Place(
        device=f"cuda:{number}",
        name=card.name,
        values="cuda",
        number=number,
        provider=provider,
        timeline=card,
        memory=card.memory,
        carry=card.copy_across,
    )
    return place, context_versions(card.driver())


class ContextBackend:
    """Runs EP-context models. versions: of the key. rest: what computes components without one.

    captured: whether the step became a CUDA graph; None before one was loaded. Raises DeviceError
    where ONNX Runtime has no TensorRT provider.
    """

    def __init__(
        self, cache_dir: Path | None, place: Place, versions: Mapping[str, str], rest: Backend
    ) -> None:
        self._ort = runtime()
        self._cache_dir = cache_dir
        self._place = place
        self._versions = dict(versions)
        self._rest = rest
        self._plain = OnnxRuntimeBackend(place.provider(False, False))
        self._graphed = OnnxRuntimeBackend(place.provider(True, False))
        self.name: Final = NAME
        self.device: Final = place.device
        self.precision: Final = "fp16"
        others = {"tensorrt": self._versions.get("tensorrt", "unknown")}
        self.libraries: Libraries = (*self._plain.libraries, *others.items())
        self.captured: bool | None = None
        self._aside: set[str] = set()
        self._refusal = ""  # why the step was not captured

    @property
    def how(self) -> str:
        """Say how steps run."""
        refusal = f" ({self._refusal})" if self._refusal else ""
        graph = "replayed as a CUDA graph" if self.captured else f"without CUDA graphs{refusal}"
        return f"one EP-context model a step, {graph}"

    @property
    def mixed(self) -> str:
        """Say what has no context model, and so runs beside."""
        names = ", ".join(sorted(self._aside))
        if not names:
            return ""
        return f"{names}, where used, by {self._rest.name} in {self._rest.precision}"

    def load(self, model: Path, shapes: Shapes, *, identity: str = "") -> Session:
        """Open a component's context model, or the component itself where the form has none."""
        component = identity.partition("/")[2]
        file = self._file(model, shapes, identity, CONTEXT_NAME) if component else None
        if file is None:
            self._aside.add(component or model.parent.name)
            return self._rest.load(model, shapes, identity=identity)
        place = f"{component}/{CONTEXT_NAME}"
        header = read_onnx_header(model)
        opener = self._graphed if component in GRAPHED else self._plain
        with room_for("ONNX Runtime", place, shapes):
            session = opener.open(file, shapes)
        outputs = output_shapes(header.inputs, header.outputs, shapes)
        return DeviceSession(self._ort, session, shapes, self._values(), place, outputs=outputs)

    def step_model(self, model: Path, identity: str) -> Path | None:
        """Give the context model of whole steps, or None where no form has one."""
        return self._file(model, {}, identity, STEP_CONTEXT_NAME)

    def load_step(self, model: Path, shapes: Shapes, *, identity: str) -> DeviceStep:
        """Open the step and capture it; where that fails, it runs without a CUDA graph."""
        file = self._file(model, shapes, identity, STEP_CONTEXT_NAME)
        if file is None:
            raise BundleError(f"{model.parent.name} has no EP-context model of whole steps")
        place = f"{identity.partition('/')[2]}/{STEP_CONTEXT_NAME}"
        try:
            step = self._open_step(file, shapes, place, graphs=self._place.values == "cuda")
        except DeviceError as error:
            if self._place.values != "cuda":
                raise
            self._refusal = str(error)
            step = self._open_step(file, shapes, place, graphs=False)
        self.captured = step.graphs
        return step

    def exact(self) -> Backend:
        """Give what computes in fp32: no engine here has another precision than its own."""
        return self._rest.exact()

    def memory(self) -> tuple[int, int]:
        """Give the card's free bytes and all of them; zeros where it does not say."""
        return self._place.memory()

    def _open_step(self, file: Path, shapes: Shapes, place: str, *, graphs: bool) -> DeviceStep:
        return open_step(
            self._ort,
            (self._graphed if graphs else self._plain).open(file, shapes),
            shapes,
            self._values(),
            self._place.timeline,
            graphs=graphs,
            place=place,
            carry=self._place.carry,
        )

    def _values(self) -> OrtValues:
        return OrtValues(self._ort, self._place.values, self._place.number)

    def _file(self, model: Path, shapes: Shapes, identity: str, name: str) -> Path | None:
        """Find a context model among the bundle's forms that fit card and versions. Raises
        BundleError where there is no form at all, or none for these shapes.
        """
        bundle, _, component = identity.partition("/")
        key = context_key(bundle, self._place.name, self._versions)
        forms = fitting(self._cache_dir, key) if self._cache_dir else []
        if not forms:
            raise self._no_form(model, key)
        file = f"{component}/{name}"
        form = form_with(forms, file, shapes)
        if form is None or self._cache_dir is None:
            return None
        form.verify(self._cache_dir)
        _check_shapes(form, component, file, shapes)
        return form.folder / file

    def _no_form(self, model: Path, key: DerivedKey) -> BundleError:
        others = listed(self._cache_dir, key.identity) if self._cache_dir else ()
        differs = [key.differs(each.key) for each in others if each.key.target == TARGET]
        name = model.parents[1].name
        return BundleError(
            f"'{name}' has no EP-context model{f' that fits: its {differs[0]}' if differs else ''}",
            hint=f"`safelight export {name} --target tensorrt --ep-context` builds it",
        )


def _check_shapes(form: Derived, component: str, file: str, shapes: Shapes) -> None:
    """Raise BundleError for a shape outside of what the form's report says it was built for: the
    provider would say it late, and there is no builder that could widen it.
    """
    parts = cast("Mapping[str, Mapping[str, object]]", form.report.get("components", {}))
    field = "step_shapes" if file.endswith(STEP_CONTEXT_NAME) else "shapes"
    ranges = cast("Mapping[str, str]", parts.get(component, {}).get(field, {}))
    for name, text in ranges.items():
        least, _, most = (tuple(map(int, each.split("x"))) for each in text.split(".."))
        shape = shapes.get(name, least)
        inside = len(shape) == len(least) and all(
            low <= side <= high for low, side, high in zip(least, shape, most, strict=True)
        )
        if not inside:
            raise BundleError(
                f"the EP-context model {file} was not built for '{name}' of {list(shape)}",
                hint="`safelight export NAME --target tensorrt --ep-context --shape WIDTHxHEIGHT`"
                " builds one",
            )
