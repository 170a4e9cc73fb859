"""Generate and seal: the only code that sees pixels and keys together."""

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from safelight.drafts import input_blobs
from safelight.pixels import encode_picture
from safelight.records import attempt_metadata, generated_line, picture_metadata
from safelight.sealer import Keeper, Sealed, Sealer

if TYPE_CHECKING:
    from engine import GenerationRequest, Picture, Pipeline, Step
    from engine.inputs import Inputs
    from engine.replicas import Replicas
    from vault import BlobDraft

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
        self._given: tuple[BlobDraft, ...] | None = None
        self._vault = vault
        self._sealer = None if vault is None else Sealer(vault, self._input_blobs)

    def run(
        self,
        requests: Sequence["GenerationRequest"],
        cancelled: Callable[[], bool],
        *,
        keep_going: bool = False,
        parts: Sequence[Part] = (),
    ) -> Generator["Step | Sealed | Made | Failed", None, None]:
        """Yield steps while it works, and Sealed only once the record is on disk.

        Pictures are encoded and sealed in a thread beside the work on the next ones: a Sealed may
        come among the steps of a later picture. However the run ends, finished pictures are sealed
        first. A request that fails or is cancelled leaves an attempt record; the error is then
        raised again. Closing this generator ends the run without an attempt: somebody means to go
        on later. keep_going: a request that the engine refuses, or whose numbers overflow, yields
        Failed instead; a lost device or a full disk would fail the others too and still ends the
        run. parts: for each request what it is a part of, which is sealed with its pictures.
        """
        try:
            yield from self._run(requests, cancelled, parts, keep_going=keep_going)
        finally:  # the caller may close this generator at any event
            for _ in self._flush():
                pass

    def _run(
        self,
        requests: Sequence["GenerationRequest"],
        cancelled: Callable[[], bool],
        parts: Sequence[Part],
        *,
        keep_going: bool,
    ) -> Iterator["Step | Sealed | Made | Failed"]:
        from engine import NotFiniteError, RequestError

        for index, request in enumerate(requests):
            try:
                part = parts[index] if parts else None
                finished = yield from self._one(request, cancelled, part)
            except Exception as error:
                yield from self._flush()
                self._keep_attempt(request, f"failed: {type(error).__name__}")
                if not (keep_going and isinstance(error, (RequestError, NotFiniteError))):
                    raise
                yield Failed(index, error)
                continue
            if finished < request.count:
                yield from self._flush()
                self._keep_attempt(request, "cancelled")
                return
        yield from self._flush()

    def _one(
        self, request: "GenerationRequest", cancelled: Callable[[], bool], part: Part | None
    ) -> Generator["Step | Sealed | Made", None, int]:
        from engine import Picture

        finished = 0
        events = self._pipeline.generate(request, cancelled=cancelled, inputs=self._inputs)
        for event in events:
            if not isinstance(event, Picture):
                yield event
            elif self._sealer is None:
                yield self._made(event)
                finished += 1
            else:
                more = {} if part is None else part.metadata(finished)
                self._sealer.put(event, self._more | dict(more))
                finished += 1
            if self._sealer is not None:
                yield from self._sealer.sealed()
        return finished

    def _made(self, picture: "Picture") -> Made:
        start = time.perf_counter()
        png = encode_picture(picture.pixels)
        line = generated_line("", picture_metadata(picture), time.perf_counter() - start)
        return Made(png, line)

    def _input_blobs(self) -> "tuple[BlobDraft, ...]":
        """Encode what went in, once for all pictures that are made of it."""
        if self._given is None:
            self._given = input_blobs(self._inputs)
        return self._given

    def _flush(self) -> Iterator[Sealed]:
        if self._sealer is not None:
            yield from self._sealer.finish()

    def _keep_attempt(self, request: "GenerationRequest", outcome: str) -> None:
        from vault import Draft, Kind

        if self._vault is None:
            return
        metadata = attempt_metadata(request, self._pipeline.model, outcome)
        self._vault.add([Draft(kind=Kind.ATTEMPT, metadata=metadata, blobs=())])
