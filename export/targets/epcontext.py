"""EP-context models for ONNX Runtime's TensorRT provider: `--target tensorrt --ep-context`.

For whoever has onnxruntime-gpu and TensorRT 10 in the place of TensorRT 11. That provider compiles
a weakly typed network and may round what should stay in fp32: a component whose numbers are too
large for fp16 (text encoders', by their causal mask) is left to the bundle's own graph, and that
the timestep's angles may be coarse is said. `unverified on hardware`.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

from engine.backends.epcontext import CONTEXT_NAME, STEP_CONTEXT_NAME, context_versions
from engine.stepgraph import FILE_NAME
from export.errors import GraphError
from export.targets.cuda import BOUND, PRECISION
from export.targets.plan import (
    USUAL,
    PlanOptions,
    card_name,
    check_provider,
    driver_version,
    write_context_model,
)

if TYPE_CHECKING:
    from engine.bundle import Bundle
    from export.targets import Progress
    from export.targets.profile import PictureShape, ShapeRange

__all__ = ["BOUND", "NEEDED", "PRECISION", "build", "device", "versions"]

NEEDED: Mapping[str, str] = {
    "onnx": "pip install 'safelight[export]'",
    "onnx_ir": "pip install 'safelight[export]'",
    "onnxruntime": "pip install 'safelight[cuda]'",
}
UNET = "unet"
CAUTION = "the provider may compute the timestep's angles and normalisations in fp16"


def device() -> str:
    """Name the card that is compiled for. Raises DeviceError without it or the provider."""
    check_provider()  # so that what is missing first is said first
    return card_name()


def versions() -> Mapping[str, str]:
    """Name what an engine depends on beside the card: ONNX Runtime, TensorRT 10, the driver."""
    return context_versions(driver_version())


def build(
    bundle: "Bundle",
    out: Path,
    *,
    shapes: "tuple[PictureShape, ...]" = (),
    progress: "Progress",
    options: PlanOptions = USUAL,
) -> dict[str, object]:
    """Write COMPONENT/model_ctx.onnx, the engine beside it and the typed graph it was made of; of
    the unet a model of whole steps as well.

    Gives the report of `export.targets.tensorrt.write_typed_graphs` and what was left out. Raises
    DeviceError before anything is written, GraphError where the unet is left out.
    """
    from export.targets.profile import profile_of, shape_ranges
    from export.targets.step_graph import step_beside
    from export.targets.tensorrt import step_ranges, write_typed_graphs

    check_provider()
    profile = profile_of(bundle.manifest, shapes)
    report = write_typed_graphs(bundle, out, progress=lambda s, f: progress(s, f / 2))
    every = cast("dict[str, dict[str, object]]", report["components"])
    left_out = overflowing(every)
    for name in left_out:
        shutil.rmtree(out / name)
    parts = {name: part for name, part in every.items() if name not in left_out}
    for place, (name, part) in enumerate(parts.items()):
        progress(f"build {name}", (1 + place / len(parts)) / 2)
        ranges = shape_ranges(bundle.manifest.components[name].inputs, profile)
        folder = out / name
        write_context_model(folder / "model.onnx", folder / CONTEXT_NAME, ranges, options)
        part["shapes"] = _written(ranges)
        if name == UNET:
            part["step_graph"] = step_beside(folder / "model.onnx")
        if part.get("step_graph") == "made":
            graph = folder / FILE_NAME
            ranges = step_ranges(graph, profile)
            write_context_model(graph, folder / STEP_CONTEXT_NAME, ranges, options)
            part["step_shapes"] = _written(ranges)
    return report | {"components": parts, "left_out": left_out, "caution": CAUTION}


def _written(ranges: "Mapping[str, ShapeRange]") -> dict[str, str]:
    return {name: str(each) for name, each in ranges.items()}


def overflowing(parts: Mapping[str, Mapping[str, object]]) -> dict[str, str]:
    """Give component -> why it is left out, of a report's components that fp16 overflows in.

    Raises GraphError where the unet is one of them: nothing would be gained.
    """
    found: dict[str, str] = {}
    for name, part in parts.items():
        count = cast("Mapping[str, int]", part["fp32_because"]).get("range", 0)
        if count:
            found[name] = f"{count} nodes have numbers that are too large for fp16"
    if UNET in found:
        raise GraphError(
            f"in the unet {found[UNET]}, and ONNX Runtime's TensorRT provider keeps none in fp32",
            hint="--target tensorrt without --ep-context does",
        )
    return found
