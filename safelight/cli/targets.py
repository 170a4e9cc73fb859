"""Forms of a bundle for one runtime: made by `export --target`, shown and removed by `models`."""

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
    "check_target",
    "derive_form",
    "form_line",
    "forms_of",
    "remove_forms",
    "show_forms",
]

ONNX = "onnx"  # the bundle itself


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
) -> dict[str, Any]:
    """Make the form of a bundle on the shelf unless it is there; gives what to print of it."""
    from engine.derived import Shape
    from export.targets.deriving import derive
    from safelight.progress import StageProgress

    bundle = shelf.open(name)
    with StageProgress() as progress:
        form = derive(
            bundle,
            target,
            cache=settings.cache,
            shapes=tuple(Shape.parse(text) for text in shapes),
            progress=progress.stage,
            accept_loss=accept_loss,
        )
    note(f"The form '{target}' of '{name}' is in the cache, {form.bytes / 1e6:.1f} MB.")
    if "verified" in form.report:
        note(f"It is {form.report['verified']}. `generate` does not use it yet.")
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
