"""Measures an export of a real architecture with random weights.

`python -m tests.export.real_sizes sd15|sdxl WORKFOLDER RESULT.json` needs 5 GB of disk and some
minutes, for XL 11 GB; it made the committed benchmarks/results/export-*.json.
"""

import json
import os
import platform
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from threading import Event, Thread

import psutil

from export import Ingredients, Options, export_checkpoint
from export.architectures import SD15, SDXL, write_random_checkpoint

__all__ = ["measure_export"]

ARCHITECTURES = {"sd15": SD15, "sdxl": SDXL}
TITLES = {"sd15": "Stable Diffusion 1.5", "sdxl": "Stable Diffusion XL"}


def measure_export(family: str, work: Path) -> dict[str, object]:
    """Export it inside `work` and give seconds by stage, peak memory in bytes, and the parity."""
    source = work / f"{family}-random"
    if not source.exists():
        write_random_checkpoint(source, ARCHITECTURES[family], seed=1)
    began: dict[str, float] = {}
    peak = Peak()
    build_peak = 0
    begin = time.monotonic()

    def progress(stage: str, _fraction: float) -> None:
        nonlocal build_peak
        began[stage] = round(time.monotonic() - begin, 1)
        if not build_peak and stage.startswith("torch"):
            build_peak = peak.bytes

    with peak:
        manifest = export_checkpoint(
            Ingredients(source=source),
            work / "bundle",
            name=f"{family}-random",
            licence="random weights",
            progress=progress,
            options=Options(),
        )
    return {
        "scenario": f"export of {TITLES[family]}'s architecture, random fp16 weights",
        "machine": {"cores": os.cpu_count(), "cpu": cpu(), "platform": platform.machine()},
        "libraries": dict(manifest.exporter),
        "load_average_1min": round(os.getloadavg()[0], 1),
        "seconds": {"total": round(time.monotonic() - begin, 1), "stage_began": began},
        "peak_rss_bytes": {"build": build_peak, "build_and_parity": peak.bytes},
        "bytes": sum(entry.bytes for entry in manifest.files.values()),
        "parity": [asdict(measure) for measure in manifest.parity.measures],
    }


class Peak:
    """Looks at the resident sets of all children together, five times a second, while entered."""

    def __init__(self) -> None:
        self.bytes = 0
        self._end = Event()
        self._thread = Thread(target=self._look, daemon=True)

    def __enter__(self) -> "Peak":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._end.wait(0.2):
            whole = 0
            for child in psutil.Process().children(recursive=True):
                with suppress(psutil.Error):  # it has just ended
                    whole += child.memory_info().rss
            self.bytes = max(self.bytes, whole)


def cpu() -> str:
    """Name the processor as Linux does."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "unknown"


if __name__ == "__main__":
    found = measure_export(sys.argv[1], Path(sys.argv[2]))
    Path(sys.argv[3]).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
