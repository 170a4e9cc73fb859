"""The harness: runners take turns, A B A B, warmed up by the very call that is timed.

The clock and the wish to stop are given, so that its rules are tested without waiting.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

__all__ = ["Budget", "Runner", "Stopped", "Turns", "take_turns"]

Stages = Mapping[str, Sequence[float]]
PICTURE, STEP = "picture", "step"


class Stopped(Exception):  # noqa: N818 - a wish that was followed, no error
    """Somebody asked to stop while a runner was at work."""


class Runner(Protocol):
    """One configuration, warm and ready."""

    def turn(self, number: int, /) -> Stages:
        """Do the work of turn `number` once; give seconds by stage, one value a call of it."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """When a measurement is long enough: all of the first three, or `limit` seconds in all.

    rounds: turns of each runner. steps: calls of the stage `step`, where there is one. seconds:
    of measured time for each runner. warmup: turns that are thrown away.
    """

    rounds: int
    steps: int = 10
    seconds: float = 3.0
    warmup: int = 1
    limit: float = 3600.0


@dataclass(slots=True)
class Turns:
    """What came of it: runner -> stage -> seconds of each call. complete: nobody stopped it, and
    the budget's limit did not either.
    """

    samples: dict[str, dict[str, list[float]]] = field(
        default_factory=dict[str, dict[str, list[float]]]
    )
    complete: bool = True


def take_turns(
    runners: Mapping[str, Runner],
    budget: Budget,
    *,
    clock: Callable[[], float] = time.monotonic,
    stop: Callable[[], bool] = lambda: False,
    done: Callable[[str, int], None] = lambda _name, _number: None,
) -> Turns:
    """Let every runner do the same turn before any does the next, until the budget is met.

    done: told after each turn, with its number; the warm-up's are negative. What was measured up
    to a stop is kept: a round that was cut short counts for those that had finished it.
    """
    found = Turns({name: {} for name in runners})
    spent = dict.fromkeys(runners, 0.0)
    begin = clock()
    number = -budget.warmup
    while number < 0 or not _enough(found, spent, budget, number):
        if number > 0 and clock() - begin > budget.limit:
            found.complete = False
            return found
        for name, runner in runners.items():
            if stop():
                found.complete = False
                return found
            try:
                stages = runner.turn(number)
            except Stopped:
                found.complete = False
                return found
            if number >= 0:
                # The longest stage: a picture's time holds its steps'.
                spent[name] += max((sum(each) for each in stages.values()), default=0.0)
                for stage, seconds in stages.items():
                    found.samples[name].setdefault(stage, []).extend(seconds)
            done(name, number)
        number += 1
    return found


def _enough(found: Turns, spent: Mapping[str, float], budget: Budget, rounds: int) -> bool:
    if rounds < budget.rounds or min(spent.values(), default=budget.seconds) < budget.seconds:
        return False
    return all(
        len(stages[STEP]) >= budget.steps for stages in found.samples.values() if STEP in stages
    )
