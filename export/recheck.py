"""Repeats the parity gate on a finished bundle, without its checkpoint.

Each graph, in each installed runtime, is compared with the library's own torch module, filled with
the weights that the graph holds. What this finds is a runtime that computes something else here
than where the bundle was made, and a graph whose nodes were changed together with its manifest.
One component is in memory at a time, once.
"""

import gc
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from engine.manifest import Manifest, Measure, read_manifest
from export.child import run_job
from export.companions import COMPANIONS, fixed_input
from export.controlnet import controlnet_part
from export.errors import ExportError, GraphError, ParityError
from export.recipes import Part, recipe_of
from export.runtimes import installed, open_component
from export.textlayers import is_text, lacks_last_layer, with_outputs
from export.thresholds import THRESHOLDS, judge
from export.variants import VARIANTS, variant_parts

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from export.runtimes import Run

__all__ = ["measure_graphs", "missing_for_recheck", "recheck_bundle"]

Progress = Callable[[str, float], None]
NEEDED = ("torch", "diffusers", "transformers", "onnx")
CONFIG_LIMIT = 1 << 20  # bytes of a component's configuration
SIDE_LIMIT = 24  # latents; larger pictures cost minutes and prove nothing more
TEXTS = ("", "a red apple on a table")
DECIDING = ("concept_embeds_weights", "special_care_embeds_weights")  # in no graph: thresholds
BUFFER = "position_ids"
TIMESTEP = 481.5  # between two of training's, where Karras' noise levels are


def missing_for_recheck() -> list[str]:
    """Name the libraries that the gate needs and that are not installed."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    return missing if installed() else [*missing, "onnxruntime or openvino"]


def recheck_bundle(folder: Path, progress: Progress) -> tuple[Measure, ...]:
    """Measure the bundle in `folder` in a child process and judge it by its own precision's bounds.

    progress: called with a stage's name and the done fraction, 0..1. Raises ExportError where
    libraries are missing, ParityError where a graph does not compute what torch computes.
    """
    if missing := missing_for_recheck():
        raise ExportError(
            f"to repeat the parity gate needs {', '.join(missing)}",
            hint="pip install 'safelight[cpu,export]'",
        )
    manifest = read_manifest(folder)
    found = run_job({"task": "recheck", "out": str(folder.absolute())}, progress)
    items = cast("list[dict[str, Any]]", found["measures"])
    measures = tuple(Measure(**item) for item in items)
    bounds = THRESHOLDS[manifest.parity.precision]
    try:
        judge(measures, {name: bounds[name] for name in manifest.components})
    except ParityError as error:
        raise ParityError(
            str(error).replace("the checkpoint computes", "torch computes from its weights"),
            hint="a runtime of another version, or a changed graph: export it again and compare",
        ) from error
    return measures


def measure_graphs(folder: Path, progress: Progress) -> tuple[Measure, ...]:
    """Compare every component of a bundle with torch, in each runtime. Runs in the child."""
    from export.parity import compare
    from export.part_parity import apart, follow_parts

    manifest = read_manifest(folder)
    every = _parts(manifest, folder)
    parts = [part for part in every if not apart(part)]
    runtimes = installed()
    ways = ("torch", *runtimes)
    more = {part.name: part for part in every if apart(part)}
    stages = [f"{way} {part.name}" for part in parts for way in ways]
    stages += [f"{way} {name}" for way in ways for name in more]
    measures: list[Measure] = []
    for part in parts:
        model = folder / manifest.components[part.name].file
        given = _inputs(part, manifest, folder)
        results: dict[str, dict[str, NDArray[np.float32]]] = {}
        for way in ways:
            stage = f"{way} {part.name}"
            progress(stage, stages.index(stage) / len(stages))
            run = _torch_part(part, model) if way == "torch" else open_component(way, model)
            results[way] = run(given)
            del run
            _let_go()
        measures += [compare(part.name, way, results[way], results["torch"]) for way in runtimes]

    def opener(way: str) -> "Callable[[str], Run]":
        def open_part(name: str) -> "Run":
            stage = f"{way} {name}"
            progress(stage, stages.index(stage) / len(stages))
            model = folder / manifest.components[name].file
            if way != "torch":
                return open_component(way, model)
            part = more[name]
            return _torch_part(part, folder / manifest.components[part.home].file)

        return open_part

    found = {
        way: follow_parts(opener(way), more.values(), _sizes(manifest), _let_go) for way in ways
    }
    measures += [
        compare(name, way, found[way][name], found["torch"][name])
        for name in more
        for way in runtimes
    ]
    return tuple(measures)


def _let_go() -> None:
    gc.collect()  # modules hold cycles: two networks would be in memory at once


def _parts(manifest: Manifest, folder: Path) -> list[Part]:
    """Give the parts that the bundle has, those of its own configurations included."""
    if "controlnet" in manifest.components:
        return [controlnet_part(_config(folder, "controlnet"))]
    known = (*recipe_of(manifest.family).components, *COMPANIONS)
    parts = [
        # A text encoder's outputs are those of its bundle: older ones have fewer.
        with_outputs(part, tuple(manifest.components[part.name].outputs)) if is_text(part) else part
        for part in known
        if part.name in manifest.components
    ]
    names = [name for each in VARIANTS.values() for name in each if name in manifest.components]
    unet = next((part for part in parts if part.name == "unet"), None)
    if names and unet is not None:
        parts += variant_parts(unet, names, _config(folder, "unet"))
    return parts


def _sizes(manifest: Manifest) -> dict[str, int]:
    return {
        "token_limit": manifest.token_limit,
        "embed_dim": manifest.embed_dim,
        "pooled_dim": manifest.pooled_dim,
        "time_ids": manifest.time_id_count,
        "unet_channels": manifest.unet_channels,
    }


def _config(folder: Path, part: str) -> dict[str, Any]:
    from engine.jsonfile import read_json

    return read_json(folder / part / "config.json", CONFIG_LIMIT, constants=True)


def _inputs(part: Part, manifest: Manifest, folder: Path) -> "dict[str, NDArray[Any]]":
    """Give fixed inputs of odd, not square sizes: a graph with a frozen shape refuses them."""
    import numpy as np

    from engine.tokenizer import Tokenizer

    draw = np.random.default_rng(20)

    def normal(*shape: int) -> "NDArray[np.float32]":
        return draw.standard_normal(shape, dtype=np.float32)

    side = min(manifest.default_width // manifest.vae_scale_factor, SIDE_LIMIT)
    if part in COMPANIONS:
        (name, spec), *_ = manifest.components[part.name].inputs.items()
        clip_side = spec.shape[-1]
        return {name: fixed_input(part.name, side, clip_side if isinstance(clip_side, int) else 0)}
    if part.name.startswith("text_encoder"):
        place = folder / part.name.replace("text_encoder", "tokenizer")
        tokenizer = Tokenizer(place, limit=manifest.token_limit)
        return {"input_ids": np.concatenate([tokenizer.encode(text)[:1] for text in TEXTS])}
    if part.name == "unet":
        given: dict[str, NDArray[Any]] = {
            "sample": normal(2, manifest.unet_channels, side - 1, side + 2),
            "timestep": np.array(TIMESTEP, np.float32),
            "encoder_hidden_states": normal(2, manifest.token_limit, manifest.embed_dim),
        }
        if manifest.pooled_dim:
            sizes = (manifest.default_height, manifest.default_width)
            given["text_embeds"] = normal(2, manifest.pooled_dim)
            time_ids = [*sizes, 0, 0, *sizes][: manifest.time_id_count]
            given["time_ids"] = np.array([time_ids] * 2, np.float32)
        if manifest.guidance_dim:
            given["timestep_cond"] = np.sin(normal(2, manifest.guidance_dim))
        return given
    if part.name == "vae_decoder":
        return {"latent_sample": normal(1, 4, side - 1, side + 2)}
    return {"sample": np.tanh(normal(1, 3, 8 * side, 8 * side + 8))}


def _torch_part(part: Part, model: Path) -> "Run":
    """Build one component by its library, with the graph's weights, as a function of arrays."""
    from export.parity import called

    net = _empty_module(part, model)
    _fill(net, part, model)
    return called(part, net)


