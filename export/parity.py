"""Measures how far the exported graphs are from the torch checkpoint. Runs in a process of its own.

One component is in memory at a time: first all references by torch, then each runtime. The
reference is loaded by the libraries' own reading, so that a mistake in ours shows as well. Inputs
are fixed; no user's prompt is ever used.
"""

import ctypes
import gc
import math
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import psutil
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from numpy.typing import NDArray

from engine.manifest import LatentRgb, Measure
from engine.textoutputs import penultimate_layer
from engine.tokenizer import Tokenizer
from export.checkpoint import Checkpoint
from export.companion_modules import CALLS as COMPANION_CALLS
from export.companions import COMPANIONS, fixed_input
from export.originals import load_original
from export.part_parity import PART_CALLS, apart, follow_parts
from export.preview import fit_latent_rgb
from export.recipes import Part
from export.runtimes import Run, fitting, installed, open_component
from export.textlayers import is_text, text_results

__all__ = ["called", "compare", "largest_part", "measure_bundle"]

Array = NDArray[np.float32]
Arrays = Mapping[str, NDArray[Any]]
Result = Array | Mapping[str, Array]  # of one output, or of several by name
Opener = Callable[[str], Run]  # component -> a function of its named inputs
Progress = Callable[[str, float], None]
TEXTS = ("", "a red apple on a table")  # without and with guidance's text
STEPS = 4
GUIDANCE = 5.0  # enough that an error in the difference of the two halves is seen
SIDE_LIMIT = 24  # latents; larger pictures cost minutes and prove nothing more
NO_RGB = LatentRgb(factors=((0.0, 0.0, 0.0),) * 4, bias=(0.0, 0.0, 0.0))  # of what draws nothing
PSNR_CAP = 200.0  # dB; what equal arrays get, since JSON has no infinity


def measure_bundle(
    checkpoint: Checkpoint, folder: Path, progress: Progress
) -> tuple[tuple[Measure, ...], LatentRgb]:
    """Compare every component, a short guided trajectory and its picture with torch."""
    runtimes = fitting(installed(), largest_part(checkpoint), psutil.virtual_memory().available)
    parts = [part.name for part in checkpoint.recipe.components]
    stages = [f"{way} {part}" for way in ("torch", *runtimes) for part in parts]

    def told(way: str, opener: Opener) -> Opener:
        def open_part(part: str) -> Run:
            stage = f"{way} {part}"
            progress(stage, stages.index(stage) / len(stages))
            return opener(part)

        return open_part

    inputs = {} if checkpoint.recipe.add_on else _fixed_inputs(checkpoint, folder)
    reference = _follow(
        told("torch", lambda part: _torch_part(checkpoint, part)), checkpoint, inputs
    )
    measures: list[Measure] = []
    for runtime in runtimes:
        opener = told(runtime, _opener(runtime, folder, checkpoint))
        got = _follow(opener, checkpoint, inputs)
        measures += [compare(name, runtime, got[name], reference[name]) for name in reference]
    if checkpoint.recipe.add_on:
        return tuple(measures), NO_RGB
    decode = _opener(runtimes[0], folder, checkpoint)("vae_decoder")
    scaling = np.float32(checkpoint.scaling_factor)
    rgb = fit_latent_rgb(
        lambda x: decode({"latent_sample": x / scaling})["sample"],
        cast("Array", reference["trajectory"]),
    )
    return tuple(measures), rgb


def largest_part(checkpoint: Checkpoint) -> int:
    """Give the bytes in f32 of the part with the most weights."""
    sizes = (
        sum(4 * math.prod(tensor.shape) for tensor in tensors.values())
        for tensors in checkpoint.tensors.values()
    )
    return max(sizes)


def _opener(runtime: str, folder: Path, checkpoint: Checkpoint) -> Opener:
    files = {part.name: part.file for part in checkpoint.recipe.components}
    return lambda part: open_component(runtime, folder / files[part])


