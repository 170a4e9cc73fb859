"""Reads a ControlNet (Zhang et al., arXiv 2302.05543) of Stable Diffusion 1.x or XL: diffusers'
folder, or a single file of the original code, recognised by `control_model.` before its names.
"""

from collections.abc import Mapping
from pathlib import Path

from engine.jsonfile import Fields, read_json
from engine.training import Training
from export import ldm
from export.checkpoint import Checkpoint, Pieces
from export.errors import SourceError
from export.folder import CONFIG_LIMIT, origin_of, weight_files
from export.recipes import UNET_INPUTS, Part, Port, Recipe
from export.variants import residual_ports
from export.weightfiles import Tensor, check_header, index_tensors

__all__ = ["controlnet_part", "is_controlnet", "open_controlnet"]

CLASS = "ControlNetModel"
PREFIX = "control_model."
TOKENS = 77  # of CLIP's chunk; the graph takes any number
SIDES = {"controlnet-sd1": 64, "controlnet-sdxl": 128}  # latents, as their unets were trained
PICTURE_LEVELS = 4  # channels of the picture's own network: three halvings, 8 pixels a latent
FOREIGN = ("class_embed_type", "encoder_hid_dim_type", "num_class_embeds", "global_pool_conditions")
INPUTS = (
    *UNET_INPUTS,
    Port(
        name="controlnet_cond", dtype="float32", shape=("batch", 3, "height_px", "width_px")
    ),  # 0..1
    Port(name="conditioning_scale", dtype="float32", shape=()),
)
XL_INPUTS = (
    Port(name="text_embeds", dtype="float32", shape=("batch", "@pooled_dim")),
    Port(name="time_ids", dtype="float32", shape=("batch", 6)),
)


def is_controlnet(source: Path) -> bool:
    """Say whether a folder or .safetensors file is a ControlNet, whatever else is wrong with it.

    Raises SourceError for a file that is cut short, BundleError for a configuration that is no
    JSON.
    """
    if source.is_dir():
        config = source / "config.json"
        if (source / "model_index.json").exists() or not config.is_file():
            return False
        return read_json(config, CONFIG_LIMIT).get("_class_name") == CLASS
    if source.suffix.lower() != ".safetensors" or not source.is_file():
        return False
    check_header(source)
    return any(name.startswith(PREFIX) for name, _ in index_tensors([source]))


def open_controlnet(source: Path) -> Checkpoint:
    """Open what `is_controlnet` knows. Raises SourceError, MissingError, BundleError."""
    if source.is_dir():
        files = weight_files(source)
        config = read_json(source / "config.json", CONFIG_LIMIT)
        tensors = dict(index_tensors(files))
        origins = {path.name: path for path in (source / "config.json", *files)}
    else:
        config, tensors = _from_original(dict(index_tensors([source])))
        origins = {source.name: source}
    family, sizes = _look(source.name, config)
    recipe = Recipe(
        family=family,
        pipelines=(),
        classes={},
        components=(controlnet_part(config),),
        guidance_scale=1.0,
        add_on=True,
    )
    label, revision, licence = origin_of(source)  # of a folder that was pulled
    kind = "diffusers" if source.is_dir() else "safetensors"
    pieces = Pieces(
        label=label or source.name,
        kind="hub" if label else kind,
        revision=revision,
        licence=licence,
        recipe=recipe,
        index={},
        configs={"controlnet": config},
        tensors={"controlnet": tensors},
        files={},
        origins=origins,
        places={"controlnet": source},
    )
    return Checkpoint(
        pieces=pieces, family=family, sizes=sizes, scaling_factor=1.0, training=Training()
    )


def controlnet_part(config: Mapping[str, object]) -> Part:
    """Describe the component that a ControlNet of this configuration becomes."""
    return Part(
        name="controlnet",
        module="controlnet",
        folder="controlnet",
        inputs=INPUTS + (XL_INPUTS if config.get("addition_embed_type") else ()),
        outputs=residual_ports(config, "controlnet"),
    )


