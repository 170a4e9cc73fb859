"""What a picture takes, by stage: seconds, and the most memory.

What a figure of memory counts depends on what computes, and is named with it (`PeakMemory.of`):

- `torch`: what torch's own allocator held of a card at most, cached blocks and the pools of CUDA
  graphs with it. The library counts it, so it is the true peak of this process; the driver's
  context, some hundred MiB, is not in it.
- `vram`: what of the card was in use, by whomever. The driver says how much that is *now*, and is
  asked where a stage begins and where it ends, never in between: a lower bound. Back ends for cards
  keep what they took until the next size is loaded, so what a stage leaves behind is near its peak.
- `rss`: the resident set of the whole process, as Linux tells it, where a stage begins and ends and
  between evaluations of the network: a lower bound. Where the process as a whole reached a new high
  within the stage (VmHWM), that is the stage's true peak, and is what is given. The mark is never
  reset: others read it. Devices that do not tell how much of their memory is in use, and systems
  other than Linux, have this or nothing.

Several replicas in one process share the process, and several on one card the card: each picture
has what was in use while it was made.
"""

import re
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from engine.backends import CountedMemory, DeviceMemory
from engine.errors import DeviceError
from engine.events import PeakMemory, Seconds

if TYPE_CHECKING:
    from engine.backends import Backend

__all__ = ["CounterGauge", "DeviceGauge", "Gauge", "ProcessGauge", "Usage", "gauge_for"]

STAGES: Final[tuple[str, ...]] = ("load", "text", "denoise", "decode")
STATUS: Final = Path("/proc/self/status")
KIB: Final = 1024
_RESIDENT: Final = re.compile(rb"^VmHWM:\s*(\d+) kB\nVmRSS:\s*(\d+) kB$", re.MULTILINE)


class Gauge(Protocol):
    """Tells how much memory is in use. of: what it counts, as `PeakMemory` names it."""

    @property
    def of(self) -> str: ...

    def begin(self) -> None:
        """Begin a stage."""
        ...

    def look(self) -> None:
        """Look between two evaluations of the network; quick, and nothing is waited for."""
        ...

    def peak(self) -> int:
        """End the stage; gives its peak in bytes, 0 where that is not told."""
        ...


class ProcessGauge:
    """The process's resident set. status: where the system tells it; nothing without that file."""

    def __init__(self, status: Path = STATUS) -> None:
        self._status = status
        self._highest = self._mark = 0
        self.of: Final = "rss" if self._read()[0] else ""

    def begin(self) -> None:
        """Look, and remember the process's high-water mark."""
        self._highest, self._mark = self._read()

    def look(self) -> None:
        """Look: some 12 microseconds."""
        self._highest = max(self._highest, self._read()[0])

    def peak(self) -> int:
        """Give the mark where it rose since `begin`, else the most that was seen."""
        now, mark = self._read()
        return mark if mark > self._mark else max(self._highest, now)

    def _read(self) -> tuple[int, int]:
        """Give VmRSS and VmHWM in bytes; zeros where they are not told."""
        told = None
        with suppress(OSError):
            told = _RESIDENT.search(self._status.read_bytes())
        return (int(told[2]) * KIB, int(told[1]) * KIB) if told else (0, 0)


class DeviceGauge:
    """What is in use of a device's memory. device: says how much of it is free."""

    def __init__(self, device: DeviceMemory) -> None:
        self.of: Final = "vram"
        self._device = device
        self._before = 0

    def begin(self) -> None:
        """Ask the device."""
        self._before = self._used()

    def look(self) -> None:
        """Ask nothing: no call of the driver's comes between two steps."""

    def peak(self) -> int:
        """Ask the device once more, and give the larger answer."""
        return max(self._before, self._used())

    def _used(self) -> int:
        with suppress(DeviceError):  # no picture fails for want of a figure about it
            free, total = self._device.memory()
            return total - free
        return 0


class CounterGauge:
    """A library's own count of what it holds of a device."""

    def __init__(self, library: CountedMemory) -> None:
        self.of: Final = "torch"
        self._library = library

    def begin(self) -> None:
        """Let the library count from here."""
        self._library.reset_peak_memory()

    def look(self) -> None:
        """Do nothing: the library counts."""

    def peak(self) -> int:
        """Give what the library counted."""
        return self._library.peak_memory()


def gauge_for(backend: "Backend") -> Gauge:
    """Give the best gauge for what computes: of its device where that tells, else the process's."""
    if isinstance(backend, CountedMemory) and backend.counts_memory:
        return CounterGauge(backend)
    if isinstance(backend, DeviceMemory):
        with suppress(DeviceError):
            if backend.memory()[1]:
                return DeviceGauge(backend)
    return ProcessGauge()


class Usage:
    """What one picture takes. A stage that is entered again adds its seconds and keeps the higher
    peak. clock: seconds.
    """

    def __init__(self, gauge: Gauge, clock: Callable[[], float] = time.perf_counter) -> None:
        self._gauge = gauge
        self._clock = clock
        self._seconds: dict[str, float] = dict.fromkeys(STAGES, 0.0)
        self._peaks: dict[str, int] = dict.fromkeys(STAGES, 0)

    @contextmanager
    def stage(self, name: str) -> Generator[None]:
        """Measure the block as `load`, `text`, `denoise` or `decode`."""
        self._gauge.begin()
        start = self._clock()
        try:
            yield
        finally:
            self._seconds[name] += self._clock() - start
            self._peaks[name] = max(self._peaks[name], self._gauge.peak())

    def shared(self, count: int) -> "Usage":
        """Give what each of `count` pictures that were made at once takes so far: its share of the
        seconds, and the peaks of all.
        """
        share = Usage(self._gauge, self._clock)
        share._seconds = {name: each / count for name, each in self._seconds.items()}
        share._peaks = dict(self._peaks)
        return share

    @property
    def seconds(self) -> Seconds:
        """Give the seconds of each stage so far."""
        return Seconds(**self._seconds)

    @property
    def peak_memory(self) -> PeakMemory:
        """Give the peak of each stage so far."""
        return PeakMemory(of=self._gauge.of, **self._peaks)
