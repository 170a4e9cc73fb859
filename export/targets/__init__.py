"""Forms of a bundle for one runtime or device each: a table of builders, and what a builder is.

A builder is a module that has all of `Target`; `export.targets.deriving` does the rest: libraries,
key, cache, process, judgement. Importing this, or a builder's module, loads nothing heavy.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from export.errors import ExportError

if TYPE_CHECKING:
    from engine.bundle import Bundle
    from engine.derived import Shape

__all__ = ["TARGETS", "TENSORRT_FORMS", "Progress", "Target", "target_of"]

Progress = Callable[[str, float], None]

TARGETS: Mapping[str, str] = {
    "cuda": "export.targets.cuda",
    "int8": "export.targets.int8",
    "openvino": "export.targets.openvino",
    "tensorrt": "export.targets.tensorrt",
}
# Other forms of a target, which the command reaches by an option. Each has a key of its own.
TENSORRT_FORMS: Mapping[str, str] = {
    "tensorrt-context": "export.targets.epcontext",
    "tensorrt-refit": "export.targets.refit",
}


class Target(Protocol):
    """What a builder's module has.

    PRECISION: goes into the key. NEEDED: import name -> the pip line, of what building takes.
    BOUND: dB; a report whose `psnr` is lower is refused; 0 for a form that is not judged by it.
    """

    PRECISION: str
    NEEDED: Mapping[str, str]
    BOUND: float

    def device(self) -> str:
        """Name the device that the form is for, as the key has it. May raise DeviceError."""
        ...

    def versions(self) -> Mapping[str, str]:
        """Name what reads the form, with versions, for the key. May raise DeviceError."""
        ...

    def build(
        self, bundle: "Bundle", out: Path, *, shapes: "tuple[Shape, ...]", progress: Progress
    ) -> dict[str, object]:
        """Write the form's files into the empty folder `out` and give the report (JSON values).

        shapes: none for free sizes. progress: stage and done fraction, 0..1. It runs in a process
        of its own. Raises errors of `export` and `engine`.
        """
        ...


def target_of(name: str) -> Target:
    """Give the builder of this name. Raises ExportError with the names there are."""
    modules = {**TARGETS, **TENSORRT_FORMS}
    if name not in modules:
        raise ExportError(f"unknown target '{name}'", hint=f"one of: onnx, {', '.join(TARGETS)}")
    module: Any = import_module(modules[name])
    return cast("Target", module)
