"""Reads the safety checker of a diffusers folder, where it has one that can be read.

In the bundle its thresholds stand in its config.json: deciding is the engine's.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np

from engine.errors import BundleError
from engine.jsonfile import Fields, read_json
from engine.safety import PREPARATION_FILE, Preparation
from export.checkpoint import Checkpoint
from export.companions import with_parts
from export.errors import SourceError
from export.folder import CONFIG_LIMIT, weight_files
from export.weightfiles import Tensor, index_tensors

__all__ = ["PART", "left_out", "with_safety_checker"]

PART = "safety_checker"
CLASS = "StableDiffusionSafetyChecker"
THRESHOLDS = {"concept_embeds_weights": 17, "special_care_embeds_weights": 3}
# transformers before 5 has the tower one level deeper.
OLD_TOWER, TOWER = "vision_model.vision_model.", "vision_model."
# What the network is built of; the rest of the file is about text and about generation.
KEPT = (
    "attention_dropout",
    "hidden_act",
    "hidden_size",
    "image_size",
    "intermediate_size",
    "layer_norm_eps",
    "num_attention_heads",
    "num_channels",
    "num_hidden_layers",
    "patch_size",
)
# Of numbers that decide how large it is; CLIP's ViT-H has a half of each at most.
BOUNDS = {
    "hidden_size": 8192,
    "image_size": 4096,
    "intermediate_size": 32768,
    "num_attention_heads": 256,
    "num_hidden_layers": 128,
    "patch_size": 256,
}


def with_safety_checker(checkpoint: Checkpoint) -> Checkpoint:
    """Add a checkpoint's own safety checker, or give the checkpoint as it is where it has none.

    Raises SourceError where it has one that does not fit.
    """
    folder = _folder(checkpoint)
    if folder is None or left_out(checkpoint):
        return checkpoint
    label = checkpoint.pieces.label
    try:
        preparation = folder.parent / PREPARATION_FILE
        read = read_json(preparation, CONFIG_LIMIT)
        config = _config(read_json(folder / "config.json", CONFIG_LIMIT))
        side = Preparation.from_config(read).crop
    except BundleError as error:  # the strict JSON reader's own words
        raise SourceError(f"in '{label}': {error}", hint=error.hint) from error
    if _vision(config).integer("image_size", 1, 4096) != side:
        raise SourceError(
            f"the safety checker of '{label}' takes other pictures than {side}x{side}"
        )
    files = weight_files(folder)
    tensors = {
        name.replace(OLD_TOWER, TOWER, 1) if name.startswith(OLD_TOWER) else name: tensor
        for name, tensor in index_tensors(files)
    }
    thresholds = {key: _threshold(tensors, key, count) for key, count in THRESHOLDS.items()}
    own = {path.relative_to(folder.parent).as_posix(): path for path in (preparation, *files)}
    own[f"{PART}/config.json"] = folder / "config.json"
    pieces = checkpoint.pieces
    pieces = replace(
        pieces,
        configs=dict(pieces.configs) | {PART: config | thresholds},
        tensors=dict(pieces.tensors) | {PART: tensors},
        files=dict(pieces.files) | {PREPARATION_FILE: preparation.read_bytes()},
        origins=dict(pieces.origins) | own,
        places=dict(pieces.places) | {PART: folder},
    )
    sizes = dict(checkpoint.sizes) | {"clip_side": side}
    return with_parts(replace(checkpoint, pieces=pieces, sizes=sizes), PART)


def left_out(checkpoint: Checkpoint) -> str:
    """Say why the safety checker that a checkpoint lists is not taken, or nothing."""
    listed = checkpoint.pieces.index.get(PART)
    if not (isinstance(listed, list) and len(listed) == 2 and listed[1] == CLASS):
        return ""
    folder = _folder(checkpoint)
    if folder is None or not (folder.parent / PREPARATION_FILE).is_file():
        return "its files are not there"
    try:
        weight_files(folder)
    except SourceError as error:
        return str(error)
    return ""


def _folder(checkpoint: Checkpoint) -> Path | None:
    """Give the checker's folder where model_index.json lists one and it is there."""
    listed = checkpoint.pieces.index.get(PART)
    folder = checkpoint.pieces.places["unet"].parent / PART
    is_listed = isinstance(listed, list) and len(listed) == 2 and listed[1] == CLASS
    return folder if is_listed and folder.is_dir() else None


def _config(config: Mapping[str, object]) -> dict[str, object]:
    """Keep what the network is built of, with what transformers takes where nothing is said."""
    fields = Fields(dict(config), f"{PART}/config.json")
    vision = fields.fields("vision_config")
    for key, most in BOUNDS.items():
        if key in vision.each():
            vision.integer(key, 1, most)
    raw = cast("dict[str, object]", config["vision_config"])
    return {
        "projection_dim": fields.integer("projection_dim", 1, 65536),
        "vision_config": {"image_size": 224} | {key: raw[key] for key in KEPT if key in raw},
    }


def _vision(config: Mapping[str, object]) -> Fields:
    return Fields(dict(config), f"{PART}/config.json").fields("vision_config")


def _threshold(tensors: Mapping[str, Tensor], key: str, count: int) -> list[float]:
    from export.parameters import read_weight

    tensor = tensors.get(key)
    if tensor is None or tensor.shape != (count,) or tensor.dtype not in {"BF16", "F16", "F32"}:
        raise SourceError(f"the safety checker has no {count} numbers in '{key}'")
    values = read_weight(tensor).astype(np.float32)
    if not np.isfinite(values).all():
        raise SourceError(f"'{key}' of the safety checker holds NaN or Inf")
    return [float(value) for value in values]
