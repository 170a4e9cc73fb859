"""One job at work: drawn or enlarged, sealed, and told of while it goes on."""

import time
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Protocol

from safelight.exits import ApplicationError
from safelight.workshop.job import Job, Place, State, sealed_places, what_is_left

if TYPE_CHECKING:
    from engine import GenerationRequest, Step
    from safelight.studio import Sealed
    from safelight.workshop.feed import Feed
    from safelight.workshop.pace import Pace
    from safelight.workshop.pipelines import Pipelines
    from safelight.workshop.unsealed import Unsealed
    from vault import Vault

__all__ = ["FAILED_ALIKE", "Floor", "Runner"]

FAILED_ALIKE: Final = "the last job failed for a reason that the next one would meet too"
PREVIEW_EVERY: Final = 0.2  # seconds between previews at least
Outcome = tuple[State, str]


class Floor(Protocol):
    """What a runner asks of the queue around it, and tells it."""

    feed: "Feed"
    pace: "Pace"
    unsealed: "Unsealed"

    @property
    def is_closing(self) -> bool:
        """Say whether the vault is about to be locked."""
        ...

    def is_cancelled(self, job_id: str) -> bool:
        """Say whether the job shall end."""
        ...

    def rest(self, job_id: str) -> None:
        """Wait while the queue is paused."""
        ...

    def update(self, job_id: str, **changed: Any) -> Job:
        """Change what is known of the job."""
        ...

    def show_preview(self, data: bytes) -> int:
        """Keep the newest preview, and give its number."""
        ...

    def seconds_left(self) -> float | None:
        """Estimate how long the whole queue will take."""
        ...

    def pause(self, why: str) -> None:
        """Let nothing go on."""
        ...


