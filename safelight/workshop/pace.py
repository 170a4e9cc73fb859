"""How long things take here, as measured, and how long what waits will therefore take."""

import math
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from engine import GenerationRequest
    from safelight.workshop.job import Job

__all__ = ["Pace"]

WEIGHT: Final = 0.3  # of the newest measurement in the running mean
Key = tuple[str, int]  # model, pixels


class Pace:
    """Running means of seconds: of a network evaluation, and of a picture's rest (text, decoding,
    sealing), by model and number of pixels. Safe to use from several threads.
    """

    def __init__(self) -> None:
        self._steps: dict[Key, float] = {}
        self._rests: dict[Key, float] = {}
        self._evaluations: dict[tuple[str, str, int], int] = {}
        self._guard = threading.Lock()

    def step(self, model: str, request: "GenerationRequest", seconds: float, count: int) -> None:
        """Take in one evaluation of `count` for the picture."""
        with self._guard:
            _mix(self._steps, _key(model, request), seconds)
            self._evaluations[_evaluated(model, request)] = count

    def rest(self, model: str, request: "GenerationRequest", seconds: float) -> None:
        """Take in what a picture took beside its evaluations."""
        with self._guard:
            _mix(self._rests, _key(model, request), seconds)

    def seconds_left(self, jobs: "Iterable[Job]", at_once: int = 1) -> float | None:
        """Estimate how long these jobs will take, or None while nothing was measured.

        at_once: pictures of a job that are made at the same time.
        """
        with self._guard:
            found = [self._job(job, at_once) for job in jobs if not job.enlarges]
        known = [seconds for seconds in found if seconds is not None]
        return sum(known) if known and len(known) == len(found) else None

    def _job(self, job: "Job", at_once: int) -> float | None:
        total, behind = 0.0, job.behind
        pictures = max(1, job.count - behind)
        share = math.ceil(pictures / at_once) / pictures  # of them, one after the other
        for request in job.requests:
            left = max(0, request.count - behind)
            behind = max(0, behind - request.count)
            step = _rate(self._steps, _key(job.model, request))
            if step is None:
                return None
            rest = _rate(self._rests, _key(job.model, request)) or 0.0
            steps = self._evaluations.get(_evaluated(job.model, request), request.steps)
            total += left * (steps * step + rest)
            if left and job.step and job.steps:  # what is in hand is begun
                total -= job.step * step
                job = _begun(job)
        return max(0.0, total) * share


def _begun(job: "Job") -> "Job":
    from dataclasses import replace

    return replace(job, step=0, steps=0, in_hand=0)


def _key(model: str, request: "GenerationRequest") -> Key:
    width, height = request.final_size
    return model, width * height


def _evaluated(model: str, request: "GenerationRequest") -> tuple[str, str, int]:
    return model, request.sampler, request.steps


def _mix(means: dict[Key, float], key: Key, seconds: float) -> None:
    before = means.get(key, seconds)
    means[key] = before + WEIGHT * (seconds - before)


def _rate(means: dict[Key, float], key: Key) -> float | None:
    """Give the mean of this key, else that of the model's nearest size by the pixels' ratio."""
    if key in means:
        return means[key]
    model, pixels = key
    others = [other for other in means if other[0] == model]
    if not others:
        return None
    near = min(others, key=lambda other: abs(other[1] - pixels))
    return means[near] * pixels / near[1]
