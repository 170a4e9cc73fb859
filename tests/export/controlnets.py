"""Writes tiny ControlNets with random weights, as diffusers' folder and in the original names."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from diffusers import ControlNetModel
from safetensors.numpy import load_file, save_file

from export.architectures import TINY, TINY_XL
from tests.export.originals import TINY_SD1

__all__ = ["CONTROL_CONFIGS", "residuals", "write_controlnet", "write_original_controlnet"]

UP = ("up_block_types", "out_channels", "sample_size")
CONTROL_CONFIGS = {
    name: {key: value for key, value in architecture["unet"].items() if key not in UP}
    | {"conditioning_embedding_out_channels": [4, 8, 8, 16]}
    for name, architecture in (("sd1", TINY), ("sdxl", TINY_XL), ("original", TINY_SD1))
}
TOP = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "controlnet_cond_embedding.conv_in": "input_hint_block.0",
    "controlnet_cond_embedding.conv_out": "input_hint_block.14",
    "controlnet_mid_block": "middle_block_out.0",
}
INSIDE = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}


def write_controlnet(folder: Path, config: Mapping[str, object], *, seed: int = 5) -> Path:
    """Save a ControlNet whose zero convolutions are not zero, in fp16; give the folder."""
    draw = torch.Generator().manual_seed(seed)
    net = ControlNetModel.from_config(dict(config))
    with torch.no_grad():
        for name, weight in net.named_parameters():
            spread = 0.05 if weight.ndim == 1 else weight[0].numel() ** -0.5
            weight.copy_(spread * torch.randn(weight.shape, generator=draw))
            if "norm" in name and name.endswith("weight"):
                weight.add_(1.0)
    net.half().save_pretrained(folder)
    return folder


def write_original_controlnet(file: Path, folder: Path) -> Path:
    """Write the weights in `folder` (two resolutions of one layer) under the original names."""
    weights = load_file(folder / "diffusion_pytorch_model.safetensors")
    save_file({f"control_model.{_original(name)}": value for name, value in weights.items()}, file)
    return file


def _original(name: str) -> str:
    module, _, leaf = name.rpartition(".")
    match module.split("."):
        case ["down_blocks", level, "downsamplers", _, _]:
            place = f"input_blocks.{2 * int(level) + 2}.0.op"
        case ["down_blocks", level, kind, _, *rest]:
            slot = int(kind == "attentions")
            place = f"input_blocks.{2 * int(level) + 1}.{slot}.{_inner(rest)}"
        case ["mid_block", kind, index, *rest]:
            slot = 1 if kind == "attentions" else 2 * int(index)
            place = f"middle_block.{slot}.{_inner(rest)}"
        case ["controlnet_cond_embedding", "blocks", index]:
            place = f"input_hint_block.{2 * int(index) + 2}"
        case ["controlnet_down_blocks", index]:
            place = f"zero_convs.{index}.0"
        case _:
            place = TOP[module]
    return f"{place}.{leaf}"


def _inner(rest: list[str]) -> str:
    return ".".join([INSIDE.get(rest[0], rest[0]), *rest[1:]])


def residuals(folder: Path, inputs: Mapping[str, torch.Tensor]) -> list[np.ndarray]:
    """Give what diffusers' own module computes, the middle's last."""
    net = ControlNetModel.from_pretrained(folder, torch_dtype=torch.float32).eval()
    with torch.inference_mode():
        down, middle = net(**inputs, return_dict=False)
    return [each.numpy() for each in (*down, middle)]
