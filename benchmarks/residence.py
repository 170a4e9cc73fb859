"""The most memory that this process ever held."""

import sys
from pathlib import Path

__all__ = ["peak_memory"]


def peak_memory() -> int:
    """Give the peak resident set in bytes.

    Linux counts it from the exec (VmHWM); getrusage's figure has the parent's before it.
    """
    try:
        for line in Path("/proc/self/status").read_text("ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    import resource

    unit = 1 if sys.platform == "darwin" else 1024  # bytes of ru_maxrss
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
