"""Stable Diffusion 1.5's architecture, random weights, 512x512, guidance: steps, decode, picture.

usage: python -m benchmarks.sd15 WORK [--compile]   (a folder for checkpoint and bundle: 5 GB, kept)

"stock" is the same graph in OpenVINO alone, static shapes, without our rewrites and kernels.
Where the processor has no bf16 all is measured in fp32, and saved as sd15-fp32.json.
--compile: diffusers under torch.compile as well, which compiles for over a minute.
"""

import argparse
import gc
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import interleave, save, summary
from engine import Bundle, Event, Picture, Pipeline, Step, choose
from engine.backends import Session
from engine.backends.openvino import runtime

__all__ = ["main"]

ROUNDS = 7
WARMUP = 1
STEPS = 20  # of a whole picture
SIDE = 512
SHAPES = ([2, 4, SIDE // 8, SIDE // 8], [], [2, 77, 768])  # sample, timestep, prompt embeddings
LATENTS = (1, 4, SIDE // 8, SIDE // 8)
HINTS = {"fp32": "f32", "bf16": "bf16"}


def prepared(work: Path) -> Bundle:
    """Give the bundle in `work`, made there first if need be."""
    from export import Ingredients, export_checkpoint
    from export.architectures import SD15, write_random_checkpoint

    bundle = work / "sd15-random"
    if not bundle.exists():
        checkpoint = work / "checkpoint"
        write_random_checkpoint(checkpoint, SD15, seed=0)
        export_checkpoint(
            Ingredients(source=checkpoint),
            bundle,
            name="sd15-random",
            licence=None,
            progress=lambda _s, _f: None,
        )
    return Bundle.open(bundle, hash_cache=work / "hashes.json")


def steps_of(bundle: Bundle, device: str, precision: str, cache: Path) -> Callable[[], Event]:
    """Give a call that makes one more step of a picture: the pipeline as everybody runs it."""
    pipeline = Pipeline(bundle, choose(device, precision, cache))
    pipeline.load(SIDE, SIDE)
    events: Iterator[Event] = pipeline.generate(
        bundle.request(prompt="a lighthouse", seed=1, steps=ROUNDS + WARMUP + 1)
    )

    def run() -> Event:
        event = next(events)
        if not isinstance(event, Step):
            raise TypeError("the picture ended before the measurement did")
        return event

    return run


def stock(bundle: Bundle, component: str, hint: str) -> Any:
    """Give an infer request of the same graph in OpenVINO alone, at the same static shapes."""
    core = runtime().Core()
    model = core.read_model(bundle.model(component))
    shapes = SHAPES if component == "unet" else (list(LATENTS),)
    model.reshape(dict(zip(model.inputs, shapes, strict=True)))
    options = {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY"}
    request = core.compile_model(model, "CPU", options).create_infer_request()
    for tensor in request.input_tensors:
        fixed = draw(tensor.data.shape)
        tensor.data[...] = fixed if tensor.data.ndim else 500
    return request


def ours(bundle: Bundle, component: str, cache: Path) -> tuple[Session, dict[str, NDArray[Any]]]:
    """Give the engine's session of a component, and the inputs that `stock` has."""
    inputs: dict[str, NDArray[Any]] = {"latent_sample": draw(LATENTS)}
    if component == "unet":
        sample, _, embeds = SHAPES
        inputs = {
            "sample": draw(sample),
            "timestep": np.array(500),
            "encoder_hidden_states": draw(embeds),
        }
    shapes = {name: each.shape for name, each in inputs.items()}
    backend = choose("openvino", "auto", cache).backend
    identity = f"{bundle.hash}/{component}"
    return backend.load(bundle.model(component), shapes, identity=identity), inputs


def draw(shape: Any) -> NDArray[Any]:
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def errors(bundle: Bundle, component: str, cache: Path) -> dict[str, float]:
    """Give the error in bf16, ours and stock's, against f32: norms, relative."""

    def of_stock(hint: str) -> NDArray[Any]:
        request = stock(bundle, component, hint)
        request.infer()
        return request.get_output_tensor(0).data.astype(np.float64)

    exact = of_stock("f32")
    gc.collect()
    session, inputs = ours(bundle, component, cache)
    found = {"safelight": session.run(inputs).astype(np.float64), "stock": of_stock("bf16")}
    size = np.linalg.norm(exact)
    return {name: round(float(np.linalg.norm(v - exact) / size), 5) for name, v in found.items()}


def decodes(bundle: Bundle, cache: Path, hint: str) -> dict[str, list[float]]:
    """Time the decoder, ours and stock, in turn."""
    session, inputs = ours(bundle, "vae_decoder", cache)
    request = stock(bundle, "vae_decoder", hint)
    calls = {"stock": request.infer, "safelight": lambda: session.run(inputs)}
    return interleave(calls, rounds=ROUNDS, warmup=WARMUP)


def picture(work: Path, steps: int = STEPS) -> dict[str, Any]:
    """Start, draw one picture and another; for a process of its own.

    The graphs must be compiled already: what is measured is a second start.
    """
    start = time.perf_counter()
    bundle = Bundle.open(work / "sd15-random", hash_cache=work / "hashes.json")
    pipeline = Pipeline(bundle, choose("openvino", "auto", work / "cache"))
    request = bundle.request(prompt="a lighthouse", seed=1, steps=steps)
    first, walls, parts = 0.0, [], []
    for number in range(2):
        began = time.perf_counter()
        taken: list[float] = []
        for event in pipeline.generate(request):
            if isinstance(event, Step):
                first = first or time.perf_counter() - start - event.seconds
                taken.append(event.seconds)
            elif isinstance(event, Picture) and number:
                parts.append(sum(taken) + event.seconds.text + event.seconds.decode)
        walls.append(time.perf_counter() - began)
    return {
        "seconds from start to first step": round(first, 3),
        "seconds of a warm picture": round(walls[1], 3),
        "whole picture / its parts": round(walls[1] / parts[0], 4),
        "peak_rss_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
    }


def torch_step(work: Path, precision: str, *, compiled: bool) -> Callable[[], object]:
    """Give a call of diffusers' UNet, channels_last, without gradients."""
    import torch
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    unet: Any = UNet2DConditionModel.from_pretrained(
        work / "checkpoint" / "unet", torch_dtype=dtype, local_files_only=True
    )
    unet = unet.to(memory_format=torch.channels_last).eval()
    unet = torch.compile(unet) if compiled else unet
    sample, _, embeds = (torch.randn(shape, dtype=dtype) for shape in SHAPES)
    sample = sample.to(memory_format=torch.channels_last)

    def run() -> object:
        with torch.inference_mode():
            return unet(sample, 500, embeds)

    return run


def steps(bundle: Bundle, work: Path, *, compiled: bool) -> dict[str, list[float]]:
    """Time a guided step in turn: ours and everybody's, or ours and torch.compile's."""
    cache = work / "cache"
    precision = choose("cpu", "auto", cache).backend.precision
    calls: dict[str, Callable[[], object]] = {
        f"safelight openvino {precision}": steps_of(bundle, "openvino", "auto", cache)
    }
    if compiled:
        name = f"diffusers torch {precision} torch.compile"
        calls[name] = torch_step(work, precision, compiled=True)
    else:
        calls |= {
            f"stock openvino {precision}": stock(bundle, "unet", HINTS[precision]).infer,
            "safelight onnxruntime fp32": steps_of(bundle, "onnxruntime", "fp32", cache),
            f"diffusers torch {precision} channels_last": torch_step(
                work, precision, compiled=False
            ),
        }
    return interleave(calls, rounds=ROUNDS, warmup=WARMUP)


def part(name: str, work: Path) -> Any:
    """Measure one part; each has a process of its own, since a network is held several times."""
    bundle, cache = prepared(work), work / "cache"
    precision = choose("cpu", "auto", cache).backend.precision
    parts: dict[str, Callable[[], Any]] = {
        "steps": lambda: steps(bundle, work, compiled=False),
        "compiled": lambda: steps(bundle, work, compiled=True),
        "decodes": lambda: decodes(bundle, cache, HINTS[precision]),
        "unet": lambda: errors(bundle, "unet", cache),
        "vae_decoder": lambda: errors(bundle, "vae_decoder", cache),
        "start": lambda: picture(work, steps=1),
        "picture": lambda: picture(work),
    }
    return parts[name]()


def main() -> None:
    """Measure and save benchmarks/results/sd15.json, or sd15-fp32.json."""
    parser = argparse.ArgumentParser(prog="benchmarks.sd15")
    parser.add_argument("work", type=Path)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    options = parser.parse_args()
    work: Path = options.work.absolute()
    if options.part:
        sys.stdout.write(json.dumps(part(options.part, work)))
        return
    work.mkdir(parents=True, exist_ok=True)
    prepared(work)
    precision = choose("cpu", "auto", work / "cache").backend.precision
    medians = {name: summary(times) for name, times in _alone("steps", work).items()}
    decoded = {name: summary(times) for name, times in _alone("decodes", work).items()}
    wrong = ("unet", "vae_decoder") if precision == "bf16" else ()
    found = {name: _alone(name, work) for name in wrong}
    _alone("start", work)  # compiles what is not there
    alone = _alone("picture", work)
    mine, *others = medians
    ratios = {f"{each} / {mine}": _ratio(medians, each, mine) for each in others}
    results: dict[str, Any] = {
        "seconds a guided step": medians,
        "seconds a decode": decoded,
        "error against f32": found,
        f"one picture of {STEPS} steps, second start": alone,
    }
    if options.compile:
        pair = {name: summary(times) for name, times in _alone("compiled", work).items()}
        results["seconds a guided step, beside torch.compile"] = pair
        ratios |= {f"{each} / {mine}": _ratio(pair, each, mine) for each in pair if each != mine}
    results["ratios"] = ratios | {"decode, stock / safelight": _ratio(decoded, *decoded)}
    file = "sd15" if precision == "bf16" else f"sd15-{precision}"
    path = save(file, f"SD 1.5 architecture, random weights, {SIDE}x{SIDE}, guidance", results)
    sys.stdout.write(f"{path}\n{json.dumps(results, indent=1)}\n")


def _alone(name: str, work: Path) -> Any:
    sys.stderr.write(f"{name}\n")
    command = [sys.executable, "-m", "benchmarks.sd15", str(work), "--part", name]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)


def _ratio(medians: dict[str, Any], above: str, below: str) -> float:
    return round(float(medians[above]["median"]) / float(medians[below]["median"]), 3)


if __name__ == "__main__":
    main()
