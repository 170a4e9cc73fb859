"""Turns checkpoints into bundles: the only home of torch, diffusers and transformers.

Importing this loads nothing of them, and not even numpy; torch works in a child process.
"""

from typing import TYPE_CHECKING

from export.errors import ExportError, GraphError, MissingError, ParityError, SourceError

if TYPE_CHECKING:
    from export.build import Options, export_checkpoint, is_current
    from export.ingredients import Ingredients
    from export.recheck import missing_for_recheck, recheck_bundle
    from export.reweight import Reweighting, is_reweighted, reweight_bundle
    from export.unexported import Unexported

__all__ = [
    "ExportError",
    "GraphError",
    "Ingredients",
    "MissingError",
    "Options",
    "ParityError",
    "Reweighting",
    "SourceError",
    "Unexported",
    "export_checkpoint",
    "is_current",
    "is_reweighted",
    "missing_for_recheck",
    "recheck_bundle",
    "reweight_bundle",
]


_HOMES = {
    "Ingredients": "ingredients",
    "Options": "build",
    "export_checkpoint": "build",
    "is_current": "build",
    "missing_for_recheck": "recheck",
    "recheck_bundle": "recheck",
    "Reweighting": "reweight",
    "is_reweighted": "reweight",
    "reweight_bundle": "reweight",
    "Unexported": "unexported",
}


def __getattr__(name: str) -> object:
    """Load the exporter when it is first asked for."""
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(f"export.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'export' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__
