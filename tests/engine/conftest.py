"""What the engine's tests share."""

import os
from collections.abc import Iterator

import pytest

__all__ = ["cores"]


@pytest.fixture
def cores() -> Iterator[list[int]]:
    """Let a test have all cores that the system allows, and not its worker's share alone
    (`tests/conftest.py`): for kernels in teams, and for the count itself.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield []
        return
    share = os.sched_getaffinity(0)
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    yield sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, share)
