"""How many cores a computation may use: physical ones that this process is allowed."""

import os
from pathlib import Path

__all__ = ["physical_cores"]

TOPOLOGY = Path("/sys/devices/system/cpu")
QUOTA = Path("/sys/fs/cgroup/cpu.max")  # cgroup v2: "<microseconds|max> <period>"


def physical_cores(topology: Path = TOPOLOGY, quota: Path = QUOTA) -> int:
    """Count the physical cores that this process may run on, at least 1.

    Hyper-threads of one core count once: matrix products gain nothing from the second one. A
    container's CPU quota counts, since threads beyond it are only stopped and started. Where the
    system says nothing (not Linux), half of the logical processors is the estimate above four.
    """
    allowed = _allowed()
    siblings: set[str] = set()
    for cpu in allowed:
        try:
            siblings.add((topology / f"cpu{cpu}/topology/thread_siblings_list").read_text("ascii"))
        except OSError:
            siblings.clear()
            break
    count = len(siblings) or (len(allowed) if len(allowed) <= 4 else len(allowed) // 2)
    return max(1, min(count, _quota(quota)))


def _allowed() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _quota(path: Path) -> int:
    try:
        amount, period = path.read_text("ascii").split()
        return max(1, round(int(amount) / int(period)))
    except (OSError, ValueError, ZeroDivisionError):  # no cgroup v2, or "max": no limit
        return 1 << 16
