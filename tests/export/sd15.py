"""Measures an export of Stable Diffusion 1.5's architecture with random weights.

`python -m tests.export.sd15 WORKFOLDER RESULT.json` needs 5 GB of disk and some minutes; it made
the committed benchmarks/results/export-sd15.json.
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
from export.architectures import SD15, write_random_checkpoint

__all__ = ["measure_export"]

KIB = 1024  # bytes; Linux counts ru_maxrss in KiB


def measure_export(work: Path) -> dict[str, object]:
    """Export it inside `work` and give seconds by stage, peak memory in bytes, and the parity."""
    source = work / "sd15-random"
    if not source.exists():
        write_random_checkpoint(source, SD15, seed=1)
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
        name="sd15-random",
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
        "scenario": "export of Stable Diffusion 1.5's architecture, random fp16 weights",
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
    found = measure_export(Path(sys.argv[1]))
    Path(sys.argv[2]).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
