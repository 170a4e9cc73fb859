"""Architectures in small, and LoRA files for them in the key style of every trainer."""

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from safetensors.numpy import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from export.architectures import TINY
from export.lora_names import ldm_unet_names
from export.weightfiles import Addition

__all__ = [
    "ALPHA",
    "ATTENTION_ONLY",
    "NOTHING",
    "RANK",
    "SCALE",
    "SD1_LIKE",
    "SDXL_LIKE",
    "STYLES",
    "UNETS",
    "assert_same",
    "attentions",
    "clip",
    "deltas",
    "draw",
    "expected",
    "in_ldm",
    "kohya",
    "module_of",
    "shapes_of",
    "state",
    "tiny_weights",
    "trainable",
    "unet",
    "write",
    "xl_weights",
]

RANK, ALPHA, SCALE = 4, 3.0, 0.75
Factors = Mapping[tuple[str, str], tuple[np.ndarray, np.ndarray]]

SD2_LIKE = dict(TINY["unet"]) | {
    "block_out_channels": [16, 16, 32, 32],
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    "layers_per_block": 2,
    "attention_head_dim": [2, 2, 4, 4],
    "cross_attention_dim": 64,
    "use_linear_projection": True,
}
SDXL_LIKE = SD2_LIKE | {
    "block_out_channels": [16, 32, 32],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "attention_head_dim": [2, 4, 4],
    "transformer_layers_per_block": [1, 2, 3],
    "cross_attention_dim": 96,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 80,
}
SD1_LIKE = SD2_LIKE | {"use_linear_projection": False, "cross_attention_dim": 32}
UNETS = {"sd1": SD1_LIKE, "sd2": SD2_LIKE, "sdxl": SDXL_LIKE, "tiny": dict(TINY["unet"])}


def unet(config: Mapping) -> UNet2DConditionModel:
    with torch.device("meta"):
        return UNet2DConditionModel.from_config(dict(config))


def clip(kind: type = CLIPTextModel) -> torch.nn.Module:
    with torch.device("meta"):
        return kind(CLIPTextConfig(**TINY["text_encoder"]))


def shapes_of(module: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in module.named_parameters()}


def tiny_weights() -> dict[str, dict[str, tuple[int, ...]]]:
    return {"unet": shapes_of(unet(TINY["unet"])), "text_encoder": shapes_of(clip())}


def xl_weights() -> dict[str, dict[str, tuple[int, ...]]]:
    return {
        "unet": shapes_of(unet(SDXL_LIKE)),
        "text_encoder": shapes_of(clip()),
        "text_encoder_2": shapes_of(clip(CLIPTextModelWithProjection)),
    }


def trainable(weights: Mapping) -> list[tuple[str, str]]:
    return [
        (component, name)
        for component, shapes in weights.items()
        for name, shape in shapes.items()
        if name.endswith(".weight") and len(shape) > 1 and "embeddings" not in name
    ]


def attentions(weights: Mapping) -> list[tuple[str, str]]:
    kept = ("to_q.", "to_k.", "to_v.", "to_out.", "q_proj.", "k_proj.", "v_proj.", "out_proj.")
    return [each for each in trainable(weights) if each[1].rpartition("weight")[0].endswith(kept)
            or "to_out.0" in each[1]]  # fmt: skip


def draw(weights: Mapping, chosen: list[tuple[str, str]], seed: int = 3) -> Factors:
    random = np.random.default_rng(seed)
    found = {}
    for component, name in chosen:
        out, *rest = weights[component][name]
        up = random.standard_normal((out, RANK) + (1, 1) * (len(rest) == 3))
        down = random.standard_normal((RANK, *rest))
        found[component, name] = (up.astype(np.float32), down.astype(np.float32))
    return found


def expected(weights: Mapping, factors: Factors, strength: float) -> dict[tuple[str, str], object]:
    return {
        (component, name): strength
        * np.tensordot(up.reshape(len(up), RANK).astype(float), down.astype(float), axes=1)
        for (component, name), (up, down) in factors.items()
    }


NOTHING = np.zeros(0)  # most additions are the same whatever is stored


def deltas(
    found: Mapping[str, Mapping[str, Addition]], stored: Mapping = MappingProxyType({})
) -> dict[tuple[str, str], np.ndarray]:
    return {
        (component, name): addition.delta(stored.get((component, name), NOTHING))
        for component, additions in found.items()
        for name, addition in additions.items()
    }


def assert_same(found: Mapping, wanted: Mapping, tolerance: float = 1e-5) -> None:
    assert set(found) == set(wanted)
    for key, value in wanted.items():
        assert found[key].shape == value.shape
        np.testing.assert_allclose(found[key], value, rtol=tolerance, atol=tolerance, err_msg=key)


