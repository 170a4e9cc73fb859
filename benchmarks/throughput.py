"""Many pictures in a row: the denoiser's own rate beside that of sealed pictures, `pocket`.

usage: python -m benchmarks.throughput [FOLDER]   (the folder decides which disk is measured)

Both run in one process, chunk by chunk in turn, with the same requests: the pipeline alone, whose
time in the network is the denoiser's; and studio and vault, from request to durable record.
"""

import sys
import tempfile  # noqa: TID251 - the vault's folder: sealed
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.measure import save
from engine import Bundle, GenerationRequest, Picture, Pipeline, choose
from safelight.studio import Sealed, Studio
from vault import MemoryKeyStore, create

__all__ = ["main", "report"]

CHUNK = 8  # pictures
CHUNKS = 8  # of either: `generate -n 64`
STEPS = 20
BUNDLE = Path(__file__).parents[1] / "safelight" / "models" / "pocket"


def chunks(bundle: Bundle) -> Iterator[GenerationRequest]:
    """Yield the same requests to either side; the first one warms up."""
    for number in range(CHUNKS + 1):
        yield bundle.request(prompt="red apple", seed=number * CHUNK, count=CHUNK, steps=STEPS)


def report(folder: Path) -> dict[str, Any]:
    """Measure and give seconds a picture, and the shares of the denoiser's rate."""
    bundle = Bundle.open(BUNDLE, hash_cache=None)
    choice = choose("cpu", "auto", folder / "cache")
    pipeline = Pipeline(bundle, choice)
    vault = create(folder / "vault", keystore=MemoryKeyStore(), confirm=lambda _: None)
    studio = Studio(pipeline, vault)
    denoise: list[float] = []
    alone: list[float] = []
    sealed: list[float] = []
    for request in chunks(bundle):
        start = time.perf_counter()
        pictures = [event for event in pipeline.generate(request) if isinstance(event, Picture)]
        alone.append((time.perf_counter() - start) / CHUNK)
        denoise.append(sum(picture.seconds.denoise for picture in pictures) / CHUNK)
        start = time.perf_counter()
        events = list(studio.run([request], lambda: False))
        sealed.append((time.perf_counter() - start) / CHUNK)
        if sum(isinstance(event, Sealed) for event in events) != CHUNK:
            raise RuntimeError("not every picture was sealed")
    rows = {"denoise": denoise[1:], "picture": alone[1:], "sealed": sealed[1:]}
    shares = [d / s for d, s in zip(rows["denoise"], rows["sealed"], strict=True)]
    without = [p / s for p, s in zip(rows["picture"], rows["sealed"], strict=True)]
    return {
        "back end": choice.reason,
        "steps": STEPS,
        "pictures": CHUNK * CHUNKS,
        "seconds a picture": {name: round(median(times), 5) for name, times in rows.items()},
        "of the denoiser's rate": round(median(shares), 4),
        "of the rate without sealing": round(median(without), 4),
    }


def main() -> None:
    """Measure, print and keep the result."""
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as folder:
        results = report(Path(folder))
    path = save("throughput", "64 pictures of pocket, denoiser alone and sealed", results)
    sys.stdout.write(f"{path}\n{results}\n")


if __name__ == "__main__":
    main()