def _fixed_inputs(checkpoint: Checkpoint, folder: Path) -> Arrays:
    sizes = checkpoint.sizes
    draw = np.random.default_rng(20)

    def normal(*shape: int) -> Array:
        return draw.standard_normal(shape, dtype=np.float32)

    ids: dict[str, NDArray[Any]] = {}
    for part in _text_encoders(checkpoint):
        where = folder / part.replace("text_encoder", "tokenizer")
        tokenizer = Tokenizer(where, limit=sizes["token_limit"])
        ids[part] = np.concatenate([tokenizer.encode(text)[:1] for text in TEXTS])
    side = min(sizes["latent_side"], SIDE_LIMIT)
    return ids | {
        # Odd and not square: sizes that a graph with a frozen shape would not take.
        "sample": normal(2, sizes["unet_channels"], side - 1, side + 2),
        "noise": normal(1, 4, side, side),
        "picture": np.tanh(normal(1, 3, 8 * side, 8 * side + 8)),
        # What an inpainting unet is given beside the latents; of others nothing.
        "beside": normal(1, sizes["unet_channels"] - 4, side, side),
        # An embedded guidance scale is sines and cosines; of networks without one nothing.
        "guidance": np.sin(normal(2, sizes.get("guidance_dim", 0))),
    }


def _text_encoders(checkpoint: Checkpoint) -> list[str]:
    return [part.name for part in checkpoint.recipe.components if is_text(part)]


def _follow(open_part: Opener, checkpoint: Checkpoint, inputs: Arrays) -> dict[str, Result]:
    """Run the whole chain on the fixed inputs, one component in memory at a time."""
    more = [part for part in checkpoint.recipe.components if apart(part)]
    if checkpoint.recipe.add_on:
        return {**follow_parts(open_part, more, checkpoint.sizes, _let_go)}
    results, text = _encode(open_part, checkpoint, inputs)
    run = _let_go() or open_part("unet")
    (results["unet"],) = run(_unet_inputs(inputs["sample"], 481.5, text)).values()
    latents = results["trajectory"] = _trajectory(run, checkpoint, inputs, text)
    del run
    run = _let_go() or open_part("vae_decoder")
    (results["vae_decoder"],) = run({"latent_sample": inputs["sample"][:, :4]}).values()
    scaled = latents / np.float32(checkpoint.scaling_factor)
    (picture,) = run({"latent_sample": scaled}).values()
    results["picture"] = np.clip(picture / 2 + 0.5, 0, 1, dtype=np.float32)
    del run
    run = _let_go() or open_part("vae_encoder")
    (results["vae_encoder"],) = run({"sample": inputs["picture"]}).values()
    del run
    results |= _companions(open_part, checkpoint)
    return results | follow_parts(open_part, more, checkpoint.sizes, _let_go)


def _companions(open_part: Opener, checkpoint: Checkpoint) -> dict[str, Array]:
    """Run what the bundle holds beside its family's components."""
    results: dict[str, Array] = {}
    side = min(checkpoint.sizes["latent_side"], SIDE_LIMIT)
    for part in checkpoint.recipe.components:
        if part not in COMPANIONS:
            continue
        given = fixed_input(part.name, side, checkpoint.sizes.get("clip_side", 0))
        run = _let_go() or open_part(part.name)
        found = run({part.inputs[0].name: given})
        results[part.name] = np.concatenate([array.ravel() for array in found.values()])
        del run
    return results


def _encode(
    open_part: Opener, checkpoint: Checkpoint, inputs: Arrays
) -> tuple[dict[str, Result], dict[str, Array]]:
    """Give each text encoder's results, and what the unet is given of them."""
    results: dict[str, Result] = {}
    text: dict[str, Array] = {}
    hidden: list[Array] = []
    for part in _text_encoders(checkpoint):
        run = _let_go() or open_part(part)
        found = run({"input_ids": inputs[part]})
        del run
        usual = next(name for name, array in found.items() if array.ndim == 3)
        hidden.append(found[penultimate_layer(found) or usual])
        text |= {name: array for name, array in found.items() if array.ndim == 2}
        results[part] = found
    text["encoder_hidden_states"] = np.concatenate(hidden, axis=-1)
    if "text_embeds" in text:
        side = np.float32(8 * checkpoint.sizes["latent_side"])
        time_ids = [side, side, 0, 0, side, side][: checkpoint.sizes["time_ids"]]
        text["time_ids"] = np.array([time_ids] * 2, np.float32)
    if "guidance_dim" in checkpoint.sizes:
        text["timestep_cond"] = inputs["guidance"]
    return results, text


def _let_go() -> None:
    """Give memory back before the next network is loaded."""
    # Modules hold cycles: without a collection two networks would be in memory at once.
    gc.collect()
    if sys.platform == "linux":
        # glibc keeps what was freed in many pieces: 7 GB after SDXL's unet.
        with suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)


def _unet_inputs(sample: Array, timestep: float, text: Mapping[str, Array]) -> Arrays:
    return {"sample": sample, "timestep": np.array(timestep, np.float32), **text}


