"""Many pictures in a row: the denoiser's own rate beside that of sealed pictures, `pocket`.

usage: python -m benchmarks.throughput [FOLDER]   (the folder decides which disk is measured)

Both run in one process, chunk by chunk in turn, with the same requests: the pipeline alone, whose
time in the network is the denoiser's; and studio and vault, from request to durable record. Beside
it, the network alone on one to eight pictures at once: what a batch would win.
"""

import sys
import tempfile  # noqa: TID251 - the vault's folder: sealed
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.measure import interleave, save
from engine import Bundle, GenerationRequest, Picture, Pipeline, choose
from safelight.studio import Sealed, Studio
from vault import MemoryKeyStore, create

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.backends import Backend

__all__ = ["main", "report"]

CHUNK = 8  # pictures
CHUNKS = 8  # of either: `generate -n 64`
STEPS = 20
BATCHES = (1, 2, 4, 8)  # pictures, each with its two halves of guidance
RUNS = 40  # of each
BUNDLE = Path(__file__).parents[1] / "safelight" / "models" / "pocket"


def chunks(bundle: Bundle) -> Iterator[GenerationRequest]:
    """Yield the same requests to either side; the first one warms up."""
    for number in range(CHUNKS + 1):
        yield bundle.request(prompt="red apple", seed=number * CHUNK, count=CHUNK, steps=STEPS)


def batches(bundle: Bundle, backend: "Backend") -> dict[str, float]:
    """Give the network's seconds a step and picture, by the number of pictures that it takes."""
    manifest = bundle.manifest
    side = manifest.default_height // manifest.vae_scale_factor
    calls: dict[str, Callable[[], object]] = {}
    for count in BATCHES:
        shapes = {
            "sample": (2 * count, manifest.latent_channels, side, side),
            "timestep": (),
            "encoder_hidden_states": (2 * count, manifest.token_limit, manifest.embed_dim),
        }
        session = backend.load(bundle.model("unet"), shapes)
        draw = np.random.default_rng(count).standard_normal
        given = {name: np.asarray(draw(shape), np.float32) for name, shape in shapes.items()}
        given["timestep"] = np.asarray(500.0, np.float32)
        calls[f"{count}"] = partial(session.run, given)
    times = interleave(calls, rounds=RUNS)
    return {name: round(median(times[name]) / int(name), 6) for name in calls}


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
        "network, seconds a step and picture, by pictures at once": batches(bundle, choice.backend),
    }


def main() -> None:
    """Measure, print and keep the result."""
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as folder:
        results = report(Path(folder))
    path = save("throughput", "64 pictures of pocket, denoiser alone and sealed", results)
    sys.stdout.write(f"{path}\n{results}\n")


if __name__ == "__main__":
    main()
