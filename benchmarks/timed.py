"""A back end that keeps the time its loads took: what compiling is of a cold start."""

import time
from pathlib import Path

from engine.backends import (
    Backend,
    Libraries,
    Session,
    Shapes,
    SharingBackend,
    StepBackend,
    StepSession,
)

__all__ = ["TimedBackend", "TimedStepBackend", "timed"]


def timed(backend: Backend) -> "TimedBackend":
    """Time a back end's loads, those of its step graphs too where it has any."""
    if isinstance(backend, StepBackend):
        return TimedStepBackend(backend, backend)
    return TimedBackend(backend)


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

    @property
    def shares_prefix(self) -> bool:
        backend = self._backend
        return isinstance(backend, SharingBackend) and backend.shares_prefix

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


class TimedStepBackend(TimedBackend):
    """The same for one that runs whole steps: without these it would be measured row by row."""

    def __init__(self, backend: Backend, steps: StepBackend) -> None:
        """steps: the same back end."""
        super().__init__(backend)
        self._steps = steps

    @property
    def how(self) -> str:
        return self._steps.how

    @property
    def mixed(self) -> str:
        return self._steps.mixed

    def step_model(self, model: Path, identity: str) -> Path | None:
        """Give what the back end gives."""
        return self._steps.step_model(model, identity)

    def load_step(self, model: Path, shapes: Shapes, *, identity: str) -> StepSession:
        """Load as the back end does, and count the time."""
        start = time.perf_counter()
        try:
            return self._steps.load_step(model, shapes, identity=identity)
        finally:
            self.seconds += time.perf_counter() - start
