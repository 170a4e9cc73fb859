"""Each worker of a run has cores of its own, and so has all that its tests start.

Libraries start a thread for each core that they see. Those of several workers would take the cores
from each other in the middle of a product, and wait for each other turning: a third of all time.
"""

import os

__all__: list[str] = []


def _keep_to_own_cores() -> None:
    """Keep this worker to its share of the cores; one process alone has them all."""
    worker, workers = (os.environ.get(f"PYTEST_XDIST_WORKER{name}", "") for name in ("", "_COUNT"))
    if not worker or not hasattr(os, "sched_setaffinity"):
        return
    cores = sorted(os.sched_getaffinity(0))
    own = cores[int(worker.removeprefix("gw")) :: int(workers)]
    if own:
        os.sched_setaffinity(0, own)


_keep_to_own_cores()  # before a folder's conftest imports torch, which counts the cores then
