"""What batches would win, and decoding beside the next picture's steps: raw networks, no pipeline.

usage: python -m benchmarks.batches [BUNDLE]   (the shipped pocket where none is named)
"""

import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import median
from threading import Thread
from typing import Any

import numpy as np

from benchmarks.measure import interleave, save
from engine import Bundle, choose
from engine.backends import Array, Backend

__all__ = ["main", "report"]

SMALL = 256  # pixels a side; larger networks take seconds: fewer runs, and no batch of four
BATCHES, BATCHES_LARGE = (1, 2, 4), (1, 2)  # pictures, each with its two halves of guidance
RUNS, RUNS_LARGE = 40, 3
STEPS, STEPS_LARGE = 20, 8  # of the picture that another one is decoded beside
POCKET = Path(__file__).parents[1] / "safelight" / "models" / "pocket"


def report(bundle: Bundle) -> dict[str, Any]:
    """Measure in turn and give medians in seconds."""
    choice = choose("cpu", "auto")
    small = bundle.manifest.default_width <= SMALL
    calls = {
        f"{count}": network(bundle, choice.backend, count)
        for count in (BATCHES if small else BATCHES_LARGE)
    }
    times = interleave(calls, rounds=RUNS if small else RUNS_LARGE)
    steps = STEPS if small else STEPS_LARGE
    decode, step = decoder(bundle, choice.backend), calls["1"]

    def after() -> None:
        for _ in range(steps):
            step()
        decode()

    def beside() -> None:
        thread = Thread(target=decode)
        thread.start()
        for _ in range(steps):
            step()
        thread.join()

    both = {"after": after, "beside": beside}
    pictures = interleave(both, rounds=RUNS // 2 if small else RUNS_LARGE, warmup=1)
    return {
        "back end": choice.reason,
        "size": f"{bundle.manifest.default_width}x{bundle.manifest.default_height}",
        "network, seconds a step and picture, by pictures at once": {
            name: round(median(times[name]) / int(name), 6) for name in calls
        },
        f"seconds of {steps} steps and a decode, in turn and at once": {
            name: round(median(each), 5) for name, each in pictures.items()
        },
    }


def network(bundle: Bundle, backend: Backend, count: int) -> Callable[[], object]:
    """Load the unet for `count` guided pictures and give a run of it."""
    manifest = bundle.manifest
    height, width = sides(bundle)
    shapes = {
        "sample": (2 * count, manifest.latent_channels, height, width),
        "timestep": (),
        "encoder_hidden_states": (2 * count, manifest.token_limit, manifest.embed_dim),
    }
    given = drawn(shapes) | {"timestep": np.asarray(500.0, np.float32)}
    return partial(backend.load(bundle.model("unet"), shapes).run, given)


def decoder(bundle: Bundle, backend: Backend) -> Callable[[], object]:
    """Load the VAE's decoder for one picture and give a run of it."""
    shapes = {"latent_sample": (1, bundle.manifest.latent_channels, *sides(bundle))}
    return partial(backend.load(bundle.model("vae_decoder"), shapes).run, drawn(shapes))


def sides(bundle: Bundle) -> tuple[int, int]:
    """Give height and width of the bundle's own latents."""
    manifest = bundle.manifest
    factor = manifest.vae_scale_factor
    return manifest.default_height // factor, manifest.default_width // factor


def drawn(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Array]:
    """Draw what a component is given."""
    draw = np.random.default_rng(0).standard_normal
    return {name: np.asarray(draw(shape), np.float32) for name, shape in shapes.items()}


def main() -> None:
    """Measure, print and keep the result."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else POCKET
    bundle = Bundle.open(path, hash_cache=None)
    results = report(bundle)
    saved = save(
        f"batches-{bundle.name}", "several pictures in one run; decoding beside steps", results
    )
    sys.stdout.write(f"{saved}\n{results}\n")


if __name__ == "__main__":
    main()
