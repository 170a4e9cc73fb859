"""Many pictures in a row: the denoiser's own rate beside that of sealed pictures.

usage: python -m benchmarks.throughput [FOLDER] [--sd15 WORK]

FOLDER decides which disk is measured. 64 pictures of `pocket`, or four of Stable Diffusion 1.5's
architecture with random weights at 512x512, whose bundle `benchmarks.sd15` makes in WORK. Both run
in one process, chunk by chunk in turn, with the same requests: the pipeline alone, whose time in
the network is the denoiser's; and studio and vault, from request to durable record. Either way one
picture at a time, and then a chunk at once (`batch_size`).
"""

import argparse
import sys
import tempfile  # noqa: TID251 - the vault's folder: sealed
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.measure import save
from engine import Bundle, GenerationRequest, Picture, Pipeline, choose
from safelight.studio import Sealed, Studio
from vault import MemoryKeyStore, create

__all__ = ["main", "report"]

STEPS = 20
BUNDLE = Path(__file__).parents[1] / "safelight" / "models" / "pocket"


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What is drawn by either side: `count` chunks of `size` pictures, and one that warms up."""

    name: str
    scenario: str
    bundle: Bundle
    size: int
    count: int

    def chunks(self) -> Iterator[GenerationRequest]:
        """Yield the same requests to either side; the first one warms up."""
        for number in range(self.count + 1):
            yield self.bundle.request(
                prompt="red apple", seed=number * self.size, count=self.size, steps=STEPS
            )


def report(folder: Path, work: Work) -> dict[str, Any]:
    """Measure and give seconds a picture, and the shares of the denoiser's rate."""
    bundle, size = work.bundle, work.size
    choice = choose("cpu", "auto", folder / "cache")
    vault = create(folder / "vault", keystore=MemoryKeyStore(), confirm=lambda _: None)
    # Each has networks of its own: those of another number of pictures would be loaded anew.
    pipelines = {each: Pipeline(bundle, choice) for each in (1, size)}
    found = {each: Found() for each in pipelines}
    for request in work.chunks():
        for at_once, pipeline in pipelines.items():
            asked = replace(request, batch_size=at_once)
            _measure(asked, pipeline, Studio(pipeline, vault), found[at_once])
    alone = median(found[1].sealed[1:])
    return {
        "back end": choice.reason,
        "steps": STEPS,
        "pictures": size * work.count,
        **found[1].report(),
        f"{size} at once": {
            **found[size].report(),
            "of the rate of one at a time": round(alone / median(found[size].sealed[1:]), 4),
        },
    }


@dataclass
class Found:
    """Seconds a picture, chunk by chunk; the first chunk warms up."""

    denoise: list[float] = field(default_factory=list)
    picture: list[float] = field(default_factory=list)
    sealed: list[float] = field(default_factory=list)

    def report(self) -> dict[str, Any]:
        """Give the medians, and the shares of the denoiser's rate."""
        rows = {name: times[1:] for name, times in asdict(self).items()}
        shares = [d / s for d, s in zip(rows["denoise"], rows["sealed"], strict=True)]
        without = [p / s for p, s in zip(rows["picture"], rows["sealed"], strict=True)]
        return {
            "seconds a picture": {name: round(median(times), 5) for name, times in rows.items()},
            "of the denoiser's rate": round(median(shares), 4),
            "of the rate without sealing": round(median(without), 4),
        }


def _measure(request: GenerationRequest, pipeline: Pipeline, studio: Studio, found: Found) -> None:
    """Draw a chunk without and with sealing."""
    size = request.count
    start = time.perf_counter()
    pictures = [event for event in pipeline.generate(request) if isinstance(event, Picture)]
    found.picture.append((time.perf_counter() - start) / size)
    found.denoise.append(sum(picture.seconds.denoise for picture in pictures) / size)
    start = time.perf_counter()
    events = list(studio.run([request], lambda: False))
    found.sealed.append((time.perf_counter() - start) / size)
    if sum(isinstance(event, Sealed) for event in events) != size:
        raise RuntimeError("not every picture was sealed")


def work_of(sd15: Path | None) -> Work:
    """Give what is drawn: of pocket, or of SD 1.5's architecture, kept in the folder `sd15`."""
    if sd15 is None:
        bundle = Bundle.open(BUNDLE, hash_cache=None)
        scenario = "64 pictures of pocket, denoiser alone and sealed"
        return Work(name="throughput", scenario=scenario, bundle=bundle, size=8, count=8)
    from benchmarks.sd15 import prepared

    scenario = "4 pictures of SD 1.5's architecture, 512x512, denoiser alone and sealed"
    bundle = prepared(sd15)
    return Work(name="throughput-sd15", scenario=scenario, bundle=bundle, size=2, count=2)


def main() -> None:
    """Measure, print and keep the result."""
    parser = argparse.ArgumentParser(prog="benchmarks.throughput")
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--sd15", type=Path, metavar="WORK")
    options = parser.parse_args()
    work = work_of(options.sd15)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        results = report(Path(folder), work)
    path = save(work.name, work.scenario, results)
    sys.stdout.write(f"{path}\n{results}\n")


if __name__ == "__main__":
    main()
