"""How long so many steps take: queued one behind the other, waited for once at the end."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["psnr", "timed"]

WARM_UPS = 2
CAP = 200.0  # dB of what is equal
LONGEST = 20.0  # seconds that one count of steps may take altogether


def timed(
    step: Callable[[], object],
    wait: Callable[[], object],
    counts: Sequence[int],
    rounds: int,
    reset: Callable[[], object] = lambda: None,
) -> Mapping[str, Mapping[str, Any]]:
    """Give count of steps -> p50 and p90 in milliseconds of all of them, and steps a second.

    step: asks for one more step. wait: returns when all are done. reset: what comes before the
    first, and is not timed. The warm-up is the timed call.
    """
    found: dict[str, dict[str, Any]] = {}
    for count in counts:
        times: list[float] = []
        began = time.perf_counter()
        for number in range(-WARM_UPS, rounds):
            reset()
            start = time.perf_counter()
            for _ in range(count):
                step()
            wait()
            took = time.perf_counter() - start
            if number >= 0:
                times.append(took)
            if times and time.perf_counter() - began > LONGEST:
                break
        ordered = sorted(times)
        middle = ordered[len(ordered) // 2]
        found[str(count)] = {
            "p50_ms": round(middle * 1e3, 3),
            "p90_ms": round(ordered[int(0.9 * (len(ordered) - 1) + 0.5)] * 1e3, 3),
            "steps_a_second": round(count / middle, 2),
            "runs": len(ordered),
        }
    return found


def psnr(got: NDArray[np.floating], wanted: NDArray[np.floating]) -> float:
    """Give the PSNR in dB against the span of `wanted`; NaN gives -1."""
    error = float(np.mean((got.astype(np.float64) - wanted.astype(np.float64)) ** 2))
    if not math.isfinite(error):
        return -1.0
    span = float(np.ptp(wanted)) or 1.0
    return CAP if error == 0 else round(min(CAP, 10 * math.log10(span**2 / error)), 1)