def _empty_module(part: Part, model: Path) -> Any:
    """Build the module on the meta device: shapes without memory and without a random start."""
    import torch
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.controlnets.controlnet import ControlNetModel
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = _config(model.parents[1], part.home)
    unet: Any = UNet2DConditionModel
    vae: Any = AutoencoderKL
    controlnet: Any = ControlNetModel
    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore")
        if part in COMPANIONS:
            from export.companion_modules import empty_companion

            return empty_companion(part.folder, config).eval()
        if part.name.startswith("text_encoder"):
            text = CLIPTextConfig.from_dict(config | {"dtype": "float32"})
            second = part.name == "text_encoder_2"
            return (CLIPTextModelWithProjection if second else CLIPTextModel)(text).eval()
        makers = {"controlnet": controlnet, "unet": unet, "vae": vae}
        return makers[part.folder].from_config(config).eval()


def _fill(net: Any, part: Part, model: Path) -> None:
    """Give the part's parameters the graph's weights, one by one; every name must fit."""
    import torch

    from export.reference import each_weight

    wanted = {
        name: parameter
        for name, parameter in net.named_parameters()
        if name.startswith(part.prefixes or "") and not name.endswith(DECIDING)
    }
    for name, value in each_weight(model):
        if name.endswith(BUFFER):
            continue  # counted anew below
        parameter = wanted.pop(name, None)
        if parameter is None or parameter.shape != value.shape:
            raise GraphError(
                f"{part.name}: the graph has a weight '{name}' that its configuration does not know"
            )
        holder = net.get_submodule(name.rpartition(".")[0])
        setattr(holder, name.rpartition(".")[2], torch.nn.Parameter(value, requires_grad=False))
    if lacks_last_layer(part):  # of an older bundle: it is in no graph, and not asked for
        for name, parameter in wanted.items():
            empty = torch.nn.Parameter(torch.zeros(parameter.shape), requires_grad=False)
            setattr(net.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2], empty)
    elif wanted:
        raise GraphError(f"{part.name}: the graph lacks the weight '{min(wanted)}'")
    for module in net.modules():
        for name, buffer in module.named_buffers(recurse=False):
            if name != BUFFER:
                raise GraphError(f"{part.name} has a buffer '{name}' of unknown content")
            module.register_buffer(name, torch.arange(buffer.shape[-1])[None], persistent=False)
