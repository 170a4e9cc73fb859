"""Writes what a checkpoint may have beside its family's parts, tiny and with random weights."""

import json
import math
from pathlib import Path

import torch
from diffusers import AutoencoderTiny
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from safetensors.torch import save_file
from torch import nn
from transformers import CLIPConfig

__all__ = [
    "original_taesd",
    "random_",
    "tiny_checker",
    "tiny_vae",
    "write_checker",
    "write_taesd",
]

VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 8,
}
PREPARATION = {"size": 40, "crop_size": 32, "feature_extractor_type": "CLIPFeatureExtractor"}
WIDTH = 8  # channels of the tiny autoencoder; TAESD has 64


def random_(module: nn.Module, seed: int) -> nn.Module:
    """Fill a module with seeded weights that keep the size of what flows through it."""
    draw = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        values = torch.randn(parameter.shape, generator=draw)
        if parameter.ndim > 1:
            values *= 1.4 / math.sqrt(parameter[0].numel())
        elif name.endswith("bias"):
            values *= 0.05
        elif "norm" in name or "layrnorm" in name:
            values = 1 + 0.1 * values
        parameter.data = values
    return module.eval()


def tiny_checker(seed: int) -> StableDiffusionSafetyChecker:
    """Give diffusers' safety checker with random weights; its thresholds flag nothing."""
    checker = StableDiffusionSafetyChecker(CLIPConfig(projection_dim=24, vision_config=VISION))
    random_(checker, seed)
    checker.concept_embeds_weights.data = torch.ones(17)
    checker.special_care_embeds_weights.data = torch.ones(3)
    return checker


def write_checker(
    folder: Path, checker: StableDiffusionSafetyChecker, *, dtype: torch.dtype = torch.float32
) -> None:
    """Put a safety checker into a diffusers folder as checkpoints of 2022 have it."""
    index = json.loads((folder / "model_index.json").read_text())
    index["safety_checker"] = ["stable_diffusion", "StableDiffusionSafetyChecker"]
    index["feature_extractor"] = ["transformers", "CLIPFeatureExtractor"]
    (folder / "model_index.json").write_text(json.dumps(index))
    place = folder / "safety_checker"
    place.mkdir()
    config = {"_name_or_path": "/home/somebody/safety", "projection_dim": 24}
    config["vision_config"] = VISION | {"_name_or_path": "/home/somebody/vision"}
    config["text_config"] = {"vocab_size": 49408}
    (place / "config.json").write_text(json.dumps(config))
    weights = {
        name.replace("vision_model.", "vision_model.vision_model.", 1): value.to(dtype).contiguous()
        for name, value in checker.state_dict().items()
    }
    weights["vision_model.vision_model.embeddings.position_ids"] = torch.arange(17)[None]
    save_file(weights, place / "model.safetensors")
    (folder / "feature_extractor").mkdir()
    (folder / "feature_extractor/preprocessor_config.json").write_text(json.dumps(PREPARATION))


def tiny_vae(seed: int, **config: object) -> AutoencoderTiny:
    """Give diffusers' tiny autoencoder with random weights."""
    narrow = {
        "encoder_block_out_channels": (WIDTH,) * 4,
        "decoder_block_out_channels": (WIDTH,) * 4,
    }
    return random_(AutoencoderTiny(**(narrow | config)), seed)


class Block(nn.Module):
    """The residual block of TAESD, under its original names."""

    def __init__(self, width: int) -> None:
        super().__init__()
        layers = []
        for last in (False, False, True):
            layers += [nn.Conv2d(width, width, 3, padding=1), *([] if last else [nn.ReLU()])]
        self.conv = nn.Sequential(*layers)
        self.fuse = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fuse(self.conv(x) + x)


class Clamp(nn.Module):
    """Bound latents softly to -3..3."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x / 3) * 3


def original_taesd(width: int = WIDTH, latents: int = 4) -> tuple[nn.Module, nn.Module]:
    """Build TAESD's encoder and decoder as its own repository lays them out, colours in 0..1."""

    def conv(into: int, out: int, **given: object) -> nn.Module:
        return nn.Conv2d(into, out, 3, padding=1, **given)

    encoder: list[nn.Module] = [conv(3, width), Block(width)]
    for _ in range(3):
        encoder.append(conv(width, width, stride=2, bias=False))
        encoder += [Block(width) for _ in range(3)]
    encoder.append(conv(width, latents))
    decoder: list[nn.Module] = [Clamp(), conv(latents, width), nn.ReLU()]
    for _ in range(3):
        decoder += [Block(width) for _ in range(3)]
        decoder += [nn.Upsample(scale_factor=2), conv(width, width, bias=False)]
    decoder += [Block(width), conv(width, 3)]
    return nn.Sequential(*encoder), nn.Sequential(*decoder)


def write_taesd(folder: Path, *, seed: int = 5, latents: int = 4) -> tuple[nn.Module, nn.Module]:
    """Write taesd_encoder.safetensors and taesd_decoder.safetensors; give the modules."""
    encoder, decoder = (random_(each, seed) for each in original_taesd(latents=latents))
    folder.mkdir(parents=True, exist_ok=True)
    for name, each in (("encoder", encoder), ("decoder", decoder)):
        save_file(each.state_dict(), folder / f"taesd_{name}.safetensors")
    return encoder, decoder
