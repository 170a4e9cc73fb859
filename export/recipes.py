"""The recipe table: which components a family has, from which parts of a checkpoint they come, and
what goes in and out. A new family is a new entry here, plus its parts in `export.modules`.

Names of inputs and outputs are those of optimum's exports, so that bundles load there and here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

__all__ = [
    "GUIDANCE_INPUT",
    "INPAINT_CHANNELS",
    "OPSET",
    "RECIPES",
    "Part",
    "Port",
    "Recipe",
    "fitted",
    "recipe_of",
]

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
    guidance_scale: the authors' own, where a request names none. inpainting: the pipeline of the
    family's unets with 9 channels, "" where there are none. time_ids: numbers that are added to
    the timestep beside the pooled text. settings: of model_index.json, where a file has none.
    add_on: it draws nothing by itself, and has no text encoder, tokenizer, VAE or noise schedule.
    """

    family: str
    pipelines: tuple[str, ...]
    classes: Mapping[str, str]
    components: tuple[Part, ...]
    guidance_scale: float
    inpainting: str = ""
    time_ids: int = 0
    settings: Mapping[str, object] = field(default_factory=dict[str, object])
    add_on: bool = False


SAMPLE = ("batch", 4, "height", "width")
INPAINT_CHANNELS = 9  # 4 of latents, a mask, 4 of the masked picture's latents
PICTURE = ("batch", 3, "height_px", "width_px")
# int64 as torch has it; optimum feeds either width by looking at the graph's input.
INPUT_IDS = Port(name="input_ids", dtype="int64", shape=("batch", "@token_limit"))
UNET_INPUTS = (
    Port(name="sample", dtype="float32", shape=("batch", "@unet_channels", "height", "width")),
    # One for the whole batch, fractional: Karras' noise levels are between timesteps.
    Port(name="timestep", dtype="float32", shape=()),
    Port(name="encoder_hidden_states", dtype="float32", shape=("batch", "tokens", "@embed_dim")),
)
# What SDXL and its refiner add to the timestep.
ADDED_INPUTS = (
    Port(name="text_embeds", dtype="float32", shape=("batch", "@pooled_dim")),
    Port(name="time_ids", dtype="float32", shape=("batch", "@time_ids")),
)
# The embedded guidance scale of latent consistency models (Luo et al., arXiv 2310.04378).
GUIDANCE_INPUT = Port(name="timestep_cond", dtype="float32", shape=("batch", "@guidance_dim"))
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
    pipelines=("StableDiffusionPipeline", "LatentConsistencyModelPipeline"),
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
            # And earlier layers, as many as a configuration has (`export.textlayers`).
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
    inpainting="StableDiffusionInpaintPipeline",
)

# Two text encoders, of each the layer before the last (every layer is an output, see
# `export.textlayers`); the second one's pooled text and the sizes of the picture are added to the
# timestep (Podell et al., arXiv 2307.01952).
PROJECTED = Part(
    name="text_encoder_2",
    module="text_encoder_projected",
    folder="text_encoder_2",
    inputs=(INPUT_IDS,),
    outputs=(
        Port(name="text_embeds", dtype="float32", shape=("batch", "@pooled_dim")),
        Port(
            name="last_hidden_state",
            dtype="float32",
            shape=("batch", "@token_limit", "@text_dim_2"),
        ),
    ),
)
ADDED_UNET = Part(
    name="unet",
    module="unet_added",
    folder="unet",
    inputs=(*UNET_INPUTS, *ADDED_INPUTS),
    outputs=(UNET_OUTPUT,),
)
SDXL = Recipe(
    family="sdxl",
    # A base model may have been saved by the other pipeline; the refiner has no text_encoder.
    pipelines=("StableDiffusionXLPipeline", "StableDiffusionXLImg2ImgPipeline"),
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
            module="text_encoder_layers",
            folder="text_encoder",
            inputs=(INPUT_IDS,),
            outputs=(
                Port(
                    name="last_hidden_state",
                    dtype="float32",
                    shape=("batch", "@token_limit", "@text_dim"),
                ),
            ),
        ),
        PROJECTED,
        ADDED_UNET,
        *VAE,
    ),
    guidance_scale=5.0,
    inpainting="StableDiffusionXLInpaintPipeline",
    time_ids=6,  # size before cropping, the crop's top and left, size
)

# Finishes the latents of SDXL: the second text encoder alone, and a fifth number that says how
# well a picture was liked in the place of its size.
SDXL_REFINER = Recipe(
    family="sdxl-refiner",
    pipelines=("StableDiffusionXLImg2ImgPipeline",),
    classes={
        "text_encoder_2": "CLIPTextModelWithProjection",
        "tokenizer_2": "CLIPTokenizer",
        "unet": "UNet2DConditionModel",
        "vae": "AutoencoderKL",
    },
    components=(PROJECTED, ADDED_UNET, *VAE),
    guidance_scale=5.0,
    time_ids=5,
    settings={"requires_aesthetics_score": True, "force_zeros_for_empty_prompt": False},
)

# SD3, Flux, ControlNet, TAESD: one more Recipe each (then also in engine.manifest).
RECIPES = (SD1, SDXL, SDXL_REFINER)


def recipe_of(family: str) -> Recipe:
    """Give the recipe of a manifest's family; 2.x goes by that of 1.x."""
    return next((recipe for recipe in RECIPES if recipe.family == family), SD1)


def fitted(recipe: Recipe, *, embeds_guidance: bool) -> Recipe:
    """Give the recipe with the unet that takes its guidance scale as an input, or as it is."""
    if not embeds_guidance:
        return recipe

    def fit(part: Part) -> Part:
        if part.name != "unet":
            return part
        inputs = (*part.inputs, GUIDANCE_INPUT)
        return replace(part, module=f"{part.module}_distilled", inputs=inputs)

    return replace(recipe, components=tuple(fit(part) for part in recipe.components))
