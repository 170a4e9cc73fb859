"""EP-context models for ONNX Runtime's TensorRT provider: `--target tensorrt --ep-context`.

For whoever has onnxruntime-gpu and TensorRT 10 in the place of TensorRT 11. That provider compiles
a weakly typed network and may round what should stay in fp32: a graph whose numbers are too large
for fp16 is refused, and that the timestep's angles may be coarse is said. `unverified on hardware`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

from export.errors import GraphError
from export.targets.cuda import BOUND, PRECISION
from export.targets.plan import (
    USUAL,
    PlanOptions,
    card_name,
    check_provider,
    write_context_model,
)

if TYPE_CHECKING:
    from engine.bundle import Bundle
    from export.targets import Progress
    from export.targets.profile import PictureShape

__all__ = ["BOUND", "CONTEXT_NAME", "LIBRARIES", "NEEDED", "PRECISION", "build", "device"]

LIBRARIES = ("onnxruntime-gpu",)
NEEDED: Mapping[str, str] = {
    "onnx": "pip install 'safelight[export]'",
    "onnx_ir": "pip install 'safelight[export]'",
    "onnxruntime": "pip install 'safelight[cuda]'",
}
CONTEXT_NAME = "model_ctx.onnx"
CAUTION = "the provider may compute the timestep's angles and normalisations in fp16"


def device() -> str:
    """Name the card that is compiled for. Raises DeviceError without it or the provider."""
    check_provider()  # so that what is missing first is said first
    return card_name()


def build(
    bundle: "Bundle",
    out: Path,
    *,
    shapes: "tuple[PictureShape, ...]" = (),
    progress: "Progress",
    options: PlanOptions = USUAL,
) -> dict[str, object]:
    """Write COMPONENT/model_ctx.onnx, the engine beside it and the typed graph it was made of.

    Gives the report of `export.targets.tensorrt.write_typed_graphs`. Raises DeviceError before
    anything is written, GraphError for a graph that fp16 overflows in.
    """
    from export.targets.profile import profile_of, shape_ranges
    from export.targets.tensorrt import write_typed_graphs

    check_provider()
    profile = profile_of(bundle.manifest, shapes)
    report = write_typed_graphs(bundle, out, progress=lambda s, f: progress(s, f / 2))
    parts = cast("dict[str, dict[str, object]]", report["components"])
    check_islands(parts)
    for place, name in enumerate(parts):
        progress(f"build {name}", (1 + place / len(parts)) / 2)
        ranges = shape_ranges(bundle.manifest.components[name].inputs, profile)
        folder = out / name
        write_context_model(folder / "model.onnx", folder / CONTEXT_NAME, ranges, options)
        parts[name]["shapes"] = {key: str(each) for key, each in ranges.items()}
    return report | {"caution": CAUTION}


def check_islands(parts: Mapping[str, Mapping[str, object]]) -> None:
    """Raise GraphError for a report's component that fp16 overflows in: it would give NaN."""
    for name, part in parts.items():
        count = cast("Mapping[str, int]", part["fp32_because"]).get("range", 0)
        if count:
            raise GraphError(
                f"{name} needs fp32 in {count} places, since its numbers are too large for fp16,"
                " and ONNX Runtime's TensorRT provider does not keep to it",
                hint="--target tensorrt without --ep-context does",
            )
