"""Forms of a bundle for one runtime: made by `export --target`, shown and removed by `models`."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from safelight.console import note, result
from safelight.exits import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from engine.derived import Derived
    from safelight.settings import Settings
    from safelight.shelf import Shelf

__all__ = [
    "ONNX",
    "TensorRt",
    "check_target",
    "derive_form",
    "form_line",
    "forms_of",
    "remove_forms",
    "show_forms",
]

ONNX = "onnx"  # the bundle itself
TENSORRT = "tensorrt"
# Form -> the device that runs it.
DEVICES = {
    "cuda": "cuda",
    "tensorrt": "tensorrt",
    "tensorrt-context": "onnxruntime:TENSORRT",
    "tensorrt-refit": "tensorrt",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorRt:
    """What is said of the target tensorrt alone. refit: plans whose weights can be exchanged.

    timing_cache: file of measured kernels. ep_context: for ONNX Runtime's TensorRT provider.
    """

    refit: bool
    timing_cache: "Path | None"
    ep_context: bool

    def check(self, target: str) -> None:
        """Refuse an option for another target, or two that exclude each other, or a bad file."""
        given = {
            "--refit": self.refit,
            "--timing-cache": self.timing_cache is not None,
            "--ep-context": self.ep_context,
        }
        names = [name for name, value in given.items() if value]
        if names and target != TENSORRT:
            raise UsageError(
                f"{' and '.join(names)} go with --target tensorrt, not with '{target}'",
                hint="leave them out, or add --target tensorrt",
            )
        if self.refit and self.ep_context:
            raise UsageError(
                "--refit and --ep-context exclude each other",
                hint="an EP-context model is built by ONNX Runtime, whose plans are not refitted",
            )
        file = self.timing_cache
        if file is not None and (file.is_dir() or not file.absolute().parent.is_dir()):
            raise UsageError(
                f"the timing cache {file} cannot be a file there",
                hint="give a file, new or of an earlier build, in a folder that exists",
            )

    def form(self, target: str) -> str:
        """Name the form that is built."""
        if self.refit:
            return f"{target}-refit"
        return f"{target}-context" if self.ep_context else target


def check_target(target: str, shapes: list[str], accept_loss: float | None) -> None:
    """Refuse what does not go together before anything is made. Raises UsageError, RequestError."""
    from difflib import get_close_matches

    from engine.derived import Shape
    from export.targets import TARGETS

    names = (ONNX, *TARGETS)
    if target not in names:
        near = get_close_matches(target, names, n=1)
        meant = f"; did you mean '{near[0]}'?" if near else ""
        raise UsageError(f"unknown target '{target}'{meant}", hint=f"one of: {', '.join(names)}")
    for text in shapes:
        Shape.parse(text)
    if target == ONNX and (shapes or accept_loss is not None):
        raise UsageError("--shape and --accept-loss go with a --target other than onnx")


def derive_form(
    shelf: "Shelf",
    settings: "Settings",
    name: str,
    *,
    target: str,
    shapes: list[str],
    accept_loss: float | None,
    tensorrt: TensorRt,
) -> dict[str, Any]:
    """Make the form of a bundle on the shelf unless it is there; gives what to print of it."""
    from engine.derived import Shape
    from export.targets.deriving import derive
    from safelight.progress import StageProgress

    bundle = shelf.open(name)
    with StageProgress() as progress:
        form = derive(
            bundle,
            tensorrt.form(target),
            cache=settings.cache,
            shapes=tuple(Shape.parse(text) for text in shapes),
            progress=progress.stage,
            accept_loss=accept_loss,
            timing_cache=tensorrt.timing_cache,
        )
    note(f"The form '{target}' of '{name}' is in the cache, {form.bytes / 1e6:.1f} MB.")
    if "verified" in form.report:
        note(f"It is {form.report['verified']}.")
        note(f"generate with --model {name} --device {DEVICES[form.key.target]}.")
    elif "psnr" in form.report:
        note(f"It is approximate: its pictures have {form.report['psnr']} dB against fp32;")
        note(f"generate with --model {name} --precision {form.key.precision}.")
    return form_line(form)


def forms_of(cache: "Path", identity: str) -> "list[Derived]":
    """Give the forms of a bundle that are in the cache, and say which are spoilt."""
    from engine.derived import listed

    return sorted(listed(cache, identity, note), key=lambda form: form.key.target)


def form_line(form: "Derived") -> dict[str, Any]:
    """Give a form as a JSON line has it."""
    return {
        "target": form.key.target,
        "shapes": list(form.key.shapes),
        "precision": form.key.precision,
        "device": form.key.device,
        "libraries": dict(form.key.libraries),
        "bytes": form.bytes,
        "path": str(form.folder),
        "report": dict(form.report),
    }


def show_forms(forms: "Iterable[Derived]") -> None:
    """Print forms with their reports, for people."""
    for form in forms:
        made_for = ", ".join(form.key.shapes) or "free sizes"
        versions = ", ".join(f"{name} {value}" for name, value in form.key.libraries.items())
        result(f"target {form.key.target}: {made_for}, {form.key.device}, {versions}")
        result(f"  bytes: {form.bytes} ({form.bytes / 1e6:.1f} MB)")
        for key, value in form.report.items():
            parts = cast("dict[str, object]", value) if isinstance(value, dict) else {}
            if any(isinstance(part, dict) for part in parts.values()):
                for name, part in parts.items():
                    result(f"  {name}: {_written(part)}")
            else:
                result(f"  {key}: {_written(value)}")


def remove_forms(shelf: "Shelf", cache: "Path", name: str) -> int:
    """Remove the forms of a bundle that is about to leave the shelf; gives the freed bytes.

    A bundle that does not open has a manifest all the same, whose hash names its forms.
    """
    from hashlib import sha256

    from engine.derived import drop
    from engine.errors import EngineError

    try:
        identity = shelf.open(name).hash
    except EngineError:
        manifest = shelf.find(name).path / "safelight.json"
        if not manifest.is_file():
            return 0
        with manifest.open("rb") as file:
            identity = sha256(file.read(1 << 20)).hexdigest()
    return drop(cache, identity)


def _inner(value: object) -> str:
    return f"({_written(value)})" if isinstance(value, dict) else _written(value)


def _written(value: object) -> str:
    if isinstance(value, dict):
        parts = cast("dict[str, object]", value).items()
        return "; ".join(f"{key} {_inner(part)}" for key, part in parts) or "none"
    if isinstance(value, list):
        return ", ".join(map(_written, cast("list[object]", value)))
    return str(value)
