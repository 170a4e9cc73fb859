"""Turns checkpoints into bundles: the only home of torch, diffusers and transformers.

Importing this loads nothing of them, and not even numpy; torch works in a child process.
"""

from typing import TYPE_CHECKING

from export.errors import ExportError, GraphError, MissingError, ParityError, SourceError

if TYPE_CHECKING:
    from export.build import Options, export_folder
    from export.recheck import missing_for_recheck, recheck_bundle

__all__ = [
    "ExportError",
    "GraphError",
    "MissingError",
    "Options",
    "ParityError",
    "SourceError",
    "export_folder",
    "missing_for_recheck",
    "recheck_bundle",
]


def __getattr__(name: str) -> object:
    """Load the exporter when it is first asked for."""
    if name in {"Options", "export_folder"}:
        from export import build

        return getattr(build, name)
    if name in {"missing_for_recheck", "recheck_bundle"}:
        from export import recheck

        return getattr(recheck, name)
    raise AttributeError(f"module 'export' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__