class Runner:
    """Works off one job, once."""

    def __init__(
        self,
        job: Job,
        vault: "Vault",
        pipelines: "Pipelines",
        floor: Floor,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._job = job
        self._vault = vault
        self._pipelines = pipelines
        self._floor = floor
        self._clock = clock
        self._shown = -PREVIEW_EVERY
        self._hands: dict[int, tuple[int, int]] = {}  # picture in hand -> its steps done, of all

    def run(self) -> Outcome:
        """Make what is left of the job. Gives how it ended; WAITING where the vault is locked.

        Whatever goes wrong is an outcome, and pauses the queue where the next job would fail too.
        """
        from engine import BundleError, EngineError, NotFiniteError, RequestError
        from vault import NotFoundError, VaultError

        try:
            return self._enlarge() if self._job.enlarges else self._draw()
        except (
            RequestError,
            BundleError,
            NotFiniteError,
            ApplicationError,
            NotFoundError,
        ) as error:
            return self._failed(error)
        except (EngineError, VaultError, OSError) as error:  # device, memory, disk, key
            return self._failed(error, pauses=True)
        except Exception as error:  # noqa: BLE001 - one job's bug must not end the queue
            return self._failed(RuntimeError(f"unexpected {type(error).__name__}"))

    def _failed(self, error: Exception, *, pauses: bool = False) -> Outcome:
        if self._floor.is_closing:
            return State.WAITING, ""
        if pauses:
            self._floor.pause(FAILED_ALIKE)
        hint = getattr(error, "hint", "")
        text = "the file system refused" if isinstance(error, OSError) else str(error)
        return State.FAILED, f"{text} ({hint})" if hint else text

    def _draw(self) -> Outcome:
        from engine import Step
        from safelight.studio import Sealed, Studio

        job = self._job
        done, made = self._kept()
        requests, places = what_is_left(job, done)
        job = self._job = self._floor.update(
            job.id, done=len(done), behind=len(done), made=made, step=0, steps=0, in_hand=0
        )
        if not requests:
            return State.DONE, ""
        pipeline = self._pipelines.load(job.model, requests)
        studio = Studio(pipeline, self._keeper, job.inputs, parent=job.parent)
        events = studio.run(requests, self._is_cancelled, parts=places)
        for event in events:
            if isinstance(event, Step):
                self._stepped(event, requests[0])  # of one order: alike but for seed and words
            elif isinstance(event, Sealed):
                self._sealed(event, requests[0])
            if self._floor.is_closing:
                events.close()  # which seals what is finished
                return State.WAITING, ""
            self._floor.rest(job.id)
        return (State.CANCELLED if self._job.done < job.count else State.DONE), ""

    def _enlarge(self) -> Outcome:
        from engine.upscale import Upscaler
        from safelight.canvas import open_picture
        from safelight.drafts import enlarged_draft

        job = self._job
        done, made = self._kept()
        if done:  # before a crash
            self._floor.update(job.id, done=1, made=made)
            return State.DONE, ""
        bundle = self._pipelines.bundle(job.model)
        pixels, parent = open_picture(job.parent, self._vault)
        choice = self._pipelines.choice
        start = self._clock()

        def progress(done: float) -> None:
            if self._floor.is_closing or self._is_cancelled():
                raise _StoppedError
            self._floor.update(job.id, step=round(100 * done), steps=100, in_hand=1)
            self._tell_step(0)
            self._floor.rest(job.id)

        try:
            result = Upscaler(bundle, choice.backend).upscale(pixels, progress)
        except _StoppedError:
            return (State.WAITING if self._floor.is_closing else State.CANCELLED), ""
        draft = enlarged_draft(result, bundle, choice, parent, self._clock() - start)
        draft = replace(draft, metadata={**draft.metadata, **Place(job.id, 0).metadata(0)})
        (record,) = self._keeper.add([draft])
        self._floor.update(job.id, made=(record.id,), places=(0,), done=1)
        height, width = result.shape[:2]
        self._tell_kept(record.id, width=width, height=height)
        return State.DONE, ""

    @property
    def _keeper(self) -> "Vault | Unsealed":
        return self._floor.unsealed if self._job.incognito else self._vault

    def _kept(self) -> tuple[Collection[int], tuple[str, ...]]:
        """Give which of the job's pictures there are already: their places, and their ids."""
        if self._job.incognito:  # made by this process
            return self._job.places, self._job.made
        sealed = sealed_places(self._vault, self._job.id)
        return sealed, tuple(sealed[place] for place in sorted(sealed))

    def _tell_kept(self, picture: str, **told: Any) -> None:
        job = self._job
        self._floor.feed.tell("sealed", job=job.id, id=picture, unsealed=job.incognito, **told)

    def _is_cancelled(self) -> bool:
        return self._floor.is_cancelled(self._job.id)

    def _stepped(self, step: "Step", request: "GenerationRequest") -> None:
        now = self._clock()
        job = self._job
        behind = job.behind
        if step.picture not in self._hands:  # one begins: those that are drawn lie behind
            drawn = self._drawn()
            for picture in drawn:
                del self._hands[picture]
            behind = min(behind + len(drawn), job.count - 1)
        self._hands[step.picture] = step.index + 1, step.count
        self._floor.pace.step(job.model, request, step.seconds, step.count)
        self._job = self._floor.update(job.id, behind=behind, **self._at_work())
        preview = 0
        # Of several in hand the first one is looked at, or they would take turns in the view.
        is_first = step.picture == min(self._hands.keys() - self._drawn(), default=step.picture)
        if is_first and self._floor.feed.is_heard and now - self._shown >= PREVIEW_EVERY:
            from safelight.pixels import encode_thumbnail

            self._shown = now
            preview = self._floor.show_preview(encode_thumbnail(step.preview()))
        self._tell_step(preview)

    def _drawn(self) -> list[int]:
        """Give the pictures in hand whose last step is done, oldest first."""
        return sorted(each for each, (done, count) in self._hands.items() if done == count)

    def _at_work(self) -> dict[str, int]:
        """Say how far the pictures in hand are, as a job has it."""
        return {
            "in_hand": len(self._hands),
            "step": sum(done for done, _ in self._hands.values()),
            "steps": sum(count for _, count in self._hands.values()),
        }

    def _sealed(self, event: "Sealed", request: "GenerationRequest") -> None:
        job = self._job
        seconds = event.line["seconds"]
        # Sealing goes on beside the next picture.
        self._floor.pace.rest(job.model, request, seconds["text"] + seconds["decode"])
        done = job.done + 1
        places = (*job.places, event.more["job"]["index"])
        made = (*job.made, event.record_id)
        self._job = self._floor.update(job.id, made=made, places=places, done=done)
        if done > job.behind:  # it is sealed before the next one's first step
            for picture in self._drawn()[:1]:
                del self._hands[picture]
            self._job = self._floor.update(job.id, behind=done, **self._at_work())
        told = {name: event.line[name] for name in ("seed", "width", "height", "flagged")}
        self._tell_kept(event.record_id, **told)

    def _tell_step(self, preview: int) -> None:
        job = self._floor.update(self._job.id)
        self._floor.feed.tell(
            "step",
            job=job.id,
            done=job.done,
            behind=job.behind,
            count=job.count,
            in_hand=job.in_hand,
            step=job.step,
            steps=job.steps,
            preview=preview,
            left=self._floor.seconds_left(),
        )


class _StoppedError(Exception):
    """The workshop closes, or the job was cancelled."""
