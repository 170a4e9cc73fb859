"""What each precision that the processor computes in wins and costs, on `pocket`.

usage: python -m benchmarks.precisions WORK   (WORK: a folder for the int8 form, kept)

PSNR and SSIM are against the picture of the same prompt and seed in fp32; times are of the
denoising, in turn. int8 is measured where NNCF is installed: `pip install 'safelight[int8]'`.
"""

import sys
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from itertools import cycle
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.likeness import psnr, ssim
from benchmarks.measure import interleave, save, summary
from engine import Bundle, Picture, Pipeline
from engine.backends.openvino import OpenVinoBackend

__all__ = ["main", "report"]

ROUNDS, WARMUP = 12, 1
STEPS = 20
PROMPTS = ("red apple", "snowman", "blue cat face", "rocket", "octopus", "guitar")
POCKET = Path(__file__).parents[1] / "safelight" / "models" / "pocket"
EXACT = "fp32"
# A precision -> what the processor must list.
CAPABILITIES = {EXACT: "FP32", "bf16": "BF16", "fp16": "FP16"}


class Way:
    """One precision: each call draws the next prompt and seed, the same for every way."""

    def __init__(self, bundle: Bundle, backend: OpenVinoBackend) -> None:
        self._bundle = bundle
        self._pipeline = Pipeline(bundle, backend)
        self._next: Iterator[tuple[int, str]] = enumerate(cycle(PROMPTS))
        self.pictures: list[NDArray[np.uint8]] = []
        self.steps: list[float] = []
        self.decodes: list[float] = []
        self.repairs = 0

    def __call__(self) -> None:
        """Draw one picture; keep it, and the seconds of a step and of decoding."""
        seed, prompt = next(self._next)
        request = self._bundle.request(prompt=prompt, seed=seed, steps=STEPS)
        *_, picture = self._pipeline.generate(request)
        if not isinstance(picture, Picture):
            raise TypeError("the last event is not a picture")
        self.pictures.append(picture.pixels)
        self.steps.append(picture.seconds.denoise / STEPS)
        self.decodes.append(picture.seconds.decode)
        self.repairs += len(picture.repairs)


def backends(bundle: Bundle, cache: Path) -> dict[str, OpenVinoBackend]:
    """Give a back end for each precision that can be had here."""
    known = OpenVinoBackend(EXACT, None).capabilities
    found = {
        name: OpenVinoBackend(name, cache) for name, word in CAPABILITIES.items() if word in known
    }
    if find_spec("nncf") is not None:
        from export.targets.deriving import derive

        derive(bundle, "int8", cache=cache, shapes=(), progress=lambda *_: None)
        found["int8"] = OpenVinoBackend("int8", cache)
    return found


def report(drawn: Mapping[str, Way]) -> dict[str, Any]:
    """Give for each precision its times, how much faster than fp32 it is, and how like."""
    exact = drawn[EXACT]
    found: dict[str, Any] = {}
    for name, way in drawn.items():
        pairs = list(zip(exact.steps, way.steps, strict=True))
        row: dict[str, Any] = {
            "seconds a step": summary(way.steps),
            "seconds to decode": summary(way.decodes),
            "times faster a step": round(median(a / b for a, b in pairs), 3),
            "repairs": way.repairs,
        }
        if way is not exact:
            pictures = list(zip(exact.pictures, way.pictures, strict=True))
            decibels = [psnr(*pair) for pair in pictures]
            likeness = [ssim(*pair) for pair in pictures]
            row["psnr"] = {"mean": round(fmean(decibels), 2), "worst": round(min(decibels), 2)}
            row["ssim"] = {"mean": round(fmean(likeness), 4), "worst": round(min(likeness), 4)}
        found[name] = row
    return found


def main() -> None:
    """Measure, print and keep the result."""
    work = Path(sys.argv[1]).absolute()
    work.mkdir(parents=True, exist_ok=True)
    bundle = Bundle.open(POCKET, hash_cache=None)
    drawn = {
        name: Way(bundle, backend) for name, backend in backends(bundle, work / "cache").items()
    }
    interleave(drawn, rounds=ROUNDS, warmup=WARMUP)
    for way in drawn.values():
        del way.steps[:WARMUP], way.decodes[:WARMUP], way.pictures[:WARMUP]
    results = report(drawn)
    path = save("precisions", f"pocket 128x128, {STEPS} steps, guidance, OpenVINO", results)
    sys.stdout.write(f"{path}\n")
    for name, row in results.items():
        like = f"  {row['psnr']['mean']:6.2f} dB" if "psnr" in row else ""
        sys.stdout.write(f"{name:6}{row['times faster a step']:6.2f}x{like}\n")


if __name__ == "__main__":
    main()
