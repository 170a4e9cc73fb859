"""Energy where the machine tells: RAPL counters of the processor, NVML's of cards.

RAPL: the kernel's Documentation/power/powercap/powercap.rst; most systems let root alone read it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.cards import Card

__all__ = ["Meter"]

POWERCAP: Final = Path("/sys/class/powercap")


@dataclass(frozen=True, slots=True)
class _Domain:
    """One counter of microjoules; it begins again at 0 behind `most`."""

    path: Path
    most: int

    def read(self) -> int:
        return int(self.path.read_text("ascii"))


class Meter:
    """Adds up all packages and cards. `joules` is NaN where nothing can be read."""

    def __init__(self, cards: Sequence[Card] = (), powercap: Path = POWERCAP) -> None:
        self._domains = _domains(powercap)
        self._cards = [card for card in cards if not math.isnan(card.joules())]
        self._last = [domain.read() for domain in self._domains]
        self._first_cards = [card.joules() for card in self._cards]
        self._sum = 0.0

    def joules(self) -> float:
        """Give the energy since the meter was made. Ask at least once an hour: counters wrap."""
        if not self._domains and not self._cards:
            return math.nan
        for place, domain in enumerate(self._domains):
            now = domain.read()
            self._sum += ((now - self._last[place]) % (domain.most + 1)) / 1e6
            self._last[place] = now
        spent = (
            card.joules() - first
            for card, first in zip(self._cards, self._first_cards, strict=True)
        )
        return self._sum + sum(spent)


def _domains(powercap: Path) -> list[_Domain]:
    """Find the packages' counters that may be read: `intel-rapl:0`, not the parts below them."""
    found: list[_Domain] = []
    for folder in sorted(powercap.glob("intel-rapl:*")):
        if folder.name.count(":") != 1:
            continue
        try:
            most = int((folder / "max_energy_range_uj").read_text("ascii"))
            domain = _Domain(folder / "energy_uj", most)
            domain.read()
        except (OSError, ValueError):
            continue
        found.append(domain)
    return found
