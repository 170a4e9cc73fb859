"""The `tensorrt` target with plans whose weights can be exchanged: `--target tensorrt --refit`.

A form of its own, since such a plan is somewhat slower and other bytes than one that is not.
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from export.targets import tensorrt
from export.targets.tensorrt import BOUND, NEEDED, PRECISION, device, versions

if TYPE_CHECKING:
    from engine.bundle import Bundle
    from export.targets import Progress
    from export.targets.plan import PlanOptions
    from export.targets.profile import PictureShape

__all__ = ["BOUND", "NEEDED", "PRECISION", "build", "device", "versions"]


def build(
    bundle: "Bundle",
    out: Path,
    *,
    shapes: "tuple[PictureShape, ...]" = (),
    progress: "Progress",
    options: "PlanOptions | None" = None,
) -> dict[str, object]:
    """Write what `export.targets.tensorrt` writes, with refittable plans."""
    from export.targets.plan import USUAL

    refittable = replace(USUAL if options is None else options, refittable=True)
    return tensorrt.build(bundle, out, shapes=shapes, progress=progress, options=refittable)
