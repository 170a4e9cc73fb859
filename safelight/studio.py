"""Generate and seal: the only code that sees pixels and keys together."""

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Protocol

from engine.handout import InOrder
from safelight.drafts import input_blobs
from safelight.pixels import encode_picture
from safelight.records import attempt_metadata, generated_line, picture_metadata
from safelight.sealer import Keeper, Sealed, Sealer

if TYPE_CHECKING:
    from engine import GenerationRequest, Picture, Pipeline, Step
    from engine.inputs import Inputs
    from engine.replicas import Outcome, Replicas

__all__ = ["Failed", "Made", "Part", "Sealed", "Studio"]


@dataclass(frozen=True, slots=True)
class Made:
    """A picture of an incognito run: PNG bytes for the caller, and nowhere else."""

    png: bytes
    line: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Failed:
    """A request failed and the run goes on: its place among the requests, from 0, and why."""

    index: int
    error: Exception


class Part(Protocol):
    """Of what larger whole a request is: a line of a file of prompts, a job of a queue."""

    def metadata(self, picture: int, /) -> Mapping[str, Any]:
        """Give what is sealed with picture `picture` of the request, from 0."""
        ...


class Studio:
    """Run requests through a pipeline and seal what comes out.

    vault: where pictures go; None is incognito, and Made events carry the bytes instead. inputs:
    pictures that go in with every request, sealed with each result; None: none. parent: the record
    that the init picture lies in, for the lineage.
    """

    def __init__(
        self,
        pipeline: "Pipeline | Replicas",
        vault: Keeper | None,
        inputs: "Inputs | None" = None,
        *,
        parent: str = "",
    ) -> None:
        from engine.inputs import NO_INPUTS

        self._pipeline = pipeline
        self._inputs = inputs or NO_INPUTS
        self._more = {"parent": parent} if parent else {}
        self._requests: Sequence[GenerationRequest] = ()
        self._parts: Sequence[Part] = ()
        self._line: InOrder[Outcome] = InOrder()
        self._vault = vault
        # What went in is encoded once. No method of ours goes in: the circle would keep networks.
        given = cache(partial(input_blobs, self._inputs))
        self._sealer = None if vault is None else Sealer(vault, given)

    def run(
        self,
        requests: Sequence["GenerationRequest"],
        cancelled: Callable[[], bool],
        *,
        keep_going: bool = False,
        parts: Sequence[Part] = (),
    ) -> Generator["Step | Sealed | Made | Failed", None, None]:
        """Yield steps while it works, and Sealed only once the record is on disk.

        Several devices make pictures of all requests at once; they are sealed in their order, and
        `Step.picture` is the picture's number among those of all requests, from 0.
        Pictures are encoded and sealed in a thread beside the work on the next ones: a Sealed may
        come among the steps of a later picture. However the run ends, finished pictures are sealed
        first, also those whose turn had not come. A request that fails or is cancelled leaves an
        attempt record; the error is then raised again, also where the vault takes no attempt.
        Closing this generator ends the run without an attempt: somebody means to go on later.
        keep_going: a request that the engine refuses, or whose numbers overflow, yields Failed
        instead; a lost device or a full disk would fail the others too and still ends the run.
        parts: for each request what it is a part of, which is sealed with its pictures.
        """
        self._requests, self._parts = requests, parts
        self._line = InOrder()
        try:
            yield from self._run(cancelled, keep_going=keep_going)
        finally:  # the caller may close this generator at any event
            for _ in self._flush():
                pass

    def _run(
        self, cancelled: Callable[[], bool], *, keep_going: bool
    ) -> Iterator["Step | Sealed | Made | Failed"]:
        from engine import NotFiniteError, RequestError, Step
        from engine.replicas import draw_all

        def goes_on(error: BaseException) -> bool:
            return keep_going and isinstance(error, (RequestError, NotFiniteError))

        requests, inputs = self._requests, self._inputs
        left = [request.count for request in requests]
        begun: set[int] = set()
        index = 0
        events = draw_all(self._pipeline, requests, cancelled, inputs=inputs, goes_on=goes_on)
        with closing(events) as outcomes:
            try:
                for outcome in outcomes:
                    place, event = outcome.place, outcome.event
                    index = place.request
                    begun.add(index)
                    if isinstance(event, Step):
                        yield replace(event, picture=place.number)
                    else:
                        left[index] -= 1 + len(outcome.dropped)
                        yield from self._arrived(outcome, goes_on)
                    if self._sealer is not None:
                        yield from self._sealer.sealed()
            except Exception as error:
                yield from self._flush()
                self._keep_failure(requests[index], error)
                raise
        yield from self._flush()
        unfinished = [number for number, count in enumerate(left) if count]
        for number in unfinished:
            if number in begun or number == unfinished[0]:
                self._keep_attempt(requests[number], "cancelled")

    def _arrived(
        self, outcome: "Outcome", goes_on: Callable[[BaseException], bool]
    ) -> "Iterator[Sealed | Made | Failed]":
        """Take a picture, or why there is none, and all that waited for it to be in order. Raises
        the error that ends the run.
        """
        if isinstance(outcome.event, BaseException) and not goes_on(outcome.event):
            raise outcome.event
        self._line.put(outcome.place.number, outcome)
        self._line.skip(outcome.dropped)
        for each in self._line.ready():
            yield from self._settled(each)

    def _settled(self, outcome: "Outcome") -> "Iterator[Sealed | Made | Failed]":
        """Hand a picture over to be sealed, or keep why there is none."""
        from engine import Picture

        place, event = outcome.place, outcome.event
        if isinstance(event, Exception):
            if self._sealer is not None:
                yield from self._sealer.finish()
            self._keep_failure(self._requests[place.request], event)
            yield Failed(place.request, event)
        elif isinstance(event, Picture) and self._sealer is None:
            yield self._made(event)
        elif isinstance(event, Picture) and self._sealer is not None:
            part = self._parts[place.request] if self._parts else None
            more = {} if part is None else part.metadata(place.picture)
            self._sealer.put(event, self._more | dict(more))

    def _made(self, picture: "Picture") -> Made:
        start = time.perf_counter()
        png = encode_picture(picture.pixels)
        line = generated_line("", picture_metadata(picture), time.perf_counter() - start)
        return Made(png, line)

    def _flush(self) -> "Iterator[Sealed | Made | Failed]":
        """Settle all that is finished, also what still waited for an earlier picture."""
        try:
            for outcome in self._line.rest():
                yield from self._settled(outcome)
        finally:  # sealing an earlier one may have failed: it is tried once more
            if self._sealer is not None:
                yield from self._sealer.finish()

    def _keep_failure(self, request: "GenerationRequest", error: Exception) -> None:
        """Keep an attempt, where the vault takes it: what went wrong is told by the error."""
        with suppress(Exception):
            self._keep_attempt(request, f"failed: {type(error).__name__}")

    def _keep_attempt(self, request: "GenerationRequest", outcome: str) -> None:
        from vault import Draft, Kind

        if self._vault is None:
            return
        metadata = attempt_metadata(request, self._pipeline.model, outcome)
        self._vault.add([Draft(kind=Kind.ATTEMPT, metadata=metadata, blobs=())])
