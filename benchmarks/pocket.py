"""`pocket`, 20 steps, guidance, one warm picture: ours, its raw parts in OpenVINO, and diffusers.

usage: python -m benchmarks.pocket
"""

import sys
import tempfile  # noqa: TID251 - an empty model cache, no plaintext
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import interleave, save, summary
from engine import Bundle, Picture, Pipeline, choose
from engine.backends.openvino import runtime

__all__ = ["main"]

STEPS = 20
ROUNDS = 15
PROMPT = "red apple"
BUNDLE = Path(__file__).parents[1] / "safelight" / "models" / "pocket"


def raw_parts(bundle: Bundle, precision: str) -> Callable[[], None]:
    """Give the same network calls and nothing else: 20 UNet, 2 text, 1 decoder, at fixed inputs."""
    core = runtime().Core()
    options = {
        "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[precision],
        "PERFORMANCE_HINT": "LATENCY",
    }
    width = bundle.manifest.default_width // 8
    shapes = {
        "text_encoder": [[1, bundle.manifest.token_limit]],
        "unet": [
            [2, 4, width, width],
            None,
            [2, bundle.manifest.token_limit, bundle.manifest.embed_dim],
        ],
        "vae_decoder": [[1, 4, width, width]],
    }
    requests = {}
    for name, wanted in shapes.items():
        model = core.read_model(bundle.model(name))
        given = {
            port: shape if shape is not None else []
            for port, shape in zip(model.inputs, wanted, strict=True)
        }
        model.reshape(given)
        request = core.compile_model(model, "CPU", options).create_infer_request()
        for port, tensor in zip(model.inputs, request.input_tensors, strict=True):
            kind = port.get_element_type()
            tensor.data[...] = 1 if kind.is_integral() else np.full(tensor.data.shape, 0.5)
        requests[name] = request

    def run() -> None:
        requests["text_encoder"].infer()
        requests["text_encoder"].infer()
        for _ in range(STEPS):
            requests["unet"].infer()
        requests["vae_decoder"].infer()

    return run


def ours(bundle: Bundle, precision: str, device: str = "cpu") -> Callable[[], Picture]:
    """Give a call that makes one whole picture with a warm pipeline and an uncached prompt."""
    # The folder outlives the pipeline: the process removes it when it ends.
    cache = Path(tempfile.mkdtemp())
    pipeline = Pipeline(bundle, choose(device, precision, cache))
    number = iter(range(10**6))

    def run() -> Picture:
        request = bundle.request(prompt=f"{PROMPT} {next(number)}", seed=1, steps=STEPS)
        *_, picture = pipeline.generate(request)
        if not isinstance(picture, Picture):
            raise TypeError("the last event is not a picture")
        return picture

    return run


def diffusers_call(bundle: Bundle) -> Callable[[], object]:
    """Give diffusers' own pipeline on the same weights, scheduler, steps and guidance, fp32."""
    import torch

    from export.reference import load_torch_pipeline

    pipe = load_torch_pipeline(bundle.path)
    pipe.set_progress_bar_config(disable=True)
    guidance = bundle.request(prompt="", seed=1).guidance_scale

    def run() -> object:
        generator = torch.Generator("cpu").manual_seed(1)
        side = bundle.manifest.default_width
        return pipe(
            PROMPT,
            num_inference_steps=STEPS,
            guidance_scale=guidance,
            generator=generator,
            height=side,
            width=side,
        )

    return run


def main() -> None:
    """Measure and save benchmarks/results/pocket.json."""
    bundle = Bundle.open(BUNDLE, hash_cache=None)
    precision = choose("cpu", "auto", Path(tempfile.mkdtemp())).backend.precision
    calls: dict[str, Callable[[], object]] = {
        f"safelight openvino {precision}": ours(bundle, precision),
        f"raw openvino {precision}": raw_parts(bundle, precision),
        "safelight onnxruntime fp32": ours(bundle, "fp32", "onnxruntime"),
        "diffusers torch fp32": diffusers_call(bundle),
    }
    times = interleave(calls, rounds=ROUNDS)
    medians = {name: summary(each) for name, each in times.items()}
    mine, raw, _, torch_time = (float(each["median"]) for each in medians.values())
    results: dict[str, Any] = {
        "seconds a picture": medians,
        "ratios": {
            "safelight / raw parts": round(mine / raw, 3),
            "diffusers / safelight": round(torch_time / mine, 3),
        },
    }
    path = save("pocket", f"pocket 128x128, {STEPS} steps, guidance, one warm picture", results)
    sys.stdout.write(f"{path}\n{results}\n")


if __name__ == "__main__":
    main()
