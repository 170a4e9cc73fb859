"""The recipe table: which components a family has, from which parts of a checkpoint they come, and
what goes in and out. A new family is a new entry here, plus its parts in `export.modules`.

Names of inputs and outputs are those of optimum's exports, so that bundles load there and here.
"""

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["OPSET", "RECIPES", "Part", "Port", "Recipe", "recipe_of"]

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
    shares: the component in whose folder its graph lies and whose external data it reads, or "".
    """

    name: str
    module: str
    folder: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    prefixes: tuple[str, ...] = ()
    shares: str = ""

    @property
    def home(self) -> str:
        """Name the folder in the bundle that holds graph, configuration and weights."""
        return self.shares or self.name

    @property
    def file(self) -> str:
        """Name the graph's file in the bundle: unet/model.onnx, unet/model_control.onnx."""
        return f"{self.home}/model{self.name.removeprefix(self.home)}.onnx"


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """A family: the pipeline and part classes by which it is recognised, and its components.

    classes: sub-folder -> class name in model_index.json. components: in the order of export.
    guidance_scale: the authors' own, where a request names none. add_on: it draws nothing by
    itself, and has no text encoder, tokenizer, VAE or noise schedule.
    """

    family: str
    pipelines: tuple[str, ...]
    classes: Mapping[str, str]
    components: tuple[Part, ...]
    guidance_scale: float
    add_on: bool = False


SAMPLE = ("batch", 4, "height", "width")
PICTURE = ("batch", 3, "height_px", "width_px")
# int64 as torch has it; optimum feeds either width by looking at the graph's input.
INPUT_IDS = Port(name="input_ids", dtype="int64", shape=("batch", "@token_limit"))
UNET_INPUTS = (
    Port(name="sample", dtype="float32", shape=SAMPLE),
    # One for the whole batch, fractional: Karras' noise levels are between timesteps.
    Port(name="timestep", dtype="float32", shape=()),
    Port(name="encoder_hidden_states", dtype="float32", shape=("batch", "tokens", "@embed_dim")),
)
UNET_OUTPUT = Port(name="out_sample", dtype="float32", shape=SAMPLE)

VAE = (
    Part(
        name="vae_decoder",
        module="vae_decoder",
        folder="vae",
        inputs=(Port(name="latent_sample", dtype="float32", shape=SAMPLE),),
        outputs=(Port(name="sample", dtype="float32", shape=PICTURE),),
        prefixes=("decoder.", "post_quant_conv."),
    ),
    Part(
        name="vae_encoder",
        module="vae_encoder",
        folder="vae",
        inputs=(Port(name="sample", dtype="float32", shape=PICTURE),),
        # Mean and log-variance, four channels each: the caller samples, so the seed is its own.
        outputs=(
            Port(name="latent_parameters", dtype="float32", shape=("batch", 8, "height", "width")),
        ),
        prefixes=("encoder.", "quant_conv."),
    ),
)

# SD 2.x has the same parts, and is told apart by its unet (`export.checkpoint`).
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
            inputs=(INPUT_IDS,),
            outputs=(
                Port(
                    name="last_hidden_state",
                    dtype="float32",
                    shape=("batch", "@token_limit", "@embed_dim"),
                ),
            ),
        ),
        Part(
            name="unet",
            module="unet",
            folder="unet",
            inputs=UNET_INPUTS,
            outputs=(UNET_OUTPUT,),
        ),
        *VAE,
    ),
    guidance_scale=7.5,
)

# Two text encoders, of each the layer before the last; the second one's pooled text and the sizes
# of the picture are added to the timestep (Podell et al., arXiv 2307.01952).
SDXL = Recipe(
    family="sdxl",
    pipelines=("StableDiffusionXLPipeline",),
    classes={
        "text_encoder": "CLIPTextModel",
        "text_encoder_2": "CLIPTextModelWithProjection",
        "tokenizer": "CLIPTokenizer",
        "tokenizer_2": "CLIPTokenizer",
        "unet": "UNet2DConditionModel",
        "vae": "AutoencoderKL",
    },
    components=(
        Part(
            name="text_encoder",
            module="text_encoder_penultimate",
            folder="text_encoder",
            inputs=(INPUT_IDS,),
            outputs=(
                Port(
                    name="penultimate_hidden_state",
                    dtype="float32",
                    shape=("batch", "@token_limit", "@text_dim"),
                ),
            ),
        ),
        Part(
            name="text_encoder_2",
            module="text_encoder_projected",
            folder="text_encoder_2",
            inputs=(INPUT_IDS,),
            outputs=(
                Port(
                    name="penultimate_hidden_state",
                    dtype="float32",
                    shape=("batch", "@token_limit", "@text_dim_2"),
                ),
                Port(name="text_embeds", dtype="float32", shape=("batch", "@pooled_dim")),
            ),
        ),
        Part(
            name="unet",
            module="unet_added",
            folder="unet",
            inputs=(
                *UNET_INPUTS,
                Port(name="text_embeds", dtype="float32", shape=("batch", "@pooled_dim")),
                Port(name="time_ids", dtype="float32", shape=("batch", 6)),
            ),
            outputs=(UNET_OUTPUT,),
        ),
        *VAE,
    ),
    guidance_scale=5.0,
)

# Inpainting, ControlNet, TAESD: one more Recipe each (then also in engine.manifest).
RECIPES = (SD1, SDXL)


def recipe_of(family: str) -> Recipe:
    """Give the recipe of a manifest's family; 2.x goes by that of 1.x."""
    return SDXL if family == "sdxl" else SD1
