"""What a batch of pictures would win: the network's time a picture, by pictures at once.

usage: python -m benchmarks.batches [BUNDLE]   (the shipped pocket where none is named)
"""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.measure import interleave, save
from engine import Bundle, choose

__all__ = ["main", "report"]

BATCHES = (1, 2, 4)  # pictures, each with its two halves of guidance
SMALL = 256  # pixels a side; larger networks take seconds, and their runs are fewer
RUNS, RUNS_LARGE = 40, 4
POCKET = Path(__file__).parents[1] / "safelight" / "models" / "pocket"


def report(bundle: Bundle) -> dict[str, Any]:
    """Measure in turn and give the network's seconds a step and picture."""
    manifest = bundle.manifest
    choice = choose("cpu", "auto")
    width, height = manifest.default_width, manifest.default_height
    sides = (height // manifest.vae_scale_factor, width // manifest.vae_scale_factor)
    calls: dict[str, Callable[[], object]] = {}
    for count in BATCHES:
        shapes = {
            "sample": (2 * count, manifest.latent_channels, *sides),
            "timestep": (),
            "encoder_hidden_states": (2 * count, manifest.token_limit, manifest.embed_dim),
        }
        session = choice.backend.load(bundle.model("unet"), shapes)
        draw = np.random.default_rng(count).standard_normal
        given = {name: np.asarray(draw(shape), np.float32) for name, shape in shapes.items()}
        given["timestep"] = np.asarray(500.0, np.float32)
        calls[f"{count}"] = partial(session.run, given)
    times = interleave(calls, rounds=RUNS if width <= SMALL else RUNS_LARGE)
    return {
        "back end": choice.reason,
        "size": f"{width}x{height}",
        "seconds a step and picture": {
            name: round(median(times[name]) / int(name), 6) for name in calls
        },
    }


def main() -> None:
    """Measure, print and keep the result."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else POCKET
    bundle = Bundle.open(path, hash_cache=None)
    results = report(bundle)
    saved = save(f"batches-{bundle.name}", "a guided step on several pictures at once", results)
    sys.stdout.write(f"{saved}\n{results}\n")


if __name__ == "__main__":
    main()
