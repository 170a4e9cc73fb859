"""Calls of one script are timed in turns whose order changes, and each as often as the others."""

from itertools import pairwise

from benchmarks.measure import interleave


def test_each_round_has_every_call_once_and_an_order_of_its_own():
    made: list[str] = []
    calls = {name: lambda name=name: made.append(name) for name in "abc"}
    times = interleave(calls, rounds=30, warmup=2)
    assert {name: len(each) for name, each in times.items()} == dict.fromkeys("abc", 30)
    rounds = [made[start : start + 3] for start in range(0, len(made), 3)]
    assert len(rounds) == 32
    assert all(sorted(each) == ["a", "b", "c"] for each in rounds)
    before = set(pairwise(made))
    assert {(first, second) for first in "abc" for second in "abc" if first != second} < before


def test_the_order_is_the_same_in_every_run():
    runs: list[list[str]] = []
    for _ in range(2):
        made: list[str] = []
        calls = {name: lambda name=name, made=made: made.append(name) for name in "abcd"}
        interleave(calls, rounds=10)
        runs.append(made)
    assert runs[0] == runs[1]
