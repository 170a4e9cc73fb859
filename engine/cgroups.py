"""What a container lets this process use of processor and memory: control groups, versions 1 and 2.

A limit of any group that encloses the process binds, so that the whole way up to the root is read.
Formats: the kernel's Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/, proc(5).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

__all__ = ["ControlGroups"]

LARGEST: Final = 65_536  # bytes read of any of these files; real ones have a line
LEVELS: Final = 64  # of nesting that are looked at
CPUS: Final = 8192  # what the kernel can be built for at most


@dataclass(frozen=True, kw_only=True, slots=True)
class ControlGroups:
    """Reads the groups of one process.

    membership: the file that names them, `hierarchy:controllers:path` a line. root: where the
    hierarchies are mounted. What is missing or unreadable sets no limit.
    """

    membership: Path = Path("/proc/self/cgroup")
    root: Path = Path("/sys/fs/cgroup")

    def cores(self) -> float:
        """Give the processor time that may be used in cores, 1.5 for example; inf: no quota."""
        limits = [float("inf")]
        for folder in self._folders("cpu"):
            amount, _, period = _read(folder / "cpu.max").partition(" ")
            limits.append(_ratio(amount, period))
            amount, period = (_read(folder / f"cpu.cfs_{each}_us") for each in ("quota", "period"))
            limits.append(_ratio(amount, period))
        return min(limits)

    def cpus(self) -> frozenset[int]:
        """Give the logical processors that may be used; none: no such limit is written down."""
        found: set[int] = set()
        for folder in self._folders("cpuset"):
            for name in ("cpuset.cpus.effective", "cpuset.effective_cpus", "cpuset.cpus"):
                listed = _cpus(_read(folder / name))
                if listed:  # an empty list in version 2 means the parent's
                    found = found & listed if found else listed
                    break
        return frozenset(found)

    def memory(self) -> float:
        """Give the bytes that may still be taken before a group's limit; inf: no limit."""
        room = [float("inf")]
        for folder in self._folders("memory"):
            for limit, used in (
                ("memory.max", "memory.current"),
                ("memory.limit_in_bytes", "memory.usage_in_bytes"),
            ):
                most, now = (_number(_read(folder / name)) for name in (limit, used))
                if most >= 0 and now >= 0:
                    room.append(max(0, most - now))
        return min(room)

    def throttled(self) -> int:
        """Count the periods in which a quota stopped a group that this process is in, so far."""
        counts = [0]
        for folder in self._folders("cpu"):
            for line in _read(folder / "cpu.stat").splitlines():
                name, _, value = line.partition(" ")
                if name == "nr_throttled":
                    counts.append(_number(value))
        return max(counts)

    def _folders(self, controller: str) -> Iterator[Path]:
        """Yield the folders of the process's groups with this controller, up to the mount."""
        seen: set[Path] = set()
        for line in _read(self.membership).splitlines():
            _, _, rest = line.partition(":")
            controllers, _, path = rest.partition(":")
            if controllers and controller not in controllers.split(","):
                continue
            # version 2 has no name; beside version 1 it is mounted as `unified`
            mounts = (controllers, controller) if controllers else ("", "unified")
            for mount in mounts:
                for group in _upwards(path):
                    folder = self.root / mount / group
                    if folder not in seen and folder.is_dir():
                        seen.add(folder)
                        yield folder


def _upwards(path: str) -> Iterator[PurePosixPath]:
    """Yield a group's path below the mount and those around it, the mount itself last.

    In a container the path may be the host's, or climb out of what is mounted: such groups are not
    there, and the mount itself is the container's own.
    """
    group = PurePosixPath(path.lstrip("/"))
    if ".." not in group.parts and len(group.parts) <= LEVELS:
        while group.parts:
            yield group
            group = group.parent
    yield PurePosixPath()


def _read(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return stream.read(LARGEST).decode("ascii", "replace").strip()
    except OSError:
        return ""


def _ratio(amount: str, period: str) -> float:
    """Divide two counts of microseconds; `max`, -1 and what is no number are no limit."""
    over, under = _number(amount), _number(period)
    return over / under if over > 0 and under > 0 else float("inf")


def _number(text: str) -> int:
    """Read a whole number of at most 18 digits; -1 for anything else."""
    return int(text) if text.isdecimal() and len(text) <= 18 else -1


def _cpus(text: str) -> set[int]:
    """Read a list such as `0-3,8`; what is no such list gives none."""
    found: set[int] = set()
    for part in text.split(",") if text else []:
        first, _, last = part.partition("-")
        low, high = _number(first), _number(last or first)
        if low < 0 or high < 0:
            return set()
        found |= set(range(low, min(high, CPUS) + 1))
    return found
