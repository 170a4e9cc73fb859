"""The `cuda` target: graphs for ONNX Runtime's CUDA provider, fused, in fp16 with fp32 islands.

Inputs and outputs stay those of the bundle (float32, int64), so that the engine's loop drives it as
it drives the others. A derived graph is for CUDA alone: four of its operators have no other kernel.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.bundle import Bundle
    from export.targets.profile import PictureShape

__all__ = ["BOUND", "NEEDED", "PRECISION", "UNVERIFIED", "build", "device", "versions"]

PRECISION = "fp16"
NEEDED: Mapping[str, str] = {
    "onnx": "pip install 'safelight[export]'",
    "onnx_ir": "pip install 'safelight[export]'",
    "onnxruntime": "pip install 'safelight[cuda]'",
}
# dB of a component's output against fp32. fp16 keeps 11 bits, 66 dB a rounding; pocket and the tiny
# random networks come out at 55 and more. One overflow or a wrong fusion leaves less than 20.
BOUND: float | None = 40.0
UNVERIFIED = "unverified on hardware: compared by ONNX Runtime on the CPU, never run on a card"


def device() -> str:
    """Name what the graphs are for: any card, since nothing is compiled yet."""
    return "cuda"


def versions() -> Mapping[str, str]:
    """Name what reads the form, for its key."""
    from export.targets.installed import installed

    return installed("onnxruntime-gpu")


def build(
    bundle: "Bundle",
    out: Path,
    *,
    shapes: "tuple[PictureShape, ...]" = (),  # noqa: ARG001  batch, height and width stay free
    progress: Callable[[str, float], None],
) -> dict[str, object]:
    """Write COMPONENT/model.onnx with its weights into `out`, the unet's step graph beside it, and
    give the report.

    The report has for each component: how many nodes compute in fp16 and in fp32 and why, the
    largest activation, what was fused and what was not and why, and the PSNR in dB of the plain and
    the fused fp16 graph; and the worst of them. Raises ParityError where NaN or Inf comes out,
    GraphError, and the engine's errors.
    """
    from export.targets.fused_graph import write_fused
    from export.targets.narrowing import observed, worst
    from export.targets.step_graph import step_beside

    parts = {
        source.name: write_fused(source, out / source.name) for source in observed(bundle, progress)
    }
    parts["unet"]["step_graph"] = step_beside(out / "unet" / "model.onnx")
    return {
        "components": parts,
        "psnr": worst(parts, "psnr_plain", "psnr_fused"),
        "verified": UNVERIFIED,
    }
