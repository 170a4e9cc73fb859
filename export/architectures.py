"""Public architectures as data, and checkpoints of them with random weights.

Random weights prove speed, memory and the exporter's parity on sizes whose trained weights nobody
has to download; they never prove picture quality.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file

from export.modules import MODULES
from export.recipes import INPAINT_CHANNELS, RECIPES
from export.vocabulary import byte_letters

__all__ = [
    "PUBLIC",
    "SD15",
    "SD21",
    "SDXL",
    "TINY",
    "TINY_XL",
    "TURBO",
    "Architecture",
    "write_random_checkpoint",
]

Architecture = Mapping[str, Mapping[str, object]]

# Stable Diffusion 1.5: github.com/CompVis/stable-diffusion, v1-inference.yaml, in diffusers' terms.
SD15: Architecture = {
    "text_encoder": {
        "vocab_size": 49408,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "projection_dim": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "max_position_embeddings": 77,
        "hidden_act": "quick_gelu",
        "bos_token_id": 49406,
        "eos_token_id": 49407,
        "pad_token_id": 49407,
    },
    "unet": {
        "sample_size": 64,
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": [320, 640, 1280, 1280],
        "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
        "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
        "layers_per_block": 2,
        "attention_head_dim": 8,
        "cross_attention_dim": 768,
        "norm_num_groups": 32,
    },
    "vae": {
        "sample_size": 512,
        "in_channels": 3,
        "out_channels": 3,
        "latent_channels": 4,
        "block_out_channels": [128, 256, 512, 512],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "layers_per_block": 2,
        "norm_num_groups": 32,
        "scaling_factor": 0.18215,
    },
    "scheduler": {
        "_class_name": "PNDMScheduler",
        "num_train_timesteps": 1000,
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "prediction_type": "epsilon",
        "set_alpha_to_one": False,
        "skip_prk_steps": True,
        "steps_offset": 1,
    },
}

# The same family in the smallest form that still has every kind of layer.
TINY: Architecture = {
    "text_encoder": {
        "vocab_size": 700,
        "hidden_size": 32,
        "intermediate_size": 64,
        "projection_dim": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 20,
        "hidden_act": "quick_gelu",
        "bos_token_id": 698,
        "eos_token_id": 699,
        "pad_token_id": 699,
    },
    "unet": dict(SD15["unet"])
    | {
        "sample_size": 8,
        "block_out_channels": [16, 32],
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
        "layers_per_block": 1,
        "attention_head_dim": 2,
        "cross_attention_dim": 32,
        "norm_num_groups": 8,
    },
    "vae": dict(SD15["vae"])
    | {
        "sample_size": 64,
        "block_out_channels": [8, 8, 16, 16],
        "layers_per_block": 1,
        "norm_num_groups": 4,
    },
    "scheduler": SD15["scheduler"],
}

# Stable Diffusion XL: github.com/Stability-AI/generative-models, sd_xl_base.yaml.
SDXL: Architecture = {
    "text_encoder": SD15["text_encoder"],
    "text_encoder_2": dict(SD15["text_encoder"])
    | {
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "projection_dim": 1280,
        "num_hidden_layers": 32,
        "num_attention_heads": 20,
        "hidden_act": "gelu",
        "pad_token_id": 0,
    },
    "unet": dict(SD15["unet"])
    | {
        "sample_size": 128,
        "block_out_channels": [320, 640, 1280],
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        "transformer_layers_per_block": [1, 2, 10],
        "attention_head_dim": [5, 10, 20],
        "cross_attention_dim": 2048,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
    "vae": dict(SD15["vae"]) | {"sample_size": 1024, "scaling_factor": 0.13025},
    "scheduler": dict(SD15["scheduler"])
    | {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "leading"},
}
# Stable Diffusion 2.1 at 768 pixels: github.com/Stability-AI/stablediffusion, v2-inference-v.yaml;
# its text encoder is OpenCLIP's ViT-H without the last layer.
SD21: Architecture = {
    "text_encoder": dict(SD15["text_encoder"])
    | {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "projection_dim": 512,
        "num_hidden_layers": 23,
        "num_attention_heads": 16,
        "hidden_act": "gelu",
        "pad_token_id": 0,
    },
    "unet": dict(SD15["unet"])
    | {
        "sample_size": 96,
        "attention_head_dim": [5, 10, 20, 20],
        "cross_attention_dim": 1024,
        "use_linear_projection": True,
    },
    "vae": dict(SD15["vae"]) | {"sample_size": 768},
    "scheduler": dict(SD15["scheduler"])
    | {"_class_name": "DDIMScheduler", "prediction_type": "v_prediction"},
}
# SD-Turbo (Sauer et al., arXiv 2311.17042): the parts of 2.1 at 512 pixels, in one step.
TURBO: Architecture = dict(SD21) | {
    "unet": dict(SD21["unet"]) | {"sample_size": 64},
    "vae": SD15["vae"],
    "scheduler": dict(SD15["scheduler"])
    | {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "trailing"},
}
# What benchmarks call them by.
PUBLIC: Mapping[str, Architecture] = {"sd15": SD15, "sd21": SD21, "sdxl": SDXL, "turbo": TURBO}
TINY_XL: Architecture = {
    "text_encoder": TINY["text_encoder"],
    "text_encoder_2": dict(TINY["text_encoder"])
    | {
        "hidden_size": 48,
        "projection_dim": 40,
        "num_hidden_layers": 3,
        "hidden_act": "gelu",
    },
    "unet": dict(TINY["unet"])
    | {
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
        "transformer_layers_per_block": [1, 2],
        "attention_head_dim": [2, 4],
        "cross_attention_dim": 80,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 40 + 6 * 8,
    },
    "vae": dict(TINY["vae"]) | {"scaling_factor": 0.13025},
    "scheduler": SDXL["scheduler"],
}


# Gain of the attention to the text. SDXL's text is not normalised, so less is as sharp; more of it
# amplifies rounding until no two runtimes agree after a few steps.
SHARPNESS = {"sd1": 2.5, "sdxl": 1.5, "sdxl-refiner": 1.5}


def write_random_checkpoint(
    folder: Path, architecture: Architecture, *, seed: int, dtype: str = "float16"
) -> None:
    """Write a diffusers folder of `architecture` with seeded random weights of this numpy dtype.

    The weights are scaled so that signals keep their size through the layers, and so that a
    changed word or guidance scale changes the picture visibly: attention to the text is sharp.
    """
    recipe = next(
        each
        for each in RECIPES
        if ("text_encoder" in each.classes, "text_encoder_2" in each.classes)
        == ("text_encoder" in architecture, "text_encoder_2" in architecture)
    )
    classes: dict[str, object] = {
        part: ("transformers" if name.startswith("CLIP") else "diffusers", name)
        for part, name in recipe.classes.items()
    }
    classes["scheduler"] = ("diffusers", architecture["scheduler"]["_class_name"])
    inpainting = architecture["unet"]["in_channels"] == INPAINT_CHANNELS
    pipeline = recipe.inpainting if inpainting else recipe.pipelines[0]
    index = {"_class_name": pipeline, "_diffusers_version": "0.42.0", **recipe.settings, **classes}
    _write_json(folder / "model_index.json", index)
    _write_json(folder / "scheduler/scheduler_config.json", architecture["scheduler"])
    draw = np.random.default_rng(seed)
    for part, builder in {each.folder: each.module for each in recipe.components}.items():
        text = part.startswith("text_encoder")
        name = {} if text else {"_class_name": recipe.classes[part]}
        _write_json(folder / part / "config.json", name | dict(architecture[part]))
        with torch.device("meta"):
            module: Any = MODULES[builder](architecture[part])
        weights = {
            key: _weight(draw, key, tuple(value.shape), SHARPNESS[recipe.family]).astype(dtype)
            for key, value in module.net.state_dict().items()
        }
        stem = "model" if text else "diffusion_pytorch_model"
        save_file(weights, folder / part / f"{stem}.safetensors", metadata={"format": "pt"})
        if text:
            tokenizer = folder / part.replace("text_encoder", "tokenizer")
            _write_tokenizer(tokenizer, architecture[part])


def _weight(
    draw: np.random.Generator, key: str, shape: tuple[int, ...], sharpness: float
) -> NDArray[np.float32]:
    values = draw.standard_normal(shape, dtype=np.float32)
    if key.endswith("bias"):
        return 0.05 * values
    if len(shape) == 1:  # the gain of a normalisation
        return 1 + 0.1 * values
    if "embeddings." in key:
        # Words weigh more than their places; both are far above CLIP's 0.02, which a trained
        # network amplifies and a random one does not.
        return values * (0.3 if "position" in key else 1.0)
    gain = 1.0
    if ".attn2." in key:
        gain = sharpness if ".to_q." in key or ".to_k." in key else 2.0
    return values * np.float32(gain / math.sqrt(math.prod(shape[1:])))


def _write_json(path: Path, value: Mapping[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _write_tokenizer(folder: Path, config: Mapping[str, object]) -> None:
    """Write a byte-level BPE of exactly vocab_size ids: CLIP's form, with made-up merges."""
    size = int(str(config["vocab_size"]))
    letters = byte_letters()
    tokens = letters + [f"{letter}</w>" for letter in letters]
    merges: list[str] = []
    known = set(tokens)
    small = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    for left in _growing(small):
        for right in [*small, *(f"{letter}</w>" for letter in small)]:
            if len(tokens) == size - 2:
                break
            if left + right not in known:
                merges.append(f"{left} {right}")
                tokens.append(left + right)
                known.add(left + right)
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    _write_json(folder / "vocab.json", {token: number for number, token in enumerate(tokens)})
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", "utf-8")
    special = {"bos_token": tokens[-2], "eos_token": tokens[-1], "unk_token": tokens[-1]}
    _write_json(
        folder / "tokenizer_config.json",
        special
        | {
            "pad_token": tokens[-1],
            "model_max_length": config["max_position_embeddings"],
            "tokenizer_class": "CLIPTokenizer",
        },
    )


def _growing(small: list[str]) -> list[str]:
    """Give left halves of merges: letters, then pairs, then triples, shortest first."""
    pairs = [one + two for one in small for two in small]
    return small + pairs + [pair + letter for pair in pairs for letter in small]
