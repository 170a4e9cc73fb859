"""A back end that keeps the time its loads took: what compiling is of a cold start."""

import time
from pathlib import Path

from engine.backends import Backend, Libraries, Session, Shapes

__all__ = ["TimedBackend"]


class TimedBackend:
    """Passes everything on. seconds: spent in `load` so far."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.seconds = 0.0

    @property
    def name(self) -> str:
        return self._backend.name

    @property
    def device(self) -> str:
        return self._backend.device

    @property
    def precision(self) -> str:
        return self._backend.precision

    @property
    def libraries(self) -> Libraries:
        return self._backend.libraries

    def load(self, model: Path, shapes: Shapes, *, identity: str = "") -> Session:
        """Load as the back end does, and count the time."""
        start = time.perf_counter()
        try:
            return self._backend.load(model, shapes, identity=identity)
        finally:
            self.seconds += time.perf_counter() - start

    def exact(self) -> Backend:
        """Give the back end's own form in fp32."""
        return self._backend.exact()
