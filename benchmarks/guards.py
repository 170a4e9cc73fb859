"""The surroundings before and after a measurement, and what in them disturbed it.

Linux tells through /proc and /sys; elsewhere most of it is unknown, and a result says so.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.document import Environment
from engine.cgroups import ControlGroups
from engine.cores import physical_cores
from engine.memory import free_memory

__all__ = ["Surroundings", "disturbances"]

BUSY: Final = 0.3  # load of one minute a core, before anything is measured
SLOWED: Final = 0.05  # share by which the clocks fell
HOT: Final = 90.0  # degrees Celsius, where most processors begin to slow down
TICKS: Final = 100  # a second, in /proc/stat on every Linux (USER_HZ)
STOLEN: Final = 0.01  # share of time that other guests of a host took


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where the surroundings are read from. root: the root of /proc and /sys."""

    root: Path = Path("/")
    groups: ControlGroups = field(default_factory=ControlGroups)

    def look(self) -> Environment:
        """Read them now."""
        cores = self.groups.cores()
        return Environment(
            load=self._load(),
            clocks=tuple(self._clocks()),
            governor=self._text("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")[:80],
            temperature=self._temperature(),
            throttled=self._throttled(),
            stolen=self._stolen(),
            cores_limit=None if cores == float("inf") else round(cores, 2),
            memory_free=self.memory_free(),
            on_battery=self._on_battery(),
        )

    def memory_free(self) -> int:
        """Give the bytes that can be had without swapping, within the control group's limit."""
        free = free_memory(self.root, self.groups)
        if free == float("inf") and "SC_AVPHYS_PAGES" in getattr(os, "sysconf_names", ()):
            free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
        return 0 if free == float("inf") else int(free)

    def _load(self) -> float:
        first = self._text("proc/loadavg").split()
        return float(first[0]) if first else round(os.getloadavg()[0], 2)

    def _clocks(self) -> Iterator[float]:
        files = sorted((self.root / "sys/devices/system/cpu").glob("cpu*/cpufreq/scaling_cur_freq"))
        if files:
            yield from (round(int(file.read_text("ascii")) / 1000, 1) for file in files[:512])
            return
        for line in self._text("proc/cpuinfo").splitlines():  # what a virtual machine is told
            if line.startswith("cpu MHz"):
                yield round(float(line.partition(":")[2]), 1)

    def _temperature(self) -> float | None:
        zones = (self.root / "sys/class/thermal").glob("thermal_zone*/temp")
        found = [_whole(_read(zone)) for zone in zones]
        return max((each / 1000 for each in found if each is not None), default=None)

    def _throttled(self) -> int | None:
        pattern = "cpu*/thermal_throttle/core_throttle_count"
        files = (self.root / "sys/devices/system/cpu").glob(pattern)
        counts = [count for file in files if (count := _whole(_read(file))) is not None]
        quota = self.groups.throttled()
        return sum(counts) + quota if counts or quota else None

    def _stolen(self) -> float | None:
        first = self._text("proc/stat").partition("\n")[0].split()
        return int(first[8]) / TICKS if len(first) > 8 else None

    def _on_battery(self) -> bool | None:
        mains = (self.root / "sys/class/power_supply").glob("*/online")
        online = [_read(each) for each in mains]
        return all(each == "0" for each in online) if online else None

    def _text(self, name: str) -> str:
        return _read(self.root / name)


def disturbances(before: Environment, after: Environment, seconds: float) -> Iterator[str]:
    """Say what was wrong with the surroundings, a sentence each; seconds: between the two."""
    cores = before.cores_limit or physical_cores()
    if before.load > BUSY * cores:
        yield f"other programs were at work: load {before.load:g} before it began"
    if before.governor not in {"", "performance"}:
        yield f"the clock governor is {before.governor}: clocks follow the load"
    if before.on_battery:
        yield "the machine runs on its battery"
    clocks = [sum(each.clocks) / len(each.clocks) for each in (before, after) if each.clocks]
    if len(clocks) == 2 and clocks[1] < (1 - SLOWED) * clocks[0]:
        yield f"the clocks fell from {clocks[0]:.0f} to {clocks[1]:.0f} MHz"
    hottest = max(
        (t for t in (before.temperature, after.temperature) if t is not None), default=0.0
    )
    if hottest >= HOT:
        yield f"the processor was {hottest:.0f} degrees Celsius warm"
    if (after.throttled or 0) > (before.throttled or 0):
        count = (after.throttled or 0) - (before.throttled or 0)
        yield f"the processor or a quota slowed it down {count} times"
    if before.stolen is not None and after.stolen is not None and seconds > 0:
        share = (after.stolen - before.stolen) / (seconds * cores)
        if share > STOLEN:
            yield f"other guests of the host took {share:.1%} of the time"


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(1 << 20).decode("utf-8", "replace").strip()
    except OSError:
        return ""


def _whole(text: str) -> int | None:
    return int(text) if text.isdecimal() and len(text) < 16 else None
