"""What the opt-in speed wins and costs: presets and single levers beside the exact path.

usage: python -m benchmarks.speed WORK [--sd15]   (WORK: a folder for bundles, kept)

`pocket` is exported again with the second graphs of deep-feature reuse and thinner attention; PSNR
and SSIM are against the exact picture of the same prompt and seed. With --sd15, Stable Diffusion
1.5's architecture at 512x512 (5 GB in WORK): its weights are random, so ratios of time alone, and
of a few ways alone, since a picture takes half a minute.
"""

import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, replace
from itertools import cycle
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.likeness import psnr, ssim
from benchmarks.measure import interleave, save, summary
from engine import Bundle, Picture, Pipeline, choose
from engine.presets import preset
from engine.reuse import UNET_DEEP, UNET_SHALLOW

__all__ = ["LEVERS", "main", "report"]

ROUNDS, ROUNDS_SD15 = 12, 2
WARMUP = 1
STEPS = 20
PROMPTS = ("red apple", "snowman", "blue cat face", "rocket", "octopus", "guitar")
PRESETS = ("balanced", "draft")
POCKET = Path(__file__).parents[1] / "safelight" / "models" / "pocket"
EXACT = "exact"
# Each lever alone, as fields of a request.
LEVERS: Mapping[str, dict[str, Any]] = {
    "guidance_start 0.2": {"guidance_start": 0.2},
    "guidance_end 0.6": {"guidance_end": 0.6},
    "reuse_every 2": {"reuse_every": 2},
    "reuse_every 3": {"reuse_every": 3},
    "kv_downsampling 2": {"kv_downsampling": 2},
    "steps 12": {"steps": 12},
    "steps 8": {"steps": 8},
}


class Way:
    """One way to draw: each call is the next prompt and seed, the same for every way."""

    def __init__(self, pipeline: Pipeline, bundle: Bundle, fields: Mapping[str, Any]) -> None:
        self._pipeline = pipeline
        self._bundle = bundle
        self.fields = dict(fields)
        self._next: Iterator[tuple[int, str]] = enumerate(cycle(PROMPTS))
        self.pictures: list[NDArray[np.uint8]] = []
        self.seconds: list[float] = []

    def __call__(self) -> None:
        """Draw one picture; keep it, and the seconds from its text to its pixels."""
        seed, prompt = next(self._next)
        request = self._bundle.request(prompt=prompt, seed=seed, **self.fields)
        *_, picture = self._pipeline.generate(request)
        if not isinstance(picture, Picture):
            raise TypeError("the last event is not a picture")
        self.pictures.append(picture.pixels)
        took = picture.seconds
        self.seconds.append(took.text + took.denoise + took.decode)


def pair_of(work: Path, name: str, checkpoint: Callable[[Path], None]) -> Bundle:
    """Give the bundle `name` with the second graphs in `work`, made there first if need be."""
    from export import Ingredients, export_checkpoint

    bundle = work / name
    if not bundle.exists():
        source = work / f"{name}-checkpoint"
        if not source.exists():
            checkpoint(source)
        export_checkpoint(
            Ingredients(source=source, variants=("shallow", "thin")),
            bundle,
            name=name,
            licence=None,
            progress=lambda _stage, _fraction: None,
        )
    return Bundle.open(bundle, hash_cache=work / "hashes.json")


def pocket_checkpoint(folder: Path) -> None:
    """Write the shipped model as a diffusers folder."""
    from export.reference import load_torch_pipeline

    load_torch_pipeline(POCKET).save_pretrained(folder)


def sd15_checkpoint(folder: Path) -> None:
    """Write SD 1.5's architecture with random weights as a diffusers folder."""
    from export.architectures import SD15, write_random_checkpoint

    write_random_checkpoint(folder, SD15, seed=0)


def with_defaults(bundle: Bundle, **defaults: Any) -> Bundle:
    """Give the bundle with other defaults, which presets take their steps of."""
    changed = replace(bundle.manifest.defaults, **defaults)
    return replace(bundle, manifest=replace(bundle.manifest, defaults=changed))


