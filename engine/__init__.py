"""Runs a model bundle: a request goes in, events and pictures come out.

Importing this loads nothing: each name below is fetched from its module when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from engine.backends import Backend
    from engine.backends.fake import FakeBackend
    from engine.bundle import Bundle
    from engine.control import Control
    from engine.devices import Choice, choose, describe
    from engine.errors import (
        BundleError,
        DeviceError,
        EngineError,
        NotFiniteError,
        OutOfMemoryError,
        RequestError,
    )
    from engine.events import Event, PeakMemory, Picture, Seconds, Step
    from engine.inputs import Inputs
    from engine.pipeline import Pipeline
    from engine.request import GenerationRequest

__all__ = [
    "Backend",
    "Bundle",
    "BundleError",
    "Choice",
    "Control",
    "DeviceError",
    "EngineError",
    "Event",
    "FakeBackend",
    "GenerationRequest",
    "Inputs",
    "NotFiniteError",
    "OutOfMemoryError",
    "PeakMemory",
    "Picture",
    "Pipeline",
    "RequestError",
    "Seconds",
    "Step",
    "choose",
    "describe",
]

_HOMES: Final = {
    "Backend": "engine.backends",
    "Bundle": "engine.bundle",
    "BundleError": "engine.errors",
    "Choice": "engine.devices",
    "Control": "engine.control",
    "DeviceError": "engine.errors",
    "EngineError": "engine.errors",
    "Event": "engine.events",
    "FakeBackend": "engine.backends.fake",
    "GenerationRequest": "engine.request",
    "Inputs": "engine.inputs",
    "NotFiniteError": "engine.errors",
    "OutOfMemoryError": "engine.errors",
    "PeakMemory": "engine.events",
    "Picture": "engine.events",
    "Pipeline": "engine.pipeline",
    "RequestError": "engine.errors",
    "Seconds": "engine.events",
    "Step": "engine.events",
    "choose": "engine.devices",
    "describe": "engine.devices",
}


def __getattr__(name: str) -> object:
    """Fetch a public name from its module (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'engine' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
