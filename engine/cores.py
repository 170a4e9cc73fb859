"""How many cores a computation may use: physical ones that this process is allowed."""

import os
from pathlib import Path

from engine.cgroups import ControlGroups

__all__ = ["core_limit", "physical_cores"]

TOPOLOGY = Path("/sys/devices/system/cpu")


def physical_cores(topology: Path = TOPOLOGY, groups: ControlGroups | None = None) -> int:
    """Count the physical cores that this process may run on, at least 1.

    Hyper-threads of one core count once: matrix products gain nothing from the second one. A
    container's CPU quota and its set of processors count, since threads beyond them are only
    stopped and started. Where the system says nothing (not Linux), half of the logical processors
    is the estimate above four.
    """
    groups = groups or ControlGroups()
    quota = groups.cores()
    count = _allowed_cores(topology, groups)
    return count if quota >= count else max(1, round(quota))


def core_limit(topology: Path = TOPOLOGY, groups: ControlGroups | None = None) -> int:
    """Give the cores that a container's CPU quota leaves, or 0 where it takes none away.

    For a library that counts cores well by itself, and knows nothing of quotas.
    """
    groups = groups or ControlGroups()
    count = physical_cores(topology, groups)
    return count if count < _allowed_cores(topology, groups) else 0


def _allowed_cores(topology: Path, groups: ControlGroups) -> int:
    allowed = _allowed()
    # the affinity follows the set of processors, but not in every sandbox
    allowed = sorted(groups.cpus().intersection(allowed)) or allowed
    siblings: set[str] = set()
    for cpu in allowed:
        try:
            siblings.add((topology / f"cpu{cpu}/topology/thread_siblings_list").read_text("ascii"))
        except OSError:
            siblings.clear()
            break
    return len(siblings) or (len(allowed) if len(allowed) <= 4 else len(allowed) // 2)


def _allowed() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))
