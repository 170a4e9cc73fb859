"""Stable Diffusion 1.5's architecture, random weights, 512x512, guidance: seconds a step.

usage: python -m benchmarks.sd15 WORK   (a folder for checkpoint and bundle: 5 GB, kept)
"""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import interleave, save, summary
from engine import Bundle, Event, Pipeline, Step, choose
from engine.backends.openvino import runtime

__all__ = ["main"]

ROUNDS = 5
WARMUP = 1
SIDE = 512
SHAPES = ([2, 4, SIDE // 8, SIDE // 8], [], [2, 77, 768])  # sample, timestep, prompt embeddings


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


def raw(bundle: Bundle, precision: str, cache: Path) -> Callable[[], None]:
    """Give a call of the same graph in OpenVINO alone, at the same static shapes."""
    core = runtime().Core()
    model = core.read_model(bundle.model("unet"))
    model.reshape(dict(zip(model.inputs, SHAPES, strict=True)))
    options = {
        "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[precision],
        "PERFORMANCE_HINT": "LATENCY",
        "CACHE_DIR": str(cache / "raw"),
    }
    request = core.compile_model(model, "CPU", options).create_infer_request()
    draw = np.random.default_rng(0)
    for tensor in request.input_tensors:
        tensor.data[...] = draw.standard_normal(tensor.data.shape) if tensor.data.ndim else 500

    def run() -> None:
        request.infer()

    return run


def torch_step(work: Path) -> Callable[[], object]:
    """Give a call of diffusers' UNet in bf16, channels_last, without gradients."""
    import torch
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    unet: Any = UNet2DConditionModel.from_pretrained(
        work / "checkpoint" / "unet", torch_dtype=torch.bfloat16, local_files_only=True
    )
    unet = unet.to(memory_format=torch.channels_last).eval()
    sample, _, embeds = (torch.randn(shape, dtype=torch.bfloat16) for shape in SHAPES)
    sample = sample.to(memory_format=torch.channels_last)

    def run() -> object:
        with torch.inference_mode():
            return unet(sample, 500, embeds)

    return run


def main() -> None:
    """Measure and save benchmarks/results/sd15.json."""
    work = Path(sys.argv[1]).absolute()
    work.mkdir(parents=True, exist_ok=True)
    bundle, cache = prepared(work), work / "cache"
    precision = choose("cpu", "auto", cache).backend.precision
    calls: dict[str, Callable[[], object]] = {
        f"safelight openvino {precision}": steps_of(bundle, "openvino", "auto", cache),
        f"raw openvino {precision}": raw(bundle, precision, cache),
        "safelight onnxruntime fp32": steps_of(bundle, "onnxruntime", "fp32", cache),
        "diffusers torch bf16 channels_last": torch_step(work),
    }
    medians = {
        name: summary(times)
        for name, times in interleave(calls, rounds=ROUNDS, warmup=WARMUP).items()
    }
    mine, plain, ort, torch_bf16 = (float(each["median"]) for each in medians.values())
    results: dict[str, Any] = {
        "seconds a guided step": medians,
        "ratios": {
            "safelight openvino / raw openvino": round(mine / plain, 3),
            "onnxruntime fp32 / safelight openvino": round(ort / mine, 3),
            "diffusers bf16 / safelight openvino": round(torch_bf16 / mine, 3),
        },
    }
    path = save("sd15", f"SD 1.5 architecture, random weights, {SIDE}x{SIDE}, guidance", results)
    sys.stdout.write(f"{path}\n{results}\n")


if __name__ == "__main__":
    main()