def ways(bundle: Bundle) -> dict[str, dict[str, Any]]:
    """Name the ways to draw and give their fields; presets also as without the pair of graphs."""
    manifest = bundle.manifest
    graphs = {k: v for k, v in manifest.components.items() if k not in {UNET_DEEP, UNET_SHALLOW}}
    plain = replace(manifest, components=graphs)
    presets = {
        f"{name}{suffix}": preset(name, of)
        for suffix, of in (("", manifest), (", without the pair", plain))
        for name in PRESETS
    }
    return {EXACT: {}, **presets, **LEVERS}


def report(drawn: Mapping[str, Way], *, pictures: bool) -> dict[str, Any]:
    """Give for each way its seconds a picture, how much faster it is than the exact path, and with
    `pictures` how like: mean and worst PSNR (dB) and SSIM.
    """
    exact = drawn[EXACT]
    found: dict[str, Any] = {}
    for name, way in drawn.items():
        row: dict[str, Any] = {
            "fields": way.fields,
            "seconds a picture": summary(way.seconds),
            # of each round, so that what disturbs the machine disturbs both sides
            "times faster": round(
                median(a / b for a, b in zip(exact.seconds, way.seconds, strict=True)), 3
            ),
        }
        if pictures and way is not exact:
            pairs = list(zip(exact.pictures, way.pictures, strict=True))
            decibels = [psnr(*pair) for pair in pairs]
            likeness = [ssim(*pair) for pair in pairs]
            row["psnr"] = {"mean": round(fmean(decibels), 2), "worst": round(min(decibels), 2)}
            row["ssim"] = {"mean": round(fmean(likeness), 4), "worst": round(min(likeness), 4)}
        found[name] = row
    return found


def measured(
    bundle: Bundle, cache: Path, names: Collection[str], *, rounds: int, warmup: int, shared: bool
) -> dict[str, Way]:
    """Draw in the ways of these names in turn. Loading is not in the time, nor are the first
    `warmup` pictures.

    shared: one pipeline for all, which holds one shape of a network at a time: memory is that of a
    user then, and each picture comes after a load. Else each way has a warm one of its own.
    """
    choice = choose("cpu", "auto", cache)
    one = Pipeline(bundle, choice)
    drawn = {
        name: Way(one if shared else Pipeline(bundle, choice), bundle, fields)
        for name, fields in ways(bundle).items()
        if name in names
    }
    interleave(drawn, rounds=rounds, warmup=warmup)
    for way in drawn.values():
        del way.seconds[:warmup], way.pictures[:warmup]
    return drawn


def main() -> None:
    """Measure and save benchmarks/results/speed.json, or speed-sd15.json."""
    work = Path(sys.argv[1]).absolute()
    work.mkdir(parents=True, exist_ok=True)
    sd15 = "--sd15" in sys.argv[2:]
    if sd15:
        bundle = with_defaults(pair_of(work, "sd15-graphs", sd15_checkpoint), steps=STEPS)
        cache, names = work / "cache", (EXACT, *PRESETS, "kv_downsampling 2")
        drawn = measured(bundle, cache, names, rounds=ROUNDS_SD15, warmup=0, shared=True)
        name, scenario = "speed-sd15", "SD 1.5 architecture, random weights, 512x512"
    else:
        shipped = Bundle.open(POCKET, hash_cache=None).manifest.defaults
        bundle = with_defaults(pair_of(work, "pocket-graphs", pocket_checkpoint), **asdict(shipped))
        cache, names = work / "cache", ways(bundle)
        drawn = measured(bundle, cache, names, rounds=ROUNDS, warmup=WARMUP, shared=False)
        name, scenario = "speed", "pocket 128x128"
    results = report(drawn, pictures=not sd15)
    path = save(name, f"{scenario}, {STEPS} steps, guidance: presets and levers", results)
    sys.stdout.write(f"{path}\n")
    for each, row in results.items():
        like = f"  {row['psnr']['mean']:6.2f} dB" if "psnr" in row else ""
        sys.stdout.write(f"{each:32}{row['times faster']:6.2f}x{like}\n")


if __name__ == "__main__":
    main()