def _trajectory(
    run: Run, checkpoint: Checkpoint, inputs: Arrays, text: Mapping[str, Array]
) -> Array:
    """Take a few guided DDIM steps with the checkpoint's own noise schedule."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scheduler: Any = DDIMScheduler.from_config(dict(checkpoint.configs["scheduler"]))
    scheduler.set_timesteps(STEPS)
    x = torch.from_numpy(inputs["noise"])
    for timestep in scheduler.timesteps:
        sample = np.concatenate([np.concatenate([x.numpy(), inputs["beside"]], axis=1)] * 2)
        (both,) = run(_unet_inputs(sample, float(timestep), text)).values()
        empty, full = both[:1], both[1:]
        guided = torch.from_numpy(empty + np.float32(GUIDANCE) * (full - empty))
        x = scheduler.step(guided, timestep, x).prev_sample
    return x.numpy()


def _torch_part(checkpoint: Checkpoint, name: str) -> Run:
    """Load one component by its library."""
    part = next(part for part in checkpoint.recipe.components if part.name == name)
    return called(part, load_original(checkpoint, part.folder))


def called(part: Part, net: Any) -> Run:
    """Wrap a library's module as a function from named arrays to the part's named outputs."""
    names = [port.name for port in part.outputs]

    def call_text(net: Any, x: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        return text_results(net, x["input_ids"], names)

    call = call_text if is_text(part) else CALLS[part.module]

    def run(inputs: Arrays) -> dict[str, Array]:
        tensors = {key: torch.from_numpy(np.asarray(value)) for key, value in inputs.items()}
        with torch.inference_mode():
            found = call(net, tensors)
        return {key: each.numpy() for key, each in zip(names, found, strict=True)}

    return run


def _unet(net: Any, x: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
    added = {key: x[key] for key in ("text_embeds", "time_ids") if key in x}
    found = net(
        x["sample"],
        x["timestep"],
        x["encoder_hidden_states"],
        timestep_cond=x.get("timestep_cond"),
        added_cond_kwargs=added or None,
    )
    return (found.sample,)


CALLS: Mapping[str, Callable[[Any, dict[str, torch.Tensor]], tuple[torch.Tensor, ...]]] = {
    "unet": _unet,
    "unet_added": _unet,
    "unet_added_distilled": _unet,
    "unet_distilled": _unet,
    "vae_decoder": lambda net, x: (net.decode(x["latent_sample"]).sample,),
    "vae_encoder": lambda net, x: (net.encode(x["sample"]).latent_dist.parameters,),
    **COMPANION_CALLS,
    **PART_CALLS,
}


def compare(subject: str, runtime: str, got: Result, wanted: Result) -> Measure:
    """Measure one result against the reference; what is not finite counts as infinitely far.

    Of several outputs the worst counts, each held against its own size: an early layer of a text
    encoder is many times larger than the normed last one, whose errors would vanish in its.
    """
    if isinstance(got, Mapping) or isinstance(wanted, Mapping):
        both = cast("Mapping[str, Array]", got), cast("Mapping[str, Array]", wanted)
        return _worst([_compare(subject, runtime, both[0][name], both[1][name]) for name in wanted])
    return _compare(subject, runtime, got, wanted)


def _worst(measures: Sequence[Measure]) -> Measure:
    return replace(
        measures[0],
        max_abs=max(each.max_abs for each in measures),
        mean_abs=max(each.mean_abs for each in measures),
        cosine=min(each.cosine for each in measures),
        psnr=min(each.psnr for each in measures),
    )


def _compare(subject: str, runtime: str, got: Array, wanted: Array) -> Measure:
    if got.shape != wanted.shape or not np.isfinite(got).all():
        return Measure(
            subject=subject, runtime=runtime, max_abs=1e6, mean_abs=1e6, cosine=-1.0, psnr=-1000.0
        )
    exact = wanted.astype(np.float64)
    error = np.abs(got - exact)
    peak = max(1.0, float(np.abs(exact).max()))
    noise = float(np.sqrt(np.mean(error**2)))
    norms = float(np.linalg.norm(got.astype(np.float64)) * np.linalg.norm(exact))
    span = float(np.ptp(exact)) or 1.0
    return Measure(
        subject=subject,
        runtime=runtime,
        max_abs=min(1e6, float(error.max()) / peak),
        mean_abs=min(1e6, float(error.mean()) / peak),
        cosine=float(np.vdot(got.astype(np.float64), exact)) / norms if norms else 1.0,
        psnr=PSNR_CAP if noise == 0 else min(PSNR_CAP, float(20 * np.log10(span / noise))),
    )
