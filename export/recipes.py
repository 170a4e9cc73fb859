"""The recipe table: which components a family has, from which parts of a checkpoint they come, and
what goes in and out. A new family is a new entry here, plus its parts in `export.modules`.

Names of inputs and outputs are those of optimum's exports, so that bundles load there and here.
"""

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["OPSET", "RECIPES", "Part", "Port", "Recipe"]

OPSET = 18  # GroupNormalization and Resize in the form that OpenVINO and ONNX Runtime both fuse


@dataclass(frozen=True, kw_only=True, slots=True)
class Port:
    """One input or output of a component.

    shape: whole numbers, free sizes by name, or a number of the checkpoint's configuration as
    '@name' (see `Checkpoint.sizes`).
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One component: `module` names its builder, `folder` the checkpoint's sub-folder.

    prefixes: beginnings of state-dict keys that belong to this component (all when empty).
    """

    name: str
    module: str
    folder: str
    inputs: tuple[Port, ...]
    output: Port
    prefixes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """A family: the pipeline and part classes by which it is recognised, and its components.

    classes: sub-folder -> class name in model_index.json. components: in the order of export.
    """

    family: str
    pipelines: tuple[str, ...]
    classes: Mapping[str, str]
    components: tuple[Part, ...]


SAMPLE = ("batch", 4, "height", "width")

SD1 = Recipe(
    family="sd1",
    pipelines=("StableDiffusionPipeline",),
    classes={
        "text_encoder": "CLIPTextModel",
        "tokenizer": "CLIPTokenizer",
        "unet": "UNet2DConditionModel",
        "vae": "AutoencoderKL",
    },
    components=(
        Part(
            name="text_encoder",
            module="text_encoder",
            folder="text_encoder",
            # int64 as torch has it; optimum feeds either width by looking at the graph's input.
            inputs=(Port(name="input_ids", dtype="int64", shape=("batch", "@token_limit")),),
            output=Port(
                name="last_hidden_state",
                dtype="float32",
                shape=("batch", "@token_limit", "@embed_dim"),
            ),
        ),
        Part(
            name="unet",
            module="unet",
            folder="unet",
            inputs=(
                Port(name="sample", dtype="float32", shape=SAMPLE),
                # One for the whole batch, fractional: Karras' noise levels are between timesteps.
                Port(name="timestep", dtype="float32", shape=()),
                Port(
                    name="encoder_hidden_states",
                    dtype="float32",
                    shape=("batch", "tokens", "@embed_dim"),
                ),
            ),
            output=Port(name="out_sample", dtype="float32", shape=SAMPLE),
        ),
        Part(
            name="vae_decoder",
            module="vae_decoder",
            folder="vae",
            inputs=(Port(name="latent_sample", dtype="float32", shape=SAMPLE),),
            output=Port(
                name="sample", dtype="float32", shape=("batch", 3, "height_px", "width_px")
            ),
            prefixes=("decoder.", "post_quant_conv."),
        ),
        Part(
            name="vae_encoder",
            module="vae_encoder",
            folder="vae",
            inputs=(
                Port(name="sample", dtype="float32", shape=("batch", 3, "height_px", "width_px")),
            ),
            # Mean and log-variance, four channels each: the caller samples, so the seed is its own.
            output=Port(
                name="latent_parameters", dtype="float32", shape=("batch", 8, "height", "width")
            ),
            prefixes=("encoder.", "quant_conv."),
        ),
    ),
)

# SDXL, inpainting, ControlNet, TAESD: one more Recipe each (then also in engine.manifest).
RECIPES = (SD1,)
