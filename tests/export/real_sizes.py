"""Measures an export of a real architecture with random weights.

`python -m tests.export.real_sizes sd15|sdxl WORKFOLDER RESULT.json` needs 5 GB of disk and some
minutes, for XL 11 GB; it made the committed benchmarks/results/export-*.json.
"""

import json
import os
import platform
import resource
import sys
import time
from dataclasses import asdict
from pathlib import Path

from export import Ingredients, Options, export_checkpoint
from export.architectures import SD15, SDXL, write_random_checkpoint

__all__ = ["measure_export"]

KIB = 1024  # bytes; Linux counts ru_maxrss in KiB


ARCHITECTURES = {"sd15": SD15, "sdxl": SDXL}
TITLES = {"sd15": "Stable Diffusion 1.5", "sdxl": "Stable Diffusion XL"}


def measure_export(family: str, work: Path) -> dict[str, object]:
    """Export it inside `work` and give seconds by stage, peak memory in bytes, and the parity."""
    source = work / f"{family}-random"
    if not source.exists():
        write_random_checkpoint(source, ARCHITECTURES[family], seed=1)
    stages: list[tuple[str, float]] = []
    build_peak = 0

    def progress(stage: str, _fraction: float) -> None:
        nonlocal build_peak
        stages.append((stage, time.monotonic()))
        if not build_peak and stage.startswith("torch"):
            # The first child has ended and the second one is not yet waited for.
            build_peak = peak_of_children()

    begin = time.monotonic()
    manifest = export_checkpoint(
        Ingredients(source=source),
        work / "bundle",
        name=f"{family}-random",
        licence="random weights",
        progress=progress,
        options=Options(),
    )
    ends = [at for _, at in stages[1:]] + [time.monotonic()]
    seconds = {
        stage: round(end - start, 1)
        for (stage, start), end in zip(stages, ends, strict=True)
        if stage != "done"
    }
    return {
        "scenario": f"export of {TITLES[family]}'s architecture, random fp16 weights",
        "machine": {"cores": os.cpu_count(), "cpu": cpu(), "platform": platform.machine()},
        "libraries": dict(manifest.exporter),
        "load_average_1min": round(os.getloadavg()[0], 1),
        "seconds": {"total": round(time.monotonic() - begin, 1), "stages": seconds},
        "peak_rss_bytes": {"build": build_peak, "build_and_parity": peak_of_children()},
        "bytes": sum(entry.bytes for entry in manifest.files.values()),
        "parity": [asdict(measure) for measure in manifest.parity.measures],
    }


def peak_of_children() -> int:
    """Give the largest resident set of any child that has ended, in bytes."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * KIB


def cpu() -> str:
    """Name the processor as Linux does."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return "unknown"


if __name__ == "__main__":
    found = measure_export(sys.argv[1], Path(sys.argv[2]))
    Path(sys.argv[3]).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
