"""NVIDIA cards as NVML tells of them: name, memory in use, energy. `unverified on hardware`.

The binding (`nvidia-ml-py`, module `pynvml`) is optional; without it, or without a driver, there
are no cards.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final

__all__ = ["Card", "cards"]

BINDING: Final = "pynvml"


@dataclass(frozen=True)
class Card:
    """One card. binding: the module that speaks NVML; handle: what it calls the card by."""

    binding: Any
    handle: Any

    @cached_property
    def name(self) -> str:
        """Return the product's name; no serial number or UUID is asked for."""
        return str(self.binding.nvmlDeviceGetName(self.handle))

    @cached_property
    def driver(self) -> str:
        """Return the driver's version."""
        return str(self.binding.nvmlSystemGetDriverVersion())

    def used(self) -> int:
        """Give the bytes of its memory in use, by whomever."""
        return int(self.binding.nvmlDeviceGetMemoryInfo(self.handle).used)

    def joules(self) -> float:
        """Give the energy since the driver was loaded; NaN where the card does not count it."""
        try:
            return self.binding.nvmlDeviceGetTotalEnergyConsumption(self.handle) / 1000.0
        except self.binding.NVMLError:
            return float("nan")

    def clock(self) -> int:
        """Give the clock of its processors in MHz, or 0."""
        try:
            return int(self.binding.nvmlDeviceGetClockInfo(self.handle, 0))
        except self.binding.NVMLError:
            return 0


def cards(binding: Any = None) -> Iterator[Card]:
    """Yield the cards of this machine; binding: the module, imported where none is given."""
    if binding is None:
        if find_spec(BINDING) is None:
            return
        binding = import_module(BINDING)
    try:
        binding.nvmlInit()
        count = binding.nvmlDeviceGetCount()
    except binding.NVMLError:  # no driver, or no right to ask it
        return
    for number in range(count):
        yield Card(binding, binding.nvmlDeviceGetHandleByIndex(number))
