"""OpenVINO's own format (IR): each graph as it was read, with free sizes or for stated shapes.

Weights stay in the precision that the bundle stores, with the same casts behind them: OpenVINO's
own compression to f16 would round what the bundle keeps in fp32 (the timestep's frequencies), and
the form computes what the ONNX graph computes, bit by bit. Only `Core` and `save_model` are used:
the converter reports its use to its maker.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from engine.backends import Shapes
from engine.bundle import Bundle
from engine.derived import Shape
from engine.manifest import Component, Manifest
from export.errors import GraphError
from export.targets import Progress

__all__ = ["BOUND", "NEEDED", "PRECISION", "build", "component_shapes", "device", "versions"]

PRECISION = "stored"  # weights as the bundle has them, arithmetic as the engine's choice says
NEEDED: Mapping[str, str] = {"openvino": "pip install 'safelight[cpu]'"}
BOUND = 0.0  # it computes the same
HALVES = 2  # a guided picture is one batch: without the prompt, and with it
ENCODERS = ("vae_encoder", "tiny_vae_encoder")  # whose sample is a picture


def device() -> str:
    """Name the plugin: the form is the same for every processor."""
    return "CPU"


def versions() -> Mapping[str, str]:
    """Name what reads the form, for its key."""
    from export.targets.installed import installed

    return installed("openvino")


def build(
    bundle: Bundle, out: Path, *, shapes: tuple[Shape, ...], progress: Progress
) -> dict[str, object]:
    """Write `COMPONENT/model.xml` and `.bin`, or the same under a folder for each shape.

    Gives the report: components, and how many bytes. Raises GraphError.
    """
    from engine.backends.openvino import runtime

    ov = runtime()
    core = ov.Core()
    jobs = list(_jobs(bundle, shapes))
    for place, (component, folder, static) in enumerate(jobs):
        progress(f"write {folder}", place / len(jobs))
        try:
            graph = core.read_model(bundle.model(component))
            if static:
                graph.reshape(_ranked(graph, static))
            (out / folder).mkdir(parents=True)
            ov.save_model(graph, out / folder / "model.xml", compress_to_fp16=False)
        except RuntimeError as error:
            sizes = ", ".join(f"{name} {list(size)}" for name, size in static.items())
            raise GraphError(
                f"OpenVINO cannot write {component} {sizes}".rstrip(),
                hint="multiples of 64 pixels fit every model",
            ) from error
    return {
        "components": list(_own(bundle.manifest)),
        "weights": {name: each.precision for name, each in _own(bundle.manifest).items()},
        "computes": "what the ONNX graph computes, bit by bit",
    }


def _jobs(bundle: Bundle, shapes: tuple[Shape, ...]) -> Iterator[tuple[str, str, Shapes]]:
    for component in _own(bundle.manifest):
        if not shapes:
            yield component, component, {}
        for shape in shapes:
            static = component_shapes(bundle.manifest, component, shape)
            yield component, f"{shape}/{component}", static


def _own(manifest: Manifest) -> dict[str, Component]:
    """Give the components that hold weights of their own: a unet's second graphs share its file."""
    return {
        name: each
        for name, each in manifest.components.items()
        if each.file == f"{name}/model.onnx"
    }


def component_shapes(manifest: Manifest, component: str, shape: Shape) -> Shapes:
    """Give the input shapes of one component for pictures of this shape, with guidance."""
    factor, n = manifest.vae_scale_factor, shape.batch
    size = (shape.height // factor, shape.width // factor)
    halves = 1 if manifest.guidance_dim else HALVES  # told the scale, a network has one half
    known: dict[str, tuple[int, ...]] = {
        "latent_sample": (n, manifest.latent_channels, *size),
        "timestep": (),
        "encoder_hidden_states": (halves * n, manifest.token_limit, manifest.embed_dim),
        "input_ids": (1, manifest.token_limit),
        "text_embeds": (halves * n, manifest.pooled_dim),
        "time_ids": (halves * n, manifest.time_id_count),
        "timestep_cond": (halves * n, manifest.guidance_dim),
        "sample": (n, 3, shape.height, shape.width)
        if component in ENCODERS
        else (halves * n, manifest.unet_channels, *size),
    }
    inputs = manifest.components[component].inputs
    if "clip_input" in inputs:  # the safety checker looks at one picture, of its own size
        sides = [side for side in inputs["clip_input"].shape if isinstance(side, int)]
        known["clip_input"] = (1, *sides)
    unknown = [name for name in inputs if name not in known]
    if unknown:
        raise GraphError(f"{component} has an input '{unknown[0]}' that no shape is known for")
    return {name: known[name] for name in inputs}


def _ranked(graph: Any, shapes: Shapes) -> dict[str, list[int]]:
    """Give the graph's own rank to a timestep: a bundle by another exporter has one dimension."""
    static: dict[str, list[int]] = {}
    for name, shape in shapes.items():
        rank = graph.input(name).get_partial_shape().rank.get_length()
        static[name] = [1] if shape == () and rank == 1 else list(shape)
    return static
