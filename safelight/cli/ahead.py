"""A plain request's model is loaded while the vault is opened: neither waits for the other."""

import os
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NoReturn

if TYPE_CHECKING:
    from engine import Choice
    from engine.pipeline import Pipeline
    from engine.replicas import Replicas
    from engine.request import GenerationRequest
    from safelight.checkpoints import Model
    from safelight.settings import Settings
    from safelight.shelf import Shelf

__all__ = ["Ahead", "Loaded", "leave", "loading_ahead", "open_pipeline"]

NAME: Final = "ahead"  # of the thread


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model on its device, ready to draw."""

    model: "Model"
    choice: "Choice"
    pipeline: "Pipeline | Replicas"


class Ahead:
    """Loads in a thread of its own; `result` waits for it."""

    def __init__(self, settings: "Settings", order: dict[str, Any], given: dict[str, Any]) -> None:
        """order: the one request; given: what flags say beside it."""
        self._asked = (settings, order, given)
        self._loaded: Loaded | None = None
        self._error: Exception | None = None
        # No daemon: a process that ends while the runtime compiles would crash.
        self._thread = threading.Thread(target=self._run, name=NAME)
        self._thread.start()

    def result(self) -> Loaded:
        """Give the loaded model. Raises what loading it raised."""
        self._thread.join()
        if self._loaded is None:
            raise self._error or RuntimeError("nothing was loaded")
        return self._loaded

    def wait(self) -> None:
        """Wait for its end, whatever that is."""
        self._thread.join()

    def _run(self) -> None:
        try:
            self._loaded = _load(*self._asked)
        except Exception as error:  # noqa: BLE001 - raised again where the result is asked for
            self._error = error


@contextmanager
def loading_ahead(
    settings: "Settings", orders: list[dict[str, Any]], given: dict[str, Any], *, plain: bool
) -> Generator[Ahead | None]:
    """Load during the block where that is known to be wanted: `plain` says that no picture goes in,
    and that no request may turn out to be made already. Not for cards: what is current on one, and
    the graphs that were captured there, belong to a thread. A block that fails leaves it loading:
    who typed a wrong passphrase hears so at once, and not when a model is compiled.
    """
    from engine.devicenames import DeviceName

    kind, _, which = settings["device"].partition(":")
    on_card = DeviceName(kind=kind, which=which.upper()).on_card
    begins = plain and len(orders) == 1 and not on_card
    ahead = Ahead(settings, orders[0], given) if begins else None
    yield ahead  # when the block fails, the process is about to `leave`
    if ahead is not None:
        ahead.wait()


def leave(status: int) -> NoReturn:
    """End the process with a status. Where a model is still being loaded, at once: that may take
    minutes, nobody waits for it any more, and the vault has been closed.
    """
    if any(thread.name == NAME for thread in threading.enumerate()):
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # nobody reads it any more
                stream.flush()
        os._exit(status)
    sys.exit(status)


def open_pipeline(
    settings: "Settings", shelf: "Shelf", model: "Model", ready: "list[GenerationRequest]"
) -> Loaded:
    """Choose the device and give a pipeline for the requests; networks are loaded as it draws."""
    from engine.replicas import pipeline_for
    from safelight.addons import open_beside

    beside = open_beside(shelf, ready)
    choice = model.choose(settings)
    checked = settings["safety_checker"] == "on"
    pipeline = pipeline_for(model.bundle, choice, check_safety=checked, beside=beside)
    return Loaded(model, choice, pipeline)


def _load(settings: "Settings", order: dict[str, Any], given: dict[str, Any]) -> Loaded:
    from engine.pipeline import Pipeline
    from safelight.checkpoints import open_model
    from safelight.orders import requests
    from safelight.shelf import Shelf

    shelf = Shelf(settings.models, settings.cache)
    model = open_model(settings, shelf)
    (request,) = requests(model.bundle, [order], given)
    loaded = open_pipeline(settings, shelf, model, [request])
    if isinstance(loaded.pipeline, Pipeline):
        loaded.pipeline.prepare(request)
    return loaded
