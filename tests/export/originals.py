"""Writes single .safetensors files of the original code's form, with random weights.

The names come from our own table, read backwards; that it is right is shown by the libraries' own
readers, which the parity gate and the tests hold against it.
"""

from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from export import ldm
from export.architectures import TINY, TINY_XL, Architecture, write_random_checkpoint

__all__ = [
    "TINY_INPAINT",
    "TINY_INPAINT_SD2",
    "TINY_INPAINT_SDXL",
    "TINY_REFINER",
    "TINY_SD1",
    "TINY_SD2",
    "TINY_SDXL",
    "original_names",
    "write_single_file",
]

TEXT = dict(TINY["text_encoder"]) | {
    "vocab_size": 49408,
    "hidden_size": 64,
    "num_attention_heads": 1,
    "max_position_embeddings": 77,
    "bos_token_id": 49406,
    "eos_token_id": 49407,
    "pad_token_id": 49407,
}
VAE = dict(TINY["vae"]) | {"block_out_channels": [32, 32, 64, 64], "norm_num_groups": 32}
UNET = dict(TINY["unet"]) | {
    "block_out_channels": [64, 128],
    "attention_head_dim": 8,
    "cross_attention_dim": 64,
    "norm_num_groups": 32,
}
TINY_SD1: Architecture = dict(TINY) | {"text_encoder": TEXT, "unet": UNET, "vae": VAE}
TINY_SD2: Architecture = dict(TINY_SD1) | {
    "text_encoder": TEXT | {"hidden_act": "gelu", "pad_token_id": 0},
    "unet": UNET | {"attention_head_dim": [1, 2], "use_linear_projection": True},
}
TINY_SDXL: Architecture = dict(TINY_XL) | {
    "text_encoder": TEXT,
    "text_encoder_2": TEXT
    | {
        "hidden_size": 128,
        "num_attention_heads": 2,
        "projection_dim": 128,
        "num_hidden_layers": 3,
        "hidden_act": "gelu",
        "pad_token_id": 0,
    },
    "unet": dict(TINY_XL["unet"])
    | {
        "block_out_channels": [64, 128],
        "attention_head_dim": [1, 2],
        "cross_attention_dim": 192,
        "norm_num_groups": 32,
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 128 + 6 * 256,
    },
    "vae": VAE | {"scaling_factor": 0.13025},
}
TINY_INPAINT: Architecture = dict(TINY_SD1) | {"unet": UNET | {"in_channels": 9}}
TINY_INPAINT_SD2: Architecture = dict(TINY_SD2) | {
    "unet": dict(TINY_SD2["unet"]) | {"in_channels": 9}
}
TINY_INPAINT_SDXL: Architecture = dict(TINY_SDXL) | {
    "unet": dict(TINY_SDXL["unet"]) | {"in_channels": 9}
}
# Attention on an inner level alone, a plain level at the end, five numbers: as the real one.
TINY_REFINER: Architecture = {
    "text_encoder_2": TINY_SDXL["text_encoder_2"],
    "unet": dict(TINY_SDXL["unet"])
    | {
        "block_out_channels": [64, 128, 128],
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        "transformer_layers_per_block": [1, 2, 2],
        "attention_head_dim": [1, 2, 2],
        "cross_attention_dim": 128,
        "projection_class_embeddings_input_dim": 128 + 5 * 256,
    },
    "vae": TINY_SDXL["vae"],
    "scheduler": TINY_SDXL["scheduler"],
}
RESNET = (
    "in_layers.0",
    "in_layers.2",
    "emb_layers.1",
    "out_layers.0",
    "out_layers.3",
    "skip_connection",
)


