"""One job of the queue: requests for one model, the pictures that go in, and how it stands.

A job that waits is sealed as a record of its own, so that it outlives a crash and a lock. Which of
its pictures are there already is not written into it: each picture's sealed metadata says of which
job it is, and at which place.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from safelight.drafts import input_blobs
from safelight.recipe import RecipeError, read_inputs, read_request
from safelight.records import asked_metadata

if TYPE_CHECKING:
    from engine import GenerationRequest
    from engine.inputs import Inputs
    from vault import Draft, Record, Vault

__all__ = ["Job", "Place", "State", "read_job", "sealed_places", "what_is_left"]


class State(StrEnum):
    """How a job stands. OFFERED: it waited when the vault was locked, and nobody has said yet
    whether it shall go on.
    """

    OFFERED = "offered"
    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Place:
    """Which picture of which job a request begins with: sealed with each of its pictures.

    template: the prompt before wildcards were filled in, or empty.
    """

    job: str
    first: int
    template: str = field(default="", repr=False)

    def metadata(self, picture: int, /) -> dict[str, Any]:
        """Give what is sealed with picture `picture` of the request, from 0."""
        found: dict[str, Any] = {"job": {"id": self.job, "index": self.first + picture}}
        return found | {"template": self.template} if self.template else found


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What is asked for, and how far it is. id: of its record. model: a bundle's name.

    requests: to draw, in order; none for a job that enlarges `parent` with the upscaler `model`.
    inputs: pictures that go in with every request. parent: the record that it was made of, or
    empty. template: the prompt before wildcards were filled in, or empty. incognito: neither it nor
    its pictures are sealed; its id is of no record. reason: why it failed.
    made: ids of the pictures that are sealed, as far as this process made them. places: of an
    incognito job's pictures that were made, whatever became of them. done: pictures that are
    sealed, of `count`. behind: pictures that are drawn, some of which may be about to be sealed.
    in_hand: pictures that are being drawn, one a device. step, steps: of all in hand together; 0 of
    0 before the first.
    """

    id: str = ""
    model: str
    requests: tuple["GenerationRequest", ...] = field(repr=False)
    inputs: "Inputs" = field(repr=False)
    parent: str = ""
    template: str = field(default="", repr=False)
    incognito: bool = False
    state: State = State.WAITING
    reason: str = ""
    made: tuple[str, ...] = ()
    places: tuple[int, ...] = ()
    done: int = 0
    behind: int = 0
    in_hand: int = 0
    step: int = 0
    steps: int = 0

    @property
    def count(self) -> int:
        """Count the pictures that are asked for."""
        return sum(request.count for request in self.requests) or 1

    @property
    def begun(self) -> float:
        """Give how much of the pictures in hand is drawn, in pictures."""
        return self.in_hand * self.step / self.steps if self.steps else 0.0

    @property
    def enlarges(self) -> bool:
        """Say whether it enlarges a picture instead of drawing one."""
        return not self.requests

    @property
    def is_alive(self) -> bool:
        """Say whether it is being made, or will be without anybody's doing."""
        return self.state in {State.WAITING, State.RUNNING}

    @property
    def prompt(self) -> str:
        """Give the prompt as it was typed."""
        return self.template or (self.requests[0].prompt if self.requests else "")

    def draft(self) -> "Draft":
        """Seal it as it waits."""
        from vault import Draft, Kind

        metadata = {
            "model": self.model,
            "requests": [asked_metadata(request, self.model) for request in self.requests],
            "parent": self.parent,
            "template": self.template,
            "state": str(self.state),
            "reason": self.reason,
        }
        return Draft(kind=Kind.JOB, metadata=metadata, blobs=input_blobs(self.inputs))


def read_job(record: "Record", read: Callable[[str], bytes | bytearray]) -> Job:
    """Read a job that was sealed. read: gives one of its pictures by name.

    What waited or ran when it was written is offered; one that cannot be understood has failed.
    """
    from engine.inputs import NO_INPUTS

    metadata = record.metadata
    job = Job(id=record.id, model=str(metadata.get("model", "")), requests=(), inputs=NO_INPUTS)
    try:
        requests = tuple(read_request(each) for each in metadata["requests"])
        inputs = read_inputs(record.blobs, read)
    except RecipeError as error:
        return replace(job, state=State.FAILED, reason=str(error))
    except (KeyError, TypeError, ValueError):
        reason = "the job was sealed in another form than this version's"
        return replace(job, state=State.FAILED, reason=reason)
    failed = metadata.get("state") == State.FAILED
    return replace(
        job,
        requests=requests,
        inputs=inputs,
        parent=str(metadata.get("parent", "")),
        template=str(metadata.get("template", "")),
        state=State.FAILED if failed else State.OFFERED,
        reason=str(metadata.get("reason", "")) if failed else "",
    )


def what_is_left(
    job: Job, sealed: Collection[int]
) -> "tuple[tuple[GenerationRequest, ...], tuple[Place, ...]]":
    """Give the requests for pictures that are not sealed yet, and the place of each.

    sealed: places that are. A request of which none is stays whole.
    """
    requests: list[GenerationRequest] = []
    places: list[Place] = []
    start = 0
    for request in job.requests:
        missing = [k for k in range(request.count) if start + k not in sealed]
        if len(missing) == request.count:
            requests.append(request)
            places.append(Place(job.id, start, job.template))
        else:
            requests += (request.of_picture(k) for k in missing)
            places += (Place(job.id, start + k, job.template) for k in missing)
        start += request.count
    return tuple(requests), tuple(places)


def sealed_places(vault: "Vault", job_id: str) -> dict[int, str]:
    """Find which pictures of a job are in the vault, those in the trash too: place -> record id."""
    position = vault.get(job_id).position
    found: dict[int, str] = {}
    for trashed in (False, True):
        for record in vault.list(trashed=trashed):
            if record.position < position:  # older than the job
                break
            place = record.metadata.get("job")
            if isinstance(place, dict) and place.get("id") == job_id:
                found[int(place["index"])] = record.id
    return found
