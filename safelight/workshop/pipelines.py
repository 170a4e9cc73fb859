"""Loaded models: one pipeline is kept for the next job, and another one only reads and checks."""

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from safelight.addons import open_beside

if TYPE_CHECKING:
    from engine import Backend, Bundle, Choice, GenerationRequest, Pipeline
    from engine.inputs import Inputs
    from engine.replicas import Replicas
    from engine.tokenizer import Tokenizer
    from safelight.settings import Settings
    from safelight.shelf import Shelf

__all__ = ["Pipelines", "pipelines_from"]

CHECKED: Final = 32  # requests of a job; those beyond differ in seed and words alone
READERS: Final = 4  # models whose tokenizers are kept for counting


class Pipelines:
    """Opens models by name. Safe to use from several threads; what `load` gives is for one alone.

    choose: gives what computes; asked once, when it is needed first. check_safety: as for Pipeline.
    """

    def __init__(
        self,
        shelf: "Shelf",
        choose: "Callable[[], Choice | Backend]",
        *,
        check_safety: bool = True,
    ) -> None:
        self.shelf = shelf
        self._choose = _described(choose)
        self._check_safety = check_safety
        self._guard = threading.RLock()  # held while a model is read, hashed and opened
        self._keeping = threading.Lock()  # for what is kept of it; held for moments
        self._forgotten = 0  # times
        self._choice: Choice | None = None
        self._tokenizers: dict[str, Sequence[Tokenizer]] = {}
        self._loaded: tuple[tuple[str, ...], Pipeline | Replicas] | None = None

    @property
    def choice(self) -> "Choice":
        """Give what computes. Raises DeviceError where it cannot be had."""
        with self._guard:
            if self._choice is None:
                self._choice = self._choose()
            return self._choice

    @property
    def at_once(self) -> int:
        """Give how many pictures are made at once: one a device, and 1 while none is chosen."""
        chosen = self._choice
        return 1 if chosen is None else 1 + len(chosen.others)

    def bundle(self, name: str) -> "Bundle":
        """Open a model and verify it, as it is now. Raises BundleError."""
        return self.shelf.open(name)

    def tokenizers(self, name: str) -> "Sequence[Tokenizer]":
        """Give a model's tokenizers."""
        bundle = self.bundle(name)
        with self._guard:
            kept = self._tokenizers
            if bundle.hash not in kept:
                while len(kept) >= READERS:
                    kept.pop(next(iter(kept)))
                kept[bundle.hash] = bundle.tokenizers()
            return kept[bundle.hash]

    def check(self, name: str, requests: "Sequence[GenerationRequest]", inputs: "Inputs") -> None:
        """Refuse what the engine would refuse, before anything is loaded or sealed.

        Raises RequestError, BundleError, DeviceError.
        """
        with self._guard:
            reader = self._reader(name, requests)
            for request in requests[:CHECKED]:
                reader.generate(request, inputs=inputs)

    def load(self, name: str, requests: "Sequence[GenerationRequest]") -> "Pipeline | Replicas":
        """Give the pipeline for these requests, or one on each device of several: what is at hand,
        where it is of the same bundles.

        Its networks are loaded when it is used, and those for a size stay until another is asked.
        """
        with self._guard:
            times = self._forgotten
            key = (name, self.bundle(name).hash, *_names_beside(requests))
            with self._keeping:
                kept = self._loaded
                if kept is None or kept[0] != key:
                    kept = self._loaded = None  # give its memory back first
            if kept is not None:
                return kept[1]
            pipeline = self._open(name, requests)
            with self._keeping:
                if times == self._forgotten:
                    self._loaded = key, pipeline
            return pipeline

    def forget(self) -> None:
        """Let go of what is loaded: a pipeline keeps the texts that it encoded last.

        Waits for no model that is being read, since a lock must not: that one is not kept.
        """
        with self._keeping:
            self._forgotten += 1
            self._loaded = None
            self._tokenizers = {}

    def _open(self, name: str, requests: "Sequence[GenerationRequest]") -> "Pipeline | Replicas":
        from engine.replicas import pipeline_for

        return pipeline_for(
            self.bundle(name),
            self.choice,
            check_safety=self._check_safety,
            beside=open_beside(self.shelf, requests),
        )

    def _reader(self, name: str, requests: "Sequence[GenerationRequest]") -> "Pipeline":
        """Give a pipeline that only checks: of several devices one is enough."""
        from engine import Pipeline

        beside = open_beside(self.shelf, requests)
        return Pipeline(self.bundle(name), self.choice, beside=beside)


def pipelines_from(settings: "Settings") -> Pipelines:
    """Give the models on the user's shelf, on the device of the settings."""
    from engine import choose
    from safelight.shelf import Shelf

    def chosen() -> "Choice":
        return choose(settings["device"], settings["precision"], settings.cache)

    shelf = Shelf(settings.models, settings.cache)
    return Pipelines(shelf, chosen, check_safety=settings["safety_checker"] == "on")


def _names_beside(requests: "Sequence[GenerationRequest]") -> tuple[str, ...]:
    """Name the bundles beside the model that these requests need."""
    from engine.beside import names_beside

    return tuple(dict.fromkeys(name for request in requests for name in names_beside(request)))


def _described(choose: "Callable[[], Choice | Backend]") -> "Callable[[], Choice]":
    def chosen() -> "Choice":
        from engine import Choice

        found = choose()
        return found if isinstance(found, Choice) else Choice(backend=found, reason="given")

    return chosen
