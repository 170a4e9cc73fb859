"""Time calls side by side: interleaved, warmed up by the timed call, spread reported."""

import json
import random
import statistics
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.machine import machine

__all__ = ["RESULTS", "interleave", "save", "summary"]

RESULTS = Path(__file__).with_name("results")


def interleave(
    calls: Mapping[str, Callable[[], object]], *, rounds: int, warmup: int = 2
) -> dict[str, list[float]]:
    """Time each call `rounds` times in turn; give seconds a call. Warm-up is not kept.

    Each round has an order of its own, the same in every run: what a call leaves behind (warm
    cores, a disk that is still busy) is not always another one's. In a fixed order the same
    system calls took 1.5 or 1.9 ms, by what went before them.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    order, names = random.Random(0), list(calls)  # noqa: S311 - a schedule, no secret
    for number in range(-warmup, rounds):
        order.shuffle(names)
        for name in names:
            call = calls[name]
            start = time.perf_counter()
            call()
            took = time.perf_counter() - start
            if number >= 0:
                times[name].append(took)
    return times


def summary(times: list[float]) -> dict[str, float | int]:
    """Give median, p10, p90 and the coefficient of variation, in seconds."""
    ordered = sorted(times)
    spread = statistics.stdev(times) / statistics.fmean(times) if len(times) > 1 else 0.0
    return {
        "median": round(statistics.median(ordered), 6),
        "p10": round(ordered[int(0.1 * (len(ordered) - 1))], 6),
        "p90": round(ordered[int(0.9 * (len(ordered) - 1) + 0.5)], 6),
        "variation": round(spread, 4),
        "runs": len(times),
    }


def save(name: str, scenario: str, results: Mapping[str, Any]) -> Path:
    """Write benchmarks/results/NAME.json with the machine's facts, and give its path."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    document = {
        "scenario": scenario,
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "results": results,
    }
    path.write_text(json.dumps(document, indent=2) + "\n", "utf-8")
    return path
