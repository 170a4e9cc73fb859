"""Forms of a bundle for one runtime or device each: a table of builders."""

from collections.abc import Mapping

__all__ = ["TARGETS"]

TARGETS: Mapping[str, str] = {
    "cuda": "export.targets.cuda",
    "tensorrt": "export.targets.tensorrt",
}
