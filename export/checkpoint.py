"""A checkpoint as the exporter sees it, wherever it comes from, and what every one must satisfy."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from engine.hashes import HashCache
from engine.jsonfile import Fields
from engine.training import Training
from export.errors import MissingError, SourceError
from export.recipes import INPAINT_CHANNELS, Recipe, fitted
from export.textlayers import layered
from export.weightfiles import Tensor

__all__ = ["Checkpoint", "Configs", "Pieces", "Tensors", "Word", "fingerprint", "make_checkpoint"]

Configs = Mapping[str, Mapping[str, object]]
Tensors = Mapping[str, Mapping[str, Tensor]]
OLD_SCALING = 0.18215  # of SD 1.x's VAE; configurations of 2022 leave it out
# What UNets of families that no recipe knows have beside sample, timestep and text.
FOREIGN = ("class_embed_type", "encoder_hid_dim_type")
GUIDANCE = "time_cond_proj_dim"  # of latent consistency models: the embedded guidance scale
ADDED = "text_time"  # what SDXL adds to the timestep: pooled text, and six sizes


@dataclass(frozen=True, kw_only=True, slots=True)
class Word:
    """A word of a textual inversion. rows: how many it has; first: text encoder -> its first id."""

    token: str
    rows: int
    first: Mapping[str, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Pieces:
    """What was found, before it is looked at as a whole. label: the folder's or file's name. kind:
    as in the manifest.

    index: what model_index.json says. configs: part -> configuration, `scheduler` included.
    tensors: part -> parameter name -> Tensor. files: tokenizer and notices, name in the bundle ->
    content. origins: what the fingerprint covers, by name. places: part -> the folder or file that
    it was read from. words: what the tokenizers have to learn. revision, licence: as the hub named
    them, where it came from one.
    """

    label: str
    kind: str
    recipe: Recipe
    index: Mapping[str, object]
    configs: Configs
    tensors: Tensors
    files: Mapping[str, bytes]
    origins: Mapping[str, Path]
    places: Mapping[str, Path]
    words: tuple[Word, ...] = ()
    revision: str = ""
    licence: str = "unknown"


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """Pieces that fit each other and a recipe. family: as in the manifest. sizes: what '@name'
    stands for in the recipe. training: the noise levels.
    """

    pieces: Pieces
    family: str
    sizes: Mapping[str, int]
    scaling_factor: float
    training: Training

    @property
    def recipe(self) -> Recipe:
        """Return the recipe that it fits."""
        return self.pieces.recipe

    @property
    def configs(self) -> Configs:
        """Return part -> configuration."""
        return self.pieces.configs

    @property
    def tensors(self) -> Tensors:
        """Return part -> parameter name -> Tensor."""
        return self.pieces.tensors


def make_checkpoint(pieces: Pieces) -> Checkpoint:
    """Make a checkpoint of its pieces. Raises SourceError when they do not fit each other."""
    if "vae" not in pieces.configs:
        raise MissingError(f"'{pieces.label}' has no VAE", hint="name one with --vae FILE")
    distilled = pieces.configs["unet"].get(GUIDANCE) is not None
    sizes = _sizes(pieces.recipe, pieces.configs)
    recipe = layered(fitted(pieces.recipe, embeds_guidance=distilled), pieces.configs)
    return Checkpoint(
        pieces=replace(pieces, recipe=recipe),
        family=_family(pieces.recipe, pieces.configs),
        sizes=sizes,
        scaling_factor=_scaling_factor(pieces.configs["vae"]),
        training=Training.from_config(pieces.configs["scheduler"]),
    )


def fingerprint(checkpoint: Checkpoint, hash_cache: Path | None = None) -> str:
    """Give the sha256 over names and contents of all that was read of the checkpoint, as hex.

    hash_cache: a file that remembers hashes by size, times and inode.
    """
    whole = hashlib.sha256()
    with HashCache.open(hash_cache) as hashes:
        for name, path in sorted(checkpoint.pieces.origins.items()):
            whole.update(f"{name}\0{hashes.sha256(path)}\n".encode())
    return whole.hexdigest()


def _family(recipe: Recipe, configs: Configs) -> str:
    # 2.x has the same parts as 1.x, another text encoder, and linear layers around its attention.
    newer = recipe.family == "sd1" and configs["unet"].get("use_linear_projection") is True
    return "sd2" if newer else recipe.family


def _sizes(recipe: Recipe, configs: Configs) -> dict[str, int]:
    unet = Fields(dict(configs["unet"]), "unet/config.json")
    vae = Fields(dict(configs["vae"]), "vae/config.json")
    channels = unet.integer("in_channels", 1, 64)
    if channels not in {4, INPAINT_CHANNELS} or vae.integer("latent_channels", 1, 64) != 4:
        raise SourceError(
            f"the unet takes {channels} channels; 4 latent channels are needed, or"
            f" {INPAINT_CHANNELS} for inpainting"
        )
    wanted = ADDED if recipe.time_ids else None
    for key in (*FOREIGN, "addition_embed_type"):
        allowed = {wanted} if key == "addition_embed_type" and wanted else {None, "default"}
        if configs["unet"].get(key) not in allowed:
            raise SourceError(f"the unet has another {key}: it belongs to another family")
    blocks = len(vae.items("block_out_channels"))
    if blocks != 4:
        raise SourceError(f"the vae has {blocks} resolutions; 4 are needed (8 pixels a latent)")
    limit, more = _texts(recipe, configs)
    total = sum(more.values())
    if unet.integer("cross_attention_dim", 1, 65536) != total:
        raise SourceError(
            "unet and text encoder do not fit: cross_attention_dim is not hidden_size"
        )
    if recipe.time_ids:
        more |= _added(recipe, configs, unet)
    if configs["unet"].get(GUIDANCE) is not None:
        more["guidance_dim"] = unet.integer(GUIDANCE, 4, 65536)
    return more | {
        "token_limit": limit,
        "embed_dim": total,
        "unet_channels": channels,
        "latent_side": unet.integer("sample_size", 1, 1024),
        "unet_factor": 2 ** (len(unet.items("block_out_channels")) - 1),
    }


def _texts(recipe: Recipe, configs: Configs) -> tuple[int, dict[str, int]]:
    """Give the tokens of a chunk, and the width of each text encoder by its size's name."""
    names = {"text_encoder": "text_dim", "text_encoder_2": "text_dim_2"}
    fields = {
        size: Fields(dict(configs[name]), f"{name}/config.json")
        for name, size in names.items()
        if name in recipe.classes
    }
    limits = [each.integer("max_position_embeddings", 3, 4096) for each in fields.values()]
    return limits[0], {size: each.integer("hidden_size", 1, 65536) for size, each in fields.items()}


def _added(recipe: Recipe, configs: Configs, unet: Fields) -> dict[str, int]:
    """Give the sizes of what is added to the timestep. Raises SourceError where they do not fit."""
    text = Fields(dict(configs["text_encoder_2"]), "text_encoder_2/config.json")
    pooled = text.integer("projection_dim", 1, 65536)
    time = recipe.time_ids * unet.integer("addition_time_embed_dim", 2, 65536)
    if unet.integer("projection_class_embeddings_input_dim", 1, 1 << 20) != pooled + time:
        raise SourceError("unet and second text encoder do not fit: another projection_dim")
    return {"pooled_dim": pooled, "time_ids": recipe.time_ids}


def _scaling_factor(vae: Mapping[str, object]) -> float:
    given = vae.get("scaling_factor") is not None
    fields = Fields(dict(vae), "vae/config.json")
    return fields.number("scaling_factor", 1e-4, 1e4) if given else OLD_SCALING
