"""The `tensorrt` target: strongly typed graphs in fp16 with fp32 islands, and plans of them.

A plan fits one kind of card and one version of TensorRT: both are in the key it is kept under.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.stepgraph import FILE_NAME
from export.targets.cuda import BOUND, PRECISION, UNVERIFIED

if TYPE_CHECKING:
    from engine.bundle import Bundle
    from export.targets.plan import PlanOptions
    from export.targets.profile import PictureShape, Profile, ShapeRange

__all__ = [
    "BOUND",
    "NEEDED",
    "PLAN_NAME",
    "PRECISION",
    "STEP_PLAN_NAME",
    "build",
    "device",
    "step_ranges",
    "versions",
    "write_typed_graphs",
]

NEEDED: Mapping[str, str] = {
    "onnx": "pip install 'safelight[export]'",
    "onnx_ir": "pip install 'safelight[export]'",
    "onnxruntime": "pip install 'safelight[cpu]'",
    "tensorrt": (
        "pip install 'safelight[tensorrt]'; the package's libraries come from NVIDIA's own index,"
        " which its installation guide names"
    ),
}
PLAN_NAME = "model.plan"
STEP_PLAN_NAME = "step.plan"
UNET = "unet"
# Of the step graph: one picture, tables filled up to a multiple of 64 rows.
STEP_SIZES: Mapping[str, tuple[int, int, int]] = {
    "pictures": (1, 1, 1),
    "rows": (64, 64, 1024),
    "noises": (1, 1, 1024),
}


def device() -> str:
    """Name the card that plans would be built for. Raises DeviceError without it or TensorRT."""
    from export.targets.plan import card_name, load_tensorrt

    load_tensorrt()  # so that what is missing first is said first
    return card_name()


def versions() -> Mapping[str, str]:
    """Name what a plan depends on beside the card: TensorRT, and the driver's CUDA."""
    from export.targets.installed import installed
    from export.targets.plan import driver_version

    return installed("tensorrt") | {"driver": driver_version()}


def build(
    bundle: "Bundle",
    out: Path,
    *,
    shapes: "tuple[PictureShape, ...]" = (),
    progress: Callable[[str, float], None],
    options: "PlanOptions | None" = None,
) -> dict[str, object]:
    """Write COMPONENT/model.plan, and the typed graph that it was made of, into `out`.

    shapes: what the plans must cover; none: the bundle's default size.
    options: `PlanOptions()` when left out. Gives the report of `write_typed_graphs` with the sizes
    of plans, the shapes, and TensorRT's version. Raises DeviceError without TensorRT or a card,
    before anything is written.
    """
    from export.targets.plan import PlanOptions, load_tensorrt
    from export.targets.profile import profile_of

    trt = load_tensorrt()
    chosen = PlanOptions() if options is None else options
    profile = profile_of(bundle.manifest, shapes)
    report = write_typed_graphs(bundle, out, progress=lambda s, f: progress(s, f / 2))
    for place, (name, part) in enumerate(report["components"].items()):
        progress(f"build {name}", (1 + place / len(report["components"])) / 2)
        part.update(_plan(trt, bundle, out / name, profile, chosen))
        if name == UNET:
            part["step_graph"] = _step_plan(trt, out / name, profile, chosen)
    return report | {"tensorrt": str(trt.__version__), "refittable": chosen.refittable}


def _plan(
    trt: Any, bundle: "Bundle", folder: Path, profile: "Profile", options: "PlanOptions"
) -> dict[str, object]:
    from export.targets.plan import build_plan
    from export.targets.profile import shape_ranges

    ranges = shape_ranges(bundle.manifest.components[folder.name].inputs, profile)
    size = build_plan(trt, folder / "model.onnx", folder / PLAN_NAME, ranges, options)
    return {"plan_bytes": size, "shapes": {name: str(each) for name, each in ranges.items()}}


def _step_plan(trt: Any, folder: Path, profile: "Profile", options: "PlanOptions") -> str:
    """Build a plan of the whole step beside the unet's; gives for the report 'made', or why not."""
    from export.targets.plan import build_plan
    from export.targets.step_graph import step_beside

    told = step_beside(folder / "model.onnx")
    if told != "made":
        return told
    graph = folder / FILE_NAME
    build_plan(trt, graph, folder / STEP_PLAN_NAME, step_ranges(graph, profile), options)
    return told


def step_ranges(graph: Path, profile: "Profile") -> "dict[str, ShapeRange]":
    """Give input -> its shapes, of the step graph, for pictures of the profile's sizes."""
    from engine.onnxheader import read_onnx_header
    from export.targets.profile import Profile, shape_ranges

    sizes = {**profile.sizes, **STEP_SIZES, "texts": profile.sizes["batch"]}
    return shape_ranges(read_onnx_header(graph).inputs, Profile(sizes=sizes))


def write_typed_graphs(
    bundle: "Bundle", out: Path, *, progress: Callable[[str, float], None]
) -> dict[str, Any]:
    """Write COMPONENT/model.onnx with its weights into `out`: what TensorRT compiles.

    Gives for each component how many nodes compute in fp16 and in fp32 and why, the largest
    activation, and the PSNR in dB against fp32; and the worst of them. Needs no TensorRT. Raises
    ParityError where NaN or Inf comes out, GraphError, and the engine's errors.
    """
    from export.targets.narrowing import observed, worst
    from export.targets.typed_graph import write_typed

    parts = {
        source.name: write_typed(source, out / source.name) for source in observed(bundle, progress)
    }
    return {"components": parts, "psnr": worst(parts, "psnr"), "verified": UNVERIFIED}
