"""Loads a part of a checkpoint as a torch module by the libraries' own reading of its weights.

The parity gate's reference: a mistake in our reading of the weights shows as a difference.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
)
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from safetensors import safe_open
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from export.checkpoint import Checkpoint
from export.errors import SourceError

__all__ = ["load_original"]

Weights = Mapping[str, torch.Tensor]
OLD_PREFIX = "text_model."
OPEN_CLIP = ("cond_stage_model.model.", "conditioner.embedders.1.model.")
TEXT: Mapping[str, Any] = {
    "text_encoder": CLIPTextModel,
    "text_encoder_2": CLIPTextModelWithProjection,
}


def load_original(checkpoint: Checkpoint, part: str) -> nn.Module:
    """Load `part` ("text_encoder", "text_encoder_2", "unet", "vae") in fp32. Raises SourceError."""
    place = checkpoint.pieces.places[part]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if place.is_dir():
            return _from_folder(checkpoint, part, place).eval()
        return _from_file(checkpoint, part, place).eval()


def _from_folder(checkpoint: Checkpoint, part: str, folder: Path) -> nn.Module:
    makers = dict(TEXT) | {"unet": UNet2DConditionModel, "vae": AutoencoderKL}
    files = {tensor.file.name for tensor in checkpoint.tensors[part].values()}
    options: dict[str, Any] = {"use_safetensors": True, "local_files_only": True}
    options["dtype" if part in TEXT else "torch_dtype"] = torch.float32
    if any(".fp16." in name for name in files):
        options["variant"] = "fp16"
    return makers[part].from_pretrained(folder, **options)


def _from_file(checkpoint: Checkpoint, part: str, file: Path) -> nn.Module:
    config = dict(checkpoint.configs[part])
    if part == "unet":
        unet: Any = UNet2DConditionModel.from_config(config)
        stored = _stored(file, ("model.diffusion_model.",))
        return _filled(unet, convert_ldm_unet_checkpoint(stored, config))
    if part == "vae":
        vae: Any = AutoencoderKL.from_config(config)
        whole = _stored(file, ("first_stage_model.",)) or _stored(file, ("",))
        original = not any(".down_blocks." in name for name in whole)
        return _filled(vae, convert_ldm_vae_checkpoint(whole, config) if original else whole)
    text: Any = TEXT[part](CLIPTextConfig.from_dict(config | {"dtype": "float32"}))
    prefixes = {
        "text_encoder": ("cond_stage_model.", "conditioner.embedders.0."),
        "text_encoder_2": ("conditioner.embedders.1.",),
    }
    stored = _stored(file, prefixes[part])
    for prefix in OPEN_CLIP:
        if any(name.startswith(prefix) for name in stored):
            return _filled(text, convert_open_clip_checkpoint(text, stored, prefix))
    return _filled(text, convert_ldm_clip_checkpoint(stored))


def _stored(file: Path, prefixes: tuple[str, ...]) -> dict[str, torch.Tensor]:
    with safe_open(file, framework="pt") as opened:
        return {
            name: opened.get_tensor(name).float()
            for name in opened.keys()  # noqa: SIM118  a method of the library, no mapping
            if name.startswith(prefixes)
        }


def _filled(module: nn.Module, weights: Weights) -> nn.Module:
    """Put the weights into the module; what it does not know is left, what it lacks is an error."""
    known = dict(module.named_parameters())
    named = {
        name.removeprefix(OLD_PREFIX) if name not in known else name: tensor
        for name, tensor in weights.items()
    }
    missing = known.keys() - named.keys()
    if missing:
        raise SourceError(f"the libraries find no weight '{min(missing)}' in the file")
    with torch.no_grad():
        for name, parameter in known.items():
            parameter.copy_(named[name].reshape(parameter.shape))
    return module