def write_single_file(
    file: Path,
    work: Path,
    architecture: Architecture,
    *,
    seed: int = 1,
    dtype: str = "float16",
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write `file`, and the same weights as a diffusers folder into `work`; give the file."""
    write_random_checkpoint(work, architecture, seed=seed, dtype=dtype)
    unet, vae = (
        load_file(work / part / "diffusion_pytorch_model.safetensors") for part in ("unet", "vae")
    )
    whole = {
        f"model.diffusion_model.{original}": unet[name]
        for original, name in original_names("unet", architecture, unet).items()
    }
    for original, name in original_names("vae", architecture, vae).items():
        weight = vae[name]
        if ".attn_1." in original and original.endswith("weight") and weight.ndim == 2:
            weight = weight[:, :, None, None]  # 1 x 1 convolutions there
        whole[f"first_stage_model.{original}"] = weight
    if "text_encoder" not in architecture:
        second = load_file(work / "text_encoder_2/model.safetensors")
        open_clip = _open_clip(second, more=0)
        whole |= {f"conditioner.embedders.0.model.{k}": v for k, v in open_clip.items()}
    else:
        whole |= _text_encoders(work, architecture)
    whole["alphas_cumprod"] = np.linspace(1, 0.005, 1000, dtype=np.float32)
    save_file(
        {name: np.ascontiguousarray(value) for name, value in whole.items()},
        file,
        metadata=None if metadata is None else dict(metadata),
    )
    return file


def _text_encoders(work: Path, architecture: Architecture) -> dict[str, np.ndarray]:
    text = load_file(work / "text_encoder/model.safetensors")
    whole: dict[str, np.ndarray] = {}
    if architecture["text_encoder"]["hidden_act"] == "gelu":
        whole |= {f"cond_stage_model.model.{k}": v for k, v in _open_clip(text, more=1).items()}
    else:
        stem = "cond_stage_model.transformer.text_model."
        if "text_encoder_2" in architecture:
            stem = "conditioner.embedders.0.transformer.text_model."
            second = load_file(work / "text_encoder_2/model.safetensors")
            open_clip = _open_clip(second, more=0)
            whole |= {f"conditioner.embedders.1.model.{k}": v for k, v in open_clip.items()}
        whole |= {stem + name.removeprefix("text_model."): value for name, value in text.items()}
        whole[stem + "embeddings.position_ids"] = np.arange(77, dtype=np.int64)[None]
    return whole


def original_names(
    part: str, architecture: Architecture, names: Mapping[str, object]
) -> dict[str, str]:
    """Give original name -> diffusers' name of all weights of the UNet or VAE."""
    config = architecture[part]
    widths = config["block_out_channels"]
    assert isinstance(widths, list)
    layers, levels = int(str(config["layers_per_block"])), len(widths)
    if part == "unet":
        downs = {f"input_blocks.{(layers + 1) * i}.0.op.weight": (1,) for i in range(1, levels)}
        rename, candidates = ldm.unet_names(downs), _unet_candidates(names, layers, levels)
    else:
        firsts = {f"encoder.down.{i}.block.0.conv1.weight": (1,) for i in range(levels)}
        rename, candidates = ldm.vae_names(firsts), _vae_candidates(layers, levels)
    found = {original: rename(original) for original in candidates if rename(original) in names}
    assert sorted(found.values()) == sorted(names)
    return found


def _unet_candidates(names: Mapping[str, object], layers: int, levels: int) -> Iterator[str]:
    inner = {name.split(".", 4)[4] for name in names if ".attentions." in name}
    inner |= {name.split(".", 3)[3] for name in names if name.startswith("mid_block.attentions.")}
    leaves = ("weight", "bias")
    blocks = ("time_embed.0", "time_embed.2", "input_blocks.0.0", "out.0", "out.2")
    blocks += ("label_emb.0.0", "label_emb.0.2")
    yield from (f"{block}.{leaf}" for block, leaf in product(blocks, leaves))
    places = [("middle_block", place, "01"[place == "1"]) for place in "012"]
    for side in ("input_blocks", "output_blocks"):
        first = side == "input_blocks"
        for number in range(first, (layers + 1) * levels + first):
            places += [(f"{side}.{number}", slot, slot) for slot in "01"]
    for block, slot, kind in places:
        if kind == "0":
            resnet = product(RESNET, leaves)
            yield from (f"{block}.{slot}.{module}.{leaf}" for module, leaf in resnet)
        else:
            yield from (f"{block}.{slot}.{name}" for name in inner)
    for level in range(levels - 1):
        attends = f"up_blocks.{level}.attentions.0.norm.weight" in names
        up = f"output_blocks.{level * (layers + 1) + layers}.{1 + attends}.conv"
        yield from (f"{up}.{leaf}" for leaf in leaves)
        yield from (f"input_blocks.{(level + 1) * (layers + 1)}.0.op.{leaf}" for leaf in leaves)


def _vae_candidates(layers: int, levels: int) -> Iterator[str]:
    modules = [
        f"{side}.{name}"
        for side in ("encoder", "decoder")
        for name in ("conv_in", "conv_out", "norm_out")
    ]
    modules += ["quant_conv", "post_quant_conv"]
    block = ("norm1", "conv1", "norm2", "conv2", "nin_shortcut")
    for side, way, more in (("encoder", "down", 0), ("decoder", "up", 1)):
        for level in range(levels):
            modules.append(f"{side}.{way}.{level}.{way}sample.conv")
            for index, name in product(range(layers + more), block):
                modules.append(f"{side}.{way}.{level}.block.{index}.{name}")
        modules += [
            f"{side}.mid.{place}.{name}" for place in ("block_1", "block_2") for name in block
        ]
        modules += [f"{side}.mid.attn_1.{name}" for name in ("norm", "q", "k", "v", "proj_out")]
    return (f"{module}.{leaf}" for module in modules for leaf in ("weight", "bias"))


def _open_clip(text: Mapping[str, np.ndarray], *, more: int) -> dict[str, np.ndarray]:
    """Give OpenCLIP's form of the weights, with `more` layers, as SD 2.x leaves one out."""
    text = {name.removeprefix("text_model."): value for name, value in text.items()}
    layers = 1 + max(int(name.split(".")[2]) for name in text if name.startswith("encoder.layers."))
    found = {
        "token_embedding.weight": text["embeddings.token_embedding.weight"],
        "positional_embedding": text["embeddings.position_embedding.weight"],
        "ln_final.weight": text["final_layer_norm.weight"],
        "ln_final.bias": text["final_layer_norm.bias"],
        "logit_scale": np.array(4.6, np.float32),
    }
    width = found["positional_embedding"].shape[1]
    projection = text.get("text_projection.weight", np.eye(width, dtype=np.float16))
    found["text_projection"] = projection.T
    names = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "attn.out_proj": "self_attn.out_proj"}
    names |= {"mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
    for number in range(layers + more):
        ours = f"encoder.layers.{min(number, layers - 1)}"
        theirs = f"transformer.resblocks.{number}"
        for leaf in ("weight", "bias"):
            rows = [text[f"{ours}.self_attn.{name}_proj.{leaf}"] for name in "qkv"]
            found[f"{theirs}.attn.in_proj_{leaf}"] = np.concatenate(rows)
            for new, old in names.items():
                found[f"{theirs}.{new}.{leaf}"] = text[f"{ours}.{old}.{leaf}"]
    return found
