"""The queue of jobs, sealed as they wait, and the one thread that works them off."""

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from safelight.exits import UsageError
from safelight.workshop.claim import Claim
from safelight.workshop.feed import Feed
from safelight.workshop.job import Job, State, read_job
from safelight.workshop.order import Order, job_of
from safelight.workshop.pace import Pace
from safelight.workshop.runner import FAILED_ALIKE, Runner
from safelight.workshop.unsealed import Unsealed

if TYPE_CHECKING:
    from safelight.workshop.pipelines import Pipelines
    from vault import Vault

__all__ = ["Workshop"]

MOST_JOBS: Final = 1000  # in the queue
KEPT: Final = 100  # finished jobs that are remembered
PATIENCE: Final = 3.0  # seconds that closing waits for the step in hand


class Workshop:
    """Makes what is submitted, one job after another, and seals it in an open vault.

    Safe to use from several threads. `feed` tells what happens. Jobs that wait are sealed records:
    those found at the start are offered again, and changed here only while no other process has a
    workshop open in the vault: it may be at work on them. `close` ends the work after the step in
    hand, and what was not made waits sealed. Of incognito jobs nothing is written; `unsealed` has
    their pictures until then.
    """

    def __init__(
        self,
        vault: "Vault",
        pipelines: "Pipelines",
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read the sealed jobs. clock: seconds. Raises what the vault raises."""
        self.feed = Feed()
        self.pipelines = pipelines
        self.pace = Pace()
        self.unsealed = Unsealed()
        self._vault = vault
        self._clock = clock
        self._changed = threading.Condition(threading.RLock())
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._ended: OrderedDict[str, Job] = OrderedDict()
        self._cancelled: set[str] = set()
        self._paused = ""
        self._stays = False
        self._closing = False
        self._thread: threading.Thread | None = None
        self._preview: tuple[int, bytes] = (0, b"")
        for job in sorted(_sealed_jobs(vault), key=lambda each: each[0]):
            self._jobs[job[1].id] = job[1]
        self._claim = Claim(vault, self._jobs)  # another process may be at work on these

    @property
    def jobs(self) -> tuple[Job, ...]:
        """List the jobs that are not done, in the order in which they are made."""
        with self._changed:
            return tuple(self._jobs.values())

    @property
    def ended(self) -> tuple[Job, ...]:
        """List the jobs that have ended lately, oldest first."""
        with self._changed:
            return tuple(self._ended.values())

    @property
    def paused(self) -> str:
        """Say why nothing goes on, or nothing where it does."""
        return self._paused

    @property
    def preview(self) -> tuple[int, bytes]:
        """Give the number of the newest preview, and it as WebP; made while somebody listens."""
        return self._preview

    def seconds_left(self) -> float | None:
        """Estimate how long what waits will take in all; None while nothing was measured."""
        alive = (job for job in self.jobs if job.is_alive)
        return self.pace.seconds_left(alive, self.pipelines.at_once)

    @property
    def keeps_open(self) -> bool:
        """Say whether somebody wants the vault to stay open until this work is done."""
        return self._stays and not self._paused and any(job.is_alive for job in self.jobs)

    def stay_open(self, *, until_done: bool) -> None:
        """Want the vault to stay open until the queue is worked off, or no longer."""
        self._stays = until_done
        self.tell()

    def find(self, job_id: str) -> Job:
        """Give a job, also one that has ended lately. Raises UsageError where there is none."""
        with self._changed:
            job = self._jobs.get(job_id) or self._ended.get(job_id)
        if job is None:
            raise UsageError("there is no such job in the queue")
        return job

    def submit(self, order: Order) -> Job:
        """Check an order, seal it and put it at the end of the queue.

        Raises UsageError, RequestError, BundleError, DeviceError for what cannot be made, and what
        the vault raises; then nothing has changed.
        """
        job = job_of(order, self.pipelines.bundle(order.model))
        self.pipelines.check(job.model, job.requests, job.inputs)
        return self._enter(job)

    def submit_upscale(self, record_id: str, upscaler: str, *, incognito: bool = False) -> Job:
        """Put a job into the queue that enlarges a sealed picture."""
        from engine.inputs import NO_INPUTS
        from engine.upscale import read_scale

        read_scale(self.pipelines.bundle(upscaler))  # is it one at all?
        parent = self._vault.get(record_id)
        job = Job(model=upscaler, requests=(), inputs=NO_INPUTS, parent=parent.id)
        return self._enter(replace(job, incognito=incognito))

    def keep(self, name: str) -> str:
        """Seal an incognito picture after all; gives its record's id. Raises UsageError where it
        is no longer in memory, and what the vault raises; then it stays there.
        """
        draft = self.unsealed.take(name)
        try:
            (record,) = self._vault.add([draft])
        except BaseException:
            self.unsealed.put_back(name, draft)
            raise
        self._rename(name, record.id)
        return record.id

    def forget(self, name: str) -> None:
        """Drop an incognito picture. Raises UsageError where it is no longer in memory."""
        self.unsealed.take(name)
        self._rename(name, "")

    def _rename(self, old: str, new: str) -> None:
        """Let jobs no longer speak of a picture by its incognito name."""
        with self._changed:
            for jobs in (self._jobs, self._ended):
                for job in jobs.values():
                    if old in job.made:
                        made = tuple(new if each == old else each for each in job.made)
                        jobs[job.id] = replace(job, made=tuple(each for each in made if each))

    def cancel(self, job_id: str) -> None:
        """Take a job out of the queue; one that runs ends after its step and keeps its pictures.

        Raises UsageError for a found one while another process has the queue open.
        """
        with self._changed:
            job = self._taken_over(job_id)
            if job is None:
                return
            if job.state is State.RUNNING:
                self._cancelled.add(job_id)
                self._changed.notify_all()
                return
            if not job.incognito:
                self._vault.delete([job_id])
            self._end(job, State.CANCELLED)
        self.tell()

    def cancel_all(self) -> None:
        """Cancel every job that `cancel` may; raises what it says of others."""
        refusal: UsageError | None = None
        for job in self.jobs:
            try:
                self.cancel(job.id)
            except UsageError as error:
                refusal = error
        if refusal is not None:
            raise refusal

    def resume(self, job_id: str) -> None:
        """Let a job that is offered, or that failed, wait for its turn (again).

        Raises UsageError for a found one while another process has the queue open.
        """
        with self._changed:
            job = self._taken_over(job_id)
            if job is None or job.state not in {State.OFFERED, State.FAILED}:
                return
            if job.state is State.FAILED:
                self._write(job, State.WAITING, "")
                self._paused = "" if self._paused == FAILED_ALIKE else self._paused
            self._jobs[job_id] = replace(job, state=State.WAITING, reason="")
            self._start()
        self.tell()

    def resume_all(self) -> None:
        """Let every job that is offered go on."""
        for job in self.jobs:
            if job.state is State.OFFERED:
                self.resume(job.id)

    def pause(self, why: str = "paused") -> None:
        """Stop after the step in hand; what is begun stays in memory."""
        self._set_paused(why)

    def unpause(self) -> None:
        """Go on."""
        self._set_paused("")

    def wait(self, job_id: str, seconds: float) -> Job:
        """Wait until a job has ended or failed, at most so long, and give it as it is then."""
        end = time.monotonic() + seconds
        going = (State.WAITING, State.RUNNING, State.OFFERED)
        with self._changed:
            while self.find(job_id).state in going and not self._closing:
                left = end - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    break
            return self.find(job_id)

    def close(self, patience: float = PATIENCE) -> None:
        """Stop after the step in hand, forget prompts and pictures; what waits stays sealed.

        patience: seconds to wait for that step. A slower one ends later, and what it was to finish
        is made again.
        """
        with self._changed:
            self._closing = True
            thread = self._thread
            self._changed.notify_all()
        if thread is not None and thread is not threading.current_thread():
            thread.join(patience)
        with self._changed:
            self._jobs.clear()
            self._ended.clear()
            self._preview = (0, b"")
        if thread is None or not thread.is_alive():  # else the thread closes it at its end
            self._claim.close()
        self.unsealed.close()
        self.pipelines.forget()
        self.feed.tell("closed")

    def tell(self) -> None:
        """Tell all who listen that the queue has changed."""
        self.feed.tell("queue")

    def _taken_over(self, job_id: str) -> Job | None:
        if not self._claim.take_over(job_id):
            self._jobs.pop(job_id, None)  # another process has done it
            self.tell()
        return self._jobs.get(job_id)

    def _enter(self, job: Job) -> Job:
        with self._changed:
            if self._closing:
                raise UsageError("the vault is being locked")
            if len(self._jobs) >= MOST_JOBS:
                raise UsageError(f"the queue holds {MOST_JOBS} jobs already; wait, or cancel some")
            if job.incognito:
                job = replace(job, id=secrets.token_hex(16))
            else:
                (record,) = self._vault.add([job.draft()])
                job = replace(job, id=record.id)
            self._jobs[job.id] = job
            self._start()
        self.tell()
        return job

    def _start(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._work, name="workshop", daemon=True)
            self._thread.start()
        self._changed.notify_all()

    def _set_paused(self, why: str) -> None:
        with self._changed:
            self._paused = why
            self._changed.notify_all()
        self.tell()

    def _work(self) -> None:
        """Work off the queue; the thread's body."""
        while (job := self._next()) is not None:
            self.tell()
            runner = Runner(job, self._vault, self.pipelines, self, self._clock)
            self._finish(job.id, runner.run())
        self._claim.close()

    def _next(self) -> Job | None:
        """Wait for a job whose turn it is; None when the workshop closes."""
        with self._changed:
            while not self._closing:
                waiting = (job for job in self._jobs.values() if job.state is State.WAITING)
                job = None if self._paused else next(waiting, None)
                if job is not None:
                    self._jobs[job.id] = replace(job, state=State.RUNNING)
                    return self._jobs[job.id]
                self._changed.wait()
            return None

    def _finish(self, job_id: str, outcome: "tuple[State, str]") -> None:
        state, reason = outcome
        with self._changed:
            self._cancelled.discard(job_id)
            job = self._jobs.get(job_id)
            if self._closing or job is None or state is State.WAITING:
                return  # it stays sealed as it is
            if state is State.FAILED:
                self._write(job, state, reason)
                self._jobs[job_id] = replace(
                    job, state=state, reason=reason, step=0, steps=0, in_hand=0
                )
            else:
                self._delete(job)
                self._end(job, state)
            self._stays = self._stays and any(each.is_alive for each in self._jobs.values())
            self._changed.notify_all()
        if state is State.FAILED:
            self.feed.tell("failed", job=job_id, reason=reason)
        self.tell()

    def _end(self, job: Job, state: State) -> None:
        self._jobs.pop(job.id, None)
        self._ended[job.id] = replace(job, state=state)
        while len(self._ended) > KEPT:
            self._ended.popitem(last=False)

    def _write(self, job: Job, state: State, reason: str) -> None:
        """Seal how a job stands. Where the disk refuses it is only offered again later."""
        from vault import VaultError

        if job.incognito:
            return

        def written(metadata: dict[str, Any]) -> dict[str, Any]:
            return metadata | {"state": str(state), "reason": reason}

        try:
            self._vault.edit(job.id, written)
        except VaultError:
            return

    def _delete(self, job: Job) -> None:
        from vault import VaultError

        if job.incognito:
            return
        try:
            self._vault.delete([job.id])
        except VaultError:
            return  # its pictures are sealed: gone on with later, there is nothing left to make

    # What the runner asks and says while it works.

    def is_cancelled(self, job_id: str) -> bool:
        """Say whether the job shall end."""
        return job_id in self._cancelled

    @property
    def is_closing(self) -> bool:
        """Say whether the vault is about to be locked."""
        return self._closing

    def rest(self, job_id: str) -> None:
        """Wait while the queue is paused, unless this job shall end."""
        with self._changed:
            while self._paused and not self._closing and job_id not in self._cancelled:
                self._changed.wait()

    def update(self, job_id: str, **changed: Any) -> Job:
        """Change what is known of a running job."""
        with self._changed:
            job = self._jobs.get(job_id)
            if job is None:  # closed meanwhile
                raise UsageError("there is no such job in the queue")
            self._jobs[job_id] = replace(job, **changed)
            return self._jobs[job_id]

    def show_preview(self, data: bytes) -> int:
        """Keep the newest preview, and give its number."""
        self._preview = (self._preview[0] + 1, data)
        return self._preview[0]


def _sealed_jobs(vault: "Vault") -> "Sequence[tuple[int, Job]]":
    from vault import Kind

    return [
        (record.position, read_job(record, lambda name, r=record: vault.read(r.id, name)))
        for record in vault.list(kinds=(Kind.JOB,), limit=MOST_JOBS)
    ]
