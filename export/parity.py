"""Measures how far the exported graphs are from the torch checkpoint. Runs in a process of its own.

One component is in memory at a time: first all references by torch, then each runtime. The
reference is loaded by the libraries' own from_pretrained, so a mistake in our reading of the
weights shows as well. Inputs are fixed; no prompt is used.
"""

import gc
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from numpy.typing import NDArray
from torch import nn
from transformers import CLIPTextModel

from engine.manifest import LatentRgb, Measure
from export.preview import fit_latent_rgb
from export.runtimes import Run, installed, open_component
from export.source import Checkpoint
from export.weights import MODEL_NAME

__all__ = ["measure_bundle"]

Array = NDArray[np.float32]
Progress = Callable[[str, float], None]
STEPS = 4
GUIDANCE = 5.0  # enough that an error in the difference of the two halves is seen
PSNR_CAP = 200.0  # dB; what equal arrays get, since JSON has no infinity


def measure_bundle(
    checkpoint: Checkpoint, folder: Path, progress: Progress
) -> tuple[tuple[Measure, ...], LatentRgb]:
    """Compare every component, a short guided trajectory and its picture with torch."""
    runtimes = installed()
    total = 4 * (1 + len(runtimes))
    done = 0

    def step(label: str) -> None:
        nonlocal done
        progress(label, done / total)
        done += 1

    inputs = _fixed_inputs(checkpoint)
    reference, rgb = _follow(
        lambda part: _torch_run(checkpoint, part), checkpoint, inputs, lambda p: step(f"torch {p}")
    )
    measures: list[Measure] = []
    for runtime in runtimes:
        results, _ = _follow(
            lambda part, runtime=runtime: open_component(runtime, folder / part / MODEL_NAME),
            checkpoint,
            inputs,
            lambda p, runtime=runtime: step(f"{runtime} {p}"),
        )
        measures += [
            _compare(subject, runtime, results[subject], reference[subject])
            for subject in reference
        ]
    return tuple(measures), rgb


def _fixed_inputs(checkpoint: Checkpoint) -> dict[str, Array]:
    sizes = checkpoint.sizes
    draw = np.random.default_rng(20)
    # Odd and not square: sizes that a graph with a frozen shape would not take.
    side = min(sizes["latent_side"], 32)
    text = checkpoint.configs["text_encoder"]
    ids = draw.integers(0, int(str(text["vocab_size"])) - 2, (2, sizes["token_limit"]))
    # CLIP looks for the highest id as the end of the text.
    ids[:, sizes["token_limit"] // 2 :] = int(str(text["vocab_size"])) - 1
    normal = lambda *shape: draw.standard_normal(shape, dtype=np.float32)  # noqa: E731
    return {
        "ids": ids,
        "sample": normal(2, 4, side - 1, side + 2),
        "noise": normal(1, 4, side, side),
        "picture": np.tanh(normal(1, 3, 8 * side, 8 * side + 8)),
    }


def _follow(
    open_part: Callable[[str], Run],
    checkpoint: Checkpoint,
    inputs: Mapping[str, Array],
    step: Callable[[str], None],
) -> tuple[dict[str, Array], LatentRgb]:
    """Run the whole chain on fixed inputs, one component in memory at a time."""
    results: dict[str, Array] = {}
    scaling = float(str(checkpoint.configs["vae"].get("scaling_factor", 0.18215)))
    step("text_encoder")
    run = open_part("text_encoder")
    embeds = results["text_encoder"] = run({"input_ids": inputs["ids"]})
    step("unet")
    run = _released(run) or open_part("unet")
    results["unet"] = run(
        {
            "sample": inputs["sample"],
            "timestep": np.array(481.5, np.float32),
            "encoder_hidden_states": embeds,
        }
    )
    latents = _trajectory(run, checkpoint, inputs["noise"], embeds)
    results["trajectory"] = latents
    step("vae_decoder")
    run = _released(run) or open_part("vae_decoder")
    results["vae_decoder"] = run({"latent_sample": inputs["sample"]})
    results["picture"] = np.clip(run({"latent_sample": latents / scaling}) / 2 + 0.5, 0, 1)
    rgb = fit_latent_rgb(lambda x: run({"latent_sample": x / scaling}), latents)
    step("vae_encoder")
    run = _released(run) or open_part("vae_encoder")
    results["vae_encoder"] = run({"sample": inputs["picture"]})
    return results, rgb


def _released(run: Run) -> None:
    del run
    gc.collect()


def _trajectory(run: Run, checkpoint: Checkpoint, noise: Array, embeds: Array) -> Array:
    """Take a few guided DDIM steps with the checkpoint's own noise schedule."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scheduler = DDIMScheduler.from_config(dict(checkpoint.configs["scheduler"]))
    scheduler.set_timesteps(STEPS)
    x = torch.from_numpy(noise)
    for timestep in scheduler.timesteps:
        both = run(
            {
                "sample": np.concatenate([x.numpy()] * 2),
                "timestep": np.array(timestep, np.float32),
                "encoder_hidden_states": embeds,
            }
        )
        empty, full = both[:1], both[1:]
        guided = torch.from_numpy(empty + GUIDANCE * (full - empty))
        x = scheduler.step(guided, timestep, x).prev_sample
    return x.numpy()


def _torch_run(checkpoint: Checkpoint, part: str) -> Run:
    """Load one component by its library and wrap it as a function of named arrays."""
    call = {
        "text_encoder": lambda net, x: net(x["input_ids"]).last_hidden_state,
        "unet": lambda net, x: net(x["sample"], x["timestep"], x["encoder_hidden_states"]).sample,
        "vae_decoder": lambda net, x: net.decode(x["latent_sample"]).sample,
        "vae_encoder": lambda net, x: net.encode(x["sample"]).latent_dist.parameters,
    }[part]
    net = _load(checkpoint, "vae" if part.startswith("vae") else part)

    def run(inputs: Mapping[str, NDArray[np.generic]]) -> Array:
        tensors = {name: torch.from_numpy(np.asarray(value)) for name, value in inputs.items()}
        with torch.inference_mode():
            return call(net, tensors).numpy()

    return run


def _load(checkpoint: Checkpoint, folder: str) -> nn.Module:
    maker = {"text_encoder": CLIPTextModel, "unet": UNet2DConditionModel, "vae": AutoencoderKL}[
        folder
    ]
    kind = "dtype" if maker is CLIPTextModel else "torch_dtype"
    files = {tensor.file.name for tensor in checkpoint.tensors[folder].values()}
    variant = "fp16" if any(".fp16." in name for name in files) else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = maker.from_pretrained(
            checkpoint.folder / folder,
            use_safetensors=True,
            local_files_only=True,
            variant=variant,
            **{kind: torch.float32},
        )
    return net.eval()


def _compare(subject: str, runtime: str, got: Array, wanted: Array) -> Measure:
    error = np.abs(got.astype(np.float64) - wanted)
    peak = max(1.0, float(np.abs(wanted).max()))
    span = float(np.ptp(wanted)) or 1.0
    norm = float(np.linalg.norm(got) * np.linalg.norm(wanted)) or 1.0
    noise = float(np.sqrt(np.mean(error**2)))
    psnr = PSNR_CAP if noise == 0 else min(PSNR_CAP, 20 * np.log10(span / noise))
    return Measure(
        subject=subject,
        runtime=runtime,
        max_abs=float(error.max()) / peak,
        mean_abs=float(error.mean()) / peak,
        cosine=float(np.vdot(got, wanted)) / norm,
        psnr=float(psnr),
    )