def _look(label: str, config: Mapping[str, object]) -> tuple[str, dict[str, int]]:
    """Give family and sizes. Raises SourceError where no unet of ours has a place for it."""
    fields = Fields(dict(config), "controlnet/config.json")
    added = config.get("addition_embed_type")
    if added not in {None, "text_time"}:
        raise SourceError(f"'{label}' has addition_embed_type '{str(added)[:40]}': another family")
    if added is None and config.get("use_linear_projection") is True:
        raise SourceError(
            f"'{label}' is a ControlNet of Stable Diffusion 2.x, which is not exported",
            hint="those of Stable Diffusion 1.x and XL are",
        )
    for key in FOREIGN:
        if config.get(key) not in {None, False}:
            raise SourceError(f"'{label}' has {key}: it is no ControlNet of Stable Diffusion")
    channels = config.get("in_channels", 4), config.get("conditioning_channels", 3)
    if channels != (4, 3):
        raise SourceError(f"'{label}' takes {channels} channels; 4 latents and 3 colours are known")
    levels = config.get("conditioning_embedding_out_channels", [0] * PICTURE_LEVELS)
    if not isinstance(levels, list) or len(levels) != PICTURE_LEVELS:
        raise SourceError(f"'{label}' does not take a picture of 8 pixels a latent")
    family = "controlnet-sdxl" if added else "controlnet-sd1"
    sizes = {
        "token_limit": TOKENS,
        "embed_dim": fields.integer("cross_attention_dim", 1, 65536),
        "unet_channels": 4,
        "latent_side": SIDES[family],
        "unet_factor": 2 ** (len(fields.items("block_out_channels")) - 1),
    }
    if added:
        time = fields.integer("addition_time_embed_dim", 2, 65536)
        whole = fields.integer("projection_class_embeddings_input_dim", 1, 1 << 20)
        if whole <= 6 * time:
            raise SourceError(f"'{label}' leaves no room for the pooled text: it is damaged")
        sizes["pooled_dim"] = whole - 6 * time
    return family, sizes


def _from_original(
    stored: Mapping[str, Tensor],
) -> tuple[dict[str, object], dict[str, Tensor]]:
    """Give configuration and weights under diffusers' names of the original code's ControlNet."""
    own = {k.removeprefix(PREFIX): tensor for k, tensor in stored.items() if k.startswith(PREFIX)}
    shapes = {name: tensor.shape for name, tensor in own.items()}
    # It is a unet's way down: what its table asks of the way up is only the number of channels.
    config = ldm.unet_config(shapes | {"out.2.weight": (4, 4, 3, 3)})
    for key in ("out_channels", "up_block_types"):
        del config[key]
    hints = [f"input_hint_block.{2 * place}" for place in range(2 * PICTURE_LEVELS)]
    shape = shapes.get(f"{hints[0]}.weight", (0, 0))
    widths = [shapes.get(f"{hint}.weight", (0,))[0] for hint in hints[0:-1:2]]
    config |= {
        "_class_name": CLASS,
        "conditioning_channels": shape[1],
        "conditioning_embedding_out_channels": widths,
    }
    names = {hint: f"controlnet_cond_embedding.blocks.{i - 1}" for i, hint in enumerate(hints)}
    names[hints[0]] = "controlnet_cond_embedding.conv_in"
    names[hints[-1]] = "controlnet_cond_embedding.conv_out"
    names["middle_block_out.0"] = "controlnet_mid_block"
    rename = ldm.unet_names(shapes)

    def renamed(name: str) -> str:
        module, _, leaf = name.rpartition(".")
        if module in names:
            return f"{names[module]}.{leaf}"
        if name.startswith("zero_convs."):
            return f"controlnet_down_blocks.{int(module.split('.')[1])}.{leaf}"
        return rename(name)

    return config, ldm.renamed("ControlNet", own, renamed)
