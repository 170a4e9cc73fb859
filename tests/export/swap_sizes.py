"""Measures how long it takes to add a LoRA to bundles of real sizes.

`python -m tests.export.swap_sizes WORKFOLDER RESULT.json BUNDLE...` needs as much disk as the
largest bundle has; it made the committed benchmarks/results/lora-swap.json. A bundle of Stable
Diffusion 1.5's architecture is what `tests.export.real_sizes sd15` leaves behind.
"""

import json
import os
import platform
import shutil
import sys
import time
from itertools import pairwise
from pathlib import Path

from engine.manifest import read_manifest
from export import Options, Reweighting, reweight_bundle
from export.versions import library_versions
from tests.export.lora_files import attentions, draw, state, write
from tests.export.real_sizes import cpu
from tests.export.test_reweight import weights_of

__all__ = ["measure_swap"]


def measure_swap(base: Path, work: Path) -> dict[str, object]:
    """Add a LoRA of all attention layers to `base` inside `work`: seconds by stage, and bytes."""
    weights = weights_of(base)
    file = write(work, state(weights, draw(weights, attentions(weights)), "kohya"))
    out = work / "swapped"
    stages: list[tuple[str, float]] = []
    begin, busy = time.monotonic(), time.process_time()
    manifest = reweight_bundle(
        Reweighting(base=base, loras=((file, 1e-4),)),
        out,
        name="swapped",
        licence=None,
        progress=lambda stage, _: stages.append((stage, time.monotonic())),
        options=Options(),
    )
    total, busy = time.monotonic() - begin, time.process_time() - busy
    seconds = {stage: round(end - start, 2) for (stage, start), (_, end) in pairwise(stages)}
    before = read_manifest(base).files
    fresh = {name: each for name, each in manifest.files.items() if before.get(name) != each}
    shutil.rmtree(out)
    return {
        "base": manifest.source.name,
        "family": manifest.family,
        "bytes": sum(entry.bytes for entry in manifest.files.values()),
        "bytes_of_changed_files": sum(entry.bytes for entry in fresh.values()),
        "changed_weights": len(attentions(weights)),
        "lora_bytes": file.stat().st_size,
        "seconds": {"total": round(total, 2), "cpu": round(busy, 2), "stages": seconds},
        "load_average_1min": round(os.getloadavg()[0], 1),
    }


if __name__ == "__main__":
    place = Path(sys.argv[1])
    place.mkdir(parents=True, exist_ok=True)
    report = {
        "scenario": "a rank 4 LoRA of all attention layers, added to a bundle; base unread before",
        "machine": {"cores": os.cpu_count(), "cpu": cpu(), "platform": platform.machine()},
        "libraries": library_versions(),
        "runs": [measure_swap(Path(each), place) for each in sys.argv[3:]],
    }
    Path(sys.argv[2]).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
