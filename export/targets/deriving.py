"""Derives a bundle's form for one target into the cache: found again, or built, judged and kept."""

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from engine.bundle import Bundle
from engine.derived import Derived, DerivedKey, Shape, find, write
from engine.errors import RequestError
from export.child import run_job
from export.errors import ExportError, ParityError
from export.targets import Progress, Target, target_of

__all__ = ["build_form", "derive", "key_of"]


def derive(  # noqa: PLR0913  what the command takes, an option a parameter
    bundle: Bundle,
    target: str,
    *,
    cache: Path,
    shapes: tuple[Shape, ...],
    progress: Progress,
    accept_loss: float | None = None,
    timing_cache: Path | None = None,
) -> Derived:
    """Give the form of `bundle` for `target`, made now unless the cache has it.

    shapes: of pictures, none for free sizes. accept_loss: dB, in the place of the target's own
    bound. timing_cache: a file in which TensorRT keeps what it measured. progress: stage and done
    fraction, 0..1. Raises RequestError, ExportError, ParityError, DeviceError; then nothing is
    kept.
    """
    builder = target_of(target)
    if timing_cache is not None and not target.startswith("tensorrt"):
        raise RequestError(f"'{target}' measures no kernels: a timing cache is for tensorrt")
    if accept_loss is not None and not builder.BOUND:
        raise RequestError(f"'{target}' loses nothing: there is no loss to accept")
    key = key_of(bundle, target, shapes)
    bound = builder.BOUND if accept_loss is None else accept_loss
    kept = find(cache, key)
    if kept is not None:
        _judge(target, kept.report, bound, "; it stays in the cache")
        return kept
    _check_libraries(target, builder)
    job = {
        "task": "derive",
        "target": target,
        "bundle": str(bundle.path.absolute()),
        "hash_cache": str((cache / "hashes.json").absolute()),
        "identity": bundle.hash,
        "shapes": list(key.shapes),
        "timing_cache": None if timing_cache is None else str(timing_cache.absolute()),
    }

    def fill(folder: Path) -> Mapping[str, object]:
        report = run_job(job | {"out": str(folder.absolute())}, progress)
        _judge(target, report, bound, ", and nothing was kept")
        return report

    derived = write(cache, key, fill)
    progress("done", 1.0)
    return derived


def key_of(bundle: Bundle, target: str, shapes: tuple[Shape, ...]) -> DerivedKey:
    """Give the key of a form as it would be made here."""
    builder = target_of(target)
    return DerivedKey(
        identity=bundle.hash,
        target=target,
        precision=builder.PRECISION,
        device=builder.device(),
        shapes=tuple(str(shape) for shape in sorted(set(shapes))),
        libraries=dict(builder.versions()),
    )


def build_form(
    job: Mapping[str, Any], send: Callable[[Mapping[str, object]], None]
) -> dict[str, object]:
    """Do the job that `derive` gave to the child process; gives the builder's report."""
    bundle = Bundle.open(Path(job["bundle"]), hash_cache=Path(job["hash_cache"]))
    if bundle.hash != job["identity"]:
        raise ExportError(f"the bundle '{bundle.name}' was changed meanwhile", hint="once more")
    more: dict[str, Any] = {}
    if job.get("timing_cache"):
        from export.targets.plan import PlanOptions

        more["options"] = PlanOptions(timing_cache=Path(job["timing_cache"]))
    return target_of(job["target"]).build(
        bundle,
        Path(job["out"]),
        **more,
        shapes=tuple(Shape.parse(text) for text in job["shapes"]),
        progress=lambda stage, fraction: send({"stage": stage, "fraction": fraction}),
    )


def _check_libraries(target: str, builder: Target) -> None:
    missing = [name for name in builder.NEEDED if find_spec(name) is None]
    if missing:
        lines = dict.fromkeys(builder.NEEDED[name] for name in missing)
        raise ExportError(
            f"the target '{target}' needs {', '.join(missing)}", hint=" and ".join(lines)
        )


def _judge(target: str, report: Mapping[str, object], bound: float, kept: str) -> None:
    if not bound:
        return
    psnr = report.get("psnr")
    if isinstance(psnr, int | float) and psnr >= bound:  # NaN fails here as well
        return
    raise ParityError(
        f"what '{target}' computes has a PSNR of {psnr} dB against fp32; at least {bound:g} "
        f"is needed{kept}",
        hint="`--accept-loss DB` takes a lower one",
    )