# Key styles: each writes the factors of one weight as its trainers do, alpha included or worked in.
KOHYA = {"unet": "lora_unet_", "text_encoder": "lora_te_"}
KOHYA_XL = {"unet": "lora_unet_", "text_encoder": "lora_te1_", "text_encoder_2": "lora_te2_"}
OLD_TEXT = {"q_proj": "to_q", "k_proj": "to_k", "v_proj": "to_v", "out_proj": "to_out"}


def module_of(component: str, name: str, *, clip_prefix: bool = True) -> str:
    module = name.removesuffix(".weight")
    if component == "unet" or not clip_prefix:
        return module
    bare = module.removeprefix("text_model.")
    return bare if bare == "text_projection" else f"text_model.{bare}"


def in_ldm(weights: Mapping, name: str) -> str:
    table = inverse(tuple(weights["unet"]))
    (module,) = [ours for ours in table if name.startswith(f"{ours}.")]
    return table[module] + name.removeprefix(module)


@cache
def inverse(names: tuple[str, ...]) -> dict[str, str]:
    return {ours: theirs for theirs, ours in ldm_unet_names(names).items()}


def kohya(weights: Mapping, component: str, name: str) -> str:
    flat = module_of(component, name).replace(".", "_")
    return (KOHYA_XL if "text_encoder_2" in weights else KOHYA)[component] + flat


def kohya_bare(weights: Mapping, component: str, name: str) -> str:
    return KOHYA[component] + module_of(component, name, clip_prefix=False).replace(".", "_")


def kohya_ldm(weights: Mapping, component: str, name: str) -> str:
    if component != "unet":
        return kohya(weights, component, name)
    return "lora_unet_" + in_ldm(weights, name).removesuffix(".weight").replace(".", "_")


def comfy(weights: Mapping, component: str, name: str) -> str:
    if component != "unet":
        return kohya(weights, component, name)
    return "diffusion_model." + in_ldm(weights, name).removesuffix(".weight")


def dotted(weights: Mapping, component: str, name: str) -> str:
    return f"{component}.{module_of(component, name)}"


def linear(weights: Mapping, component: str, name: str) -> str:
    kind = "lora" if component == "unet" else "lora_linear_layer"
    return f"{dotted(weights, component, name)}.{kind}"


def peft(weights: Mapping, component: str, name: str) -> str:
    return f"base_model.model.{module_of(component, name)}"


def peft_inside(weights: Mapping, component: str, name: str) -> str:
    return f"{component}.base_model.model.{module_of(component, name)}"


def processor(weights: Mapping, component: str, name: str) -> str:
    module = module_of(component, name)
    if component == "unet":
        head, _, leaf = module.removesuffix(".0").rpartition(".")
        return f"unet.{head}.processor.{leaf}"
    head, _, leaf = module.rpartition(".")
    return f"{component}.{head}.{OLD_TEXT[leaf]}"


def without_component(weights: Mapping, component: str, name: str) -> str:
    return processor(weights, component, name).removeprefix("unet.")


DOWN_UP = (".lora_down.weight", ".lora_up.weight")
STYLES: dict[str, tuple[Callable, tuple[str, str], bool]] = {
    # name: (layer, ends of the keys, alpha in the file)
    "kohya": (kohya, DOWN_UP, True),
    "kohya without text_model": (kohya_bare, DOWN_UP, True),
    "kohya in LDM's names": (kohya_ldm, DOWN_UP, True),
    "comfy": (comfy, DOWN_UP, True),
    "diffusers": (dotted, (".lora_A.weight", ".lora_B.weight"), False),
    "diffusers 0.2x": (linear, (".down.weight", ".up.weight"), False),
    "peft": (peft, (".lora_A.weight", ".lora_B.weight"), False),
    "peft with a name": (peft_inside, (".lora_A.default.weight", ".lora_B.default.weight"), False),
    "processor": (processor, ("_lora.down.weight", "_lora.up.weight"), False),
    "first": (without_component, ("_lora.down.weight", "_lora.up.weight"), False),
}
ATTENTION_ONLY = ("processor", "first")


def state(weights: Mapping, factors: Factors, style: str) -> dict[str, np.ndarray]:
    layer, (down_end, up_end), with_alpha = STYLES[style]
    found = {}
    for (component, name), (up, down) in factors.items():
        base = layer(weights, component, name)
        found[base + down_end] = down
        found[base + up_end] = up if with_alpha else up * np.float32(ALPHA / RANK)
        if with_alpha:
            found[f"{base}.alpha"] = np.array(ALPHA, dtype=np.float32)
    return found


def write(folder: Path, tensors: Mapping, **metadata: str) -> Path:
    file = folder / "some lora.safetensors"
    save_file({key: np.array(value, order="C") for key, value in tensors.items()}, file, metadata)
    return file
