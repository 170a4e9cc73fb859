"""Clocks, temperature, throttling, limits and energy, read from trees that are written here."""

import math
from types import SimpleNamespace

import pytest

from benchmarks.cards import cards
from benchmarks.energy import Meter
from benchmarks.guards import Surroundings, disturbances
from engine.cgroups import ControlGroups
from tests.benchmarks.made_results import QUIET


def tree(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    groups = ControlGroups(membership=root / "self", root=root / "fs")
    return Surroundings(root=root, groups=groups)


def test_what_a_laptop_tells(tmp_path):
    cpu = "sys/devices/system/cpu"
    found = tree(
        tmp_path,
        {
            "proc/loadavg": "0.50 1 1 1/2 3",
            "proc/meminfo": "MemTotal: 9 kB\nMemAvailable:   2048 kB",
            "proc/stat": "cpu  1 2 3 4 5 6 7 250 0 0\ncpu0 1",
            f"{cpu}/cpu0/cpufreq/scaling_cur_freq": "2400000",
            f"{cpu}/cpu1/cpufreq/scaling_cur_freq": "2600000",
            f"{cpu}/cpu0/cpufreq/scaling_governor": "powersave",
            f"{cpu}/cpu0/thermal_throttle/core_throttle_count": "7",
            "sys/class/thermal/thermal_zone0/temp": "41000",
            "sys/class/thermal/thermal_zone1/temp": "71500",
            "sys/class/power_supply/AC/online": "0",
            "self": "0::/",
            "fs/cpu.max": "150000 100000",
            "fs/memory.max": "1000000",
            "fs/memory.current": "400000",
            "fs/cpu.stat": "nr_throttled 5",
        },
    ).look()
    assert (found.load, found.clocks, found.governor) == (0.5, (2400.0, 2600.0), "powersave")
    assert (found.temperature, found.throttled, found.stolen) == (71.5, 12, 2.5)
    assert (found.cores_limit, found.memory_free, found.on_battery) == (1.5, 600_000, True)


def test_what_tells_nothing_is_unknown(tmp_path):
    found = tree(tmp_path, {"proc/meminfo": "MemAvailable: 8 kB", "proc/loadavg": "0 0 0"}).look()
    assert (found.clocks, found.governor) == ((), "")
    assert found.temperature is found.throttled is found.stolen is found.on_battery is None
    assert found.cores_limit is None


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ({"load": 3.0}, {}, "other programs were at work"),
        ({"governor": "powersave"}, {}, "governor is powersave"),
        ({"on_battery": True}, {}, "battery"),
        ({}, {"clocks": (2000.0, 3000.0)}, "fell from 3000 to 2500 MHz"),
        ({}, {"temperature": 95.0}, "95 degrees"),
        ({}, {"throttled": 4}, "slowed it down 4 times"),
        ({}, {"stolen": 5.0}, "other guests"),
    ],
)
def test_each_disturbance_is_said(before, after, said):
    quiet = QUIET.model_copy(update={"cores_limit": 2.0})
    one, other = (quiet.model_copy(update=each) for each in (before, after))
    (sentence,) = disturbances(one, other, seconds=100.0)
    assert said in sentence
    assert list(disturbances(quiet, quiet, seconds=100.0)) == []


def rapl(root, microjoules):
    for name, value in {"energy_uj": microjoules, "max_energy_range_uj": 9_999_999}.items():
        tree(root, {f"intel-rapl:0/{name}": value, f"intel-rapl:0:0/{name}": 5})


def test_energy_is_added_up_over_the_counters_end(tmp_path):
    rapl(tmp_path, 9_000_000)
    meter = Meter(powercap=tmp_path)
    rapl(tmp_path, 9_500_000)
    assert meter.joules() == pytest.approx(0.5)
    rapl(tmp_path, 500_000)  # wrapped
    assert meter.joules() == pytest.approx(1.5)


def test_without_counters_there_is_no_number(tmp_path):
    assert math.isnan(Meter(powercap=tmp_path / "none").joules())


class NvmlError(Exception):
    """What the binding raises for everything."""


def binding(*, driver=True, energy=1_000_000):
    """Give what speaks as NVML's Python binding does, with one card."""

    def refuse(*_given):
        raise NvmlError

    made = SimpleNamespace(energy=energy, NVMLError=NvmlError)
    made.nvmlInit = (lambda: None) if driver else refuse
    made.nvmlDeviceGetCount = lambda: 1
    made.nvmlDeviceGetHandleByIndex = lambda number: number
    made.nvmlDeviceGetName = lambda _handle: "A Card"
    made.nvmlSystemGetDriverVersion = lambda: "580.1"
    made.nvmlDeviceGetMemoryInfo = lambda _handle: SimpleNamespace(used=123)
    made.nvmlDeviceGetClockInfo = refuse
    counted = energy is not None
    made.nvmlDeviceGetTotalEnergyConsumption = (lambda _handle: made.energy) if counted else refuse
    return made


def test_a_card_is_described_and_its_energy_counted(tmp_path):
    spoken = binding()
    (card,) = cards(spoken)
    assert (card.name, card.driver, card.used(), card.clock()) == ("A Card", "580.1", 123, 0)
    meter = Meter([card], tmp_path / "none")
    spoken.energy += 7_000
    assert meter.joules() == pytest.approx(7.0)


def test_no_driver_no_cards_and_an_old_card_counts_no_energy(tmp_path):
    assert list(cards(binding(driver=False))) == []
    old = binding(energy=None)
    assert math.isnan(Meter(list(cards(old)), tmp_path / "none").joules())
