"""Keep keys and pictures out of core dumps, and say what the system may still write down."""

import os
import sys
from pathlib import Path

__all__ = ["forbid_core_dumps", "hide_memory", "swap_warning"]

_PR_SET_DUMPABLE = 4  # prctl(2)


def forbid_core_dumps() -> None:
    """Turn core dumps off for this process and its children, and narrow the umask to the user."""
    os.umask(0o077)
    if sys.platform == "win32":
        return
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def hide_memory() -> None:
    """Keep other processes of this user from reading this one's memory (Linux; root still can).

    Called when keys are about to be in it: no debugger attaches, /proc/PID/mem belongs to root.
    """
    if sys.platform != "linux":
        return
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def swap_warning(swaps: Path = Path("/proc/swaps")) -> str:
    """Say whether memory may be written to an unencrypted swap device; empty when it may not.

    Linux only: zram stays in RAM, dm-* devices are taken as encrypted (most are). Elsewhere the
    platform's own setting decides (macOS encrypts swap), and this says nothing.
    """
    try:
        lines = swaps.read_text("utf-8").splitlines()[1:]
    except OSError:
        return ""
    plain = [name for name in (line.split()[0] for line in lines if line.strip()) if _plain(name)]
    if not plain:
        return ""
    return (
        f"swap is on and not known to be encrypted ({', '.join(plain)}): "
        "keys and pictures in memory may reach it"
    )


def _plain(device: str) -> bool:
    name = Path(device).name
    return not (name.startswith(("zram", "dm-")) or device.startswith("/dev/mapper/"))
