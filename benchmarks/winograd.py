"""Convolutions in fp32 by our kernel: Stable Diffusion 1.5's step and decode at 512x512, guidance.

usage: python -m benchmarks.winograd WORK   (a folder for checkpoint and bundle: 5 GB, kept)

"stock" is the same graph in OpenVINO alone, "no kernels" is ours where there was no C compiler.
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.measure import interleave, save, summary
from benchmarks.sd15 import LATENTS, SHAPES, draw, prepared, stock
from engine import Bundle
from engine.backends.openvino import OpenVinoBackend
from engine.kernels import library

ROUNDS = 5


def session(bundle: Bundle, component: str) -> Callable[[], object]:
    """Give a call of the engine's session; of a unet's, with one row of the picture."""
    inputs = {"latent_sample": draw(LATENTS)}
    if component == "unet":
        inputs = {"sample": draw(LATENTS), "encoder_hidden_states": draw(SHAPES[2])}
        inputs["timestep"] = draw(())
    shapes = {name: each.shape for name, each in inputs.items()}
    loaded = OpenVinoBackend("fp32", None).load(bundle.model(component), shapes)
    return lambda: loaded.run(inputs)


def main() -> None:
    """Measure and save benchmarks/results/winograd.json."""
    parser = argparse.ArgumentParser(prog="benchmarks.winograd")
    parser.add_argument("work", type=Path)
    work: Path = parser.parse_args().work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    bundle, results = prepared(work), {}
    there = library.FILE
    for component, what in (("unet", "a guided step"), ("vae_decoder", "a decode")):
        calls = {
            "stock openvino fp32": stock(bundle, component, "f32").infer,
            "safelight fp32": session(bundle, component),
        }
        library.FILE = there.with_name("none.so")  # pyright: ignore[reportConstantRedefinition]
        calls["safelight fp32, no kernels"] = session(bundle, component)
        library.FILE = there  # pyright: ignore[reportConstantRedefinition]
        times = interleave(calls, rounds=ROUNDS, warmup=1)
        found = {name: summary(each) for name, each in times.items()}
        mine = found["safelight fp32"]["median"]
        results[f"seconds {what}"] = found
        results[f"ratios of {what}"] = {
            f"{name} / safelight fp32": round(each["median"] / mine, 3)
            for name, each in found.items()
            if name != "safelight fp32"
        }
    path = save("winograd", "SD 1.5 architecture, random weights, 512x512, guidance", results)
    sys.stdout.write(f"{path}\n{json.dumps(results, indent=1)}\n")


if __name__ == "__main__":
    main()
