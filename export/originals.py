"""Loads a part of a checkpoint as a torch module by the libraries' own reading of its weights.

The parity gate's reference: a mistake in our reading of the weights shows as a difference.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders.single_file_utils import (
    convert_controlnet_checkpoint,
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
)
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.controlnets.controlnet import ControlNetModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from safetensors import safe_open
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from export.checkpoint import Checkpoint
from export.companion_modules import load_companion
from export.companions import COMPANIONS
from export.errors import SourceError
from export.weightfiles import Tensor

__all__ = ["load_original"]

Weights = Mapping[str, torch.Tensor]
OLD_PREFIX = "text_model."
OPEN_CLIP = (
    "cond_stage_model.model.",
    "conditioner.embedders.0.model.",  # of the refiner, which has no other
    "conditioner.embedders.1.model.",
)
TEXT: Mapping[str, Any] = {
    "text_encoder": CLIPTextModel,
    "text_encoder_2": CLIPTextModelWithProjection,
}


def load_original(checkpoint: Checkpoint, part: str) -> nn.Module:
    """Load `part`, a key of the checkpoint's tensors, in fp32. Raises SourceError."""
    if part in {each.folder for each in COMPANIONS}:
        return load_companion(checkpoint, part)
    place = checkpoint.pieces.places[part]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        read = _from_folder if place.is_dir() else _from_file
        module = read(checkpoint, part, place).eval()
    _change(module, checkpoint.tensors[part])
    return module


def _change(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Do what the person adds, rounded as the checkpoint's own weights are."""
    known = dict(module.named_parameters())
    for name, tensor in tensors.items():
        if not tensor.additions and tensor.appended is None:
            continue
        spellings = (name, OLD_PREFIX + name, name.removeprefix(OLD_PREFIX))
        spelled = next(each for each in spellings if each in known)
        value = known[spelled].detach()
        if tensor.appended is not None:
            value = torch.cat([value, torch.from_numpy(tensor.appended)])
        stored = value.numpy()
        for addition in tensor.additions:
            value = value + torch.from_numpy(addition.delta(stored)).reshape(value.shape)
        if tensor.dtype == "F16":
            value = value.half().float()
        _put(module, spelled, value)


def _own_config(checkpoint: Checkpoint, part: str) -> dict[str, object]:
    """Give the configuration as it was stored, before words were appended."""
    config = dict(checkpoint.configs[part])
    added = sum(word.rows for word in checkpoint.pieces.words if part in word.first)
    return config | {"vocab_size": int(str(config["vocab_size"])) - added} if added else config


def _from_folder(checkpoint: Checkpoint, part: str, folder: Path) -> nn.Module:
    makers = dict(TEXT) | {
        "controlnet": ControlNetModel,
        "unet": UNet2DConditionModel,
        "vae": AutoencoderKL,
    }
    stored = checkpoint.tensors[part].values()
    options: dict[str, Any] = {"use_safetensors": True, "local_files_only": True}
    # Loaded as it is stored and widened weight by weight: otherwise both are there at once.
    narrow = all(tensor.dtype == "F16" for tensor in stored)
    options["dtype" if part in TEXT else "torch_dtype"] = torch.float16 if narrow else torch.float32
    if any(".fp16" in tensor.file.name for tensor in stored):
        options["variant"] = "fp16"
    return makers[part].from_pretrained(folder, **options).float()


def _from_file(checkpoint: Checkpoint, part: str, file: Path) -> nn.Module:
    config = _own_config(checkpoint, part)
    if part == "unet":
        with torch.device("meta"):
            unet: Any = UNet2DConditionModel.from_config(config)
        stored = _stored(file, ("model.diffusion_model.",))
        return _filled(unet, convert_ldm_unet_checkpoint(stored, config))
    if part == "controlnet":
        with torch.device("meta"):
            controlnet: Any = ControlNetModel.from_config(config)
        stored = _stored(file, ("control_model.",))
        return _filled(controlnet, convert_controlnet_checkpoint(stored, config))
    if part == "vae":
        with torch.device("meta"):
            vae: Any = AutoencoderKL.from_config(config)
        whole = _stored(file, ("first_stage_model.",)) or _stored(file, ("",))
        original = not any(".down_blocks." in name for name in whole)
        return _filled(vae, convert_ldm_vae_checkpoint(whole, config) if original else whole)
    with torch.device("meta"):
        text: Any = TEXT[part](CLIPTextConfig.from_dict(config | {"dtype": "float32"}))
    prefixes = {
        "text_encoder": ("cond_stage_model.", "conditioner.embedders.0."),
        "text_encoder_2": ("conditioner.embedders.1.",),
    }
    alone = part == "text_encoder_2" and "text_encoder" not in checkpoint.tensors
    stored = _stored(file, ("conditioner.embedders.0.",) if alone else prefixes[part])
    for prefix in OPEN_CLIP:
        if any(name.startswith(prefix) for name in stored):
            return _filled(text, convert_open_clip_checkpoint(text, stored, prefix))
    return _filled(text, convert_ldm_clip_checkpoint(stored))


def _stored(file: Path, prefixes: tuple[str, ...]) -> dict[str, torch.Tensor]:
    with safe_open(file, framework="pt") as opened:
        return {
            name: opened.get_tensor(name)
            for name in opened.keys()  # noqa: SIM118  a method of the library, no mapping
            if name.startswith(prefixes)
        }


def _filled(module: nn.Module, weights: Weights) -> nn.Module:
    """Put the weights into a module of shapes alone; what it does not know is left, what it lacks
    is an error.
    """
    known = dict(module.named_parameters())
    named = {
        name.removeprefix(OLD_PREFIX) if name not in known else name: tensor
        for name, tensor in weights.items()
    }
    missing = known.keys() - named.keys()
    if missing:
        raise SourceError(f"the libraries find no weight '{min(missing)}' in the file")
    for name, parameter in known.items():
        _put(module, name, named.pop(name).float().reshape(parameter.shape))
    for owner in module.modules():
        for name, buffer in owner.named_buffers(recurse=False):
            if name != "position_ids":
                raise SourceError(f"the network has a buffer '{name}' of unknown content")
            owner.register_buffer(name, torch.arange(buffer.shape[-1])[None], persistent=False)
    return module


def _put(module: nn.Module, name: str, value: torch.Tensor) -> None:
    holder, _, leaf = name.rpartition(".")
    setattr(module.get_submodule(holder), leaf, nn.Parameter(value, requires_grad=False))
