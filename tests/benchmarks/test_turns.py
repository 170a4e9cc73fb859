"""The harness under a clock that is given: nothing sleeps, and no time is asserted."""

import pytest

from benchmarks.turns import Budget, Stopped, take_turns


class Clock:
    """Seconds that pass when somebody works."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Worker:
    """Takes `seconds` a turn, the first one three times as long; notes the order of all turns."""

    def __init__(self, name, clock, seconds, order, steps=20):
        self.name, self.clock, self.seconds, self.order, self.steps = (
            name,
            clock,
            seconds,
            order,
            steps,
        )

    def turn(self, number):
        took = self.seconds * (3 if number < 0 else 1)
        self.clock.now += took
        self.order.append((self.name, number))
        return {"picture": [took], "step": [took / self.steps] * self.steps}


def two(seconds=1.0, steps=20):
    clock, order = Clock(), []
    return clock, order, {n: Worker(n, clock, seconds, order, steps) for n in ("a", "b")}


def test_turns_alternate_and_the_warm_up_is_the_timed_call_thrown_away():
    clock, order, workers = two()
    found = take_turns(workers, Budget(rounds=3, seconds=0), clock=clock)
    assert order == [(name, n) for n in (-1, 0, 1, 2) for name in ("a", "b")]
    assert found.complete
    assert found.samples["a"]["picture"] == [1.0, 1.0, 1.0]  # 3.0 of the warm-up is not there


@pytest.mark.parametrize(
    ("seconds", "steps", "budget", "rounds"),
    [
        (1.0, 20, Budget(rounds=2), 3),  # three seconds of each
        (10.0, 20, Budget(rounds=1), 1),
        (10.0, 1, Budget(rounds=1), 10),  # ten steps of each
        (10.0, 4, Budget(rounds=1), 3),
        (0.5, 20, Budget(rounds=20), 20),
    ],
)
def test_it_lasts_until_rounds_steps_and_seconds_are_all_reached(seconds, steps, budget, rounds):
    clock, _, workers = two(seconds, steps)
    found = take_turns(workers, budget, clock=clock)
    assert {len(each["picture"]) for each in found.samples.values()} == {rounds}


def test_the_limit_ends_it_and_says_so():
    clock, _, workers = two(seconds=50.0)
    found = take_turns(workers, Budget(rounds=1000, limit=1000), clock=clock)
    assert not found.complete
    assert len(found.samples["a"]["picture"]) == 8  # after 300 seconds of warm-up


def test_a_stop_between_turns_keeps_what_was_measured():
    clock, order, workers = two()
    found = take_turns(workers, Budget(rounds=9), clock=clock, stop=lambda: len(order) >= 2 * 3 + 1)
    assert not found.complete
    assert [len(found.samples[name]["picture"]) for name in ("a", "b")] == [3, 2]


def test_a_turn_that_is_broken_off_counts_for_nothing():
    clock, _, workers = two()

    class Broken(Worker):
        def turn(self, number):
            if number == 2:
                raise Stopped
            return super().turn(number)

    workers["b"] = Broken("b", clock, 1.0, [])
    found = take_turns(workers, Budget(rounds=9), clock=clock)
    assert not found.complete
    assert [len(found.samples[name]["picture"]) for name in ("a", "b")] == [3, 2]
