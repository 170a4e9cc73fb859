"""Many pictures in a row: the denoiser's own rate beside that of sealed pictures.

usage: python -m benchmarks.throughput [FOLDER] [--sd15 WORK]

FOLDER decides which disk is measured. 128 pictures of `pocket`, or four of Stable Diffusion 1.5's
architecture with random weights at 512x512, whose bundle `benchmarks.sd15` makes in WORK. All run
in one process, chunk by chunk in an order that changes, with the same requests: the pipeline alone,
whose time in the network is the denoiser's; and studio and vault, from request to durable record.
Either way one picture at a time, and a chunk at once (`batch_size`).
"""

import argparse
import sys
import tempfile  # noqa: TID251 - the vault's folder: sealed
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.measure import interleave, save
from engine import Bundle, GenerationRequest, Picture, Pipeline, choose
from safelight.studio import Sealed, Studio
from vault import MemoryKeyStore, Vault, create

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
    found = {each: Found(Pipeline(bundle, choice), vault, work, each) for each in (1, size)}
    calls = {
        f"{each} {how}": call
        for each, one in found.items()
        for how, call in (("alone", one.draw), ("sealed", one.draw_and_seal))
    }
    interleave(calls, rounds=work.count, warmup=1)
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


class Found:
    """Seconds a picture, chunk by chunk, of drawing `at_once`; the first chunk warms up."""

    def __init__(self, pipeline: Pipeline, vault: Vault, work: Work, at_once: int) -> None:
        self._pipeline, self._studio = pipeline, Studio(pipeline, vault)
        asked = [replace(each, batch_size=at_once) for each in work.chunks()]
        self._alone, self._together = iter(asked), iter(asked)
        self.denoise: list[float] = []
        self.picture: list[float] = []
        self.sealed: list[float] = []

    def draw(self) -> None:
        """Draw the next chunk, and keep nothing."""
        request = next(self._alone)
        start = time.perf_counter()
        events = list(self._pipeline.generate(request))
        self.picture.append((time.perf_counter() - start) / request.count)
        seconds = [event.seconds.denoise for event in events if isinstance(event, Picture)]
        self.denoise.append(sum(seconds) / request.count)

    def draw_and_seal(self) -> None:
        """Draw the next chunk into the vault."""
        request = next(self._together)
        start = time.perf_counter()
        events = list(self._studio.run([request], lambda: False))
        self.sealed.append((time.perf_counter() - start) / request.count)
        if sum(isinstance(event, Sealed) for event in events) != request.count:
            raise RuntimeError("not every picture was sealed")

    def report(self) -> dict[str, Any]:
        """Give the medians, and the shares of the denoiser's rate."""
        named = {"denoise": self.denoise, "picture": self.picture, "sealed": self.sealed}
        rows = {name: times[1:] for name, times in named.items()}
        shares = [d / s for d, s in zip(rows["denoise"], rows["sealed"], strict=True)]
        without = [p / s for p, s in zip(rows["picture"], rows["sealed"], strict=True)]
        return {
            "seconds a picture": {name: round(median(times), 5) for name, times in rows.items()},
            "of the denoiser's rate": round(median(shares), 4),
            "of the rate without sealing": round(median(without), 4),
        }


def work_of(sd15: Path | None) -> Work:
    """Give what is drawn: of pocket, or of SD 1.5's architecture, kept in the folder `sd15`."""
    if sd15 is None:
        bundle = Bundle.open(BUNDLE, hash_cache=None)
        scenario = "128 pictures of pocket, denoiser alone and sealed"
        return Work(name="throughput", scenario=scenario, bundle=bundle, size=8, count=16)
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
