"""Reads the names of the original code's weights (github.com/CompVis/latent-diffusion and its
heirs): which network they make, and what diffusers and transformers call each of them.

The networks are read off the weights' own shapes, so that any size of a known make is recognised.
What shapes cannot tell is fixed by make: 8 attention heads in SD 1.x, heads of 64 elsewhere.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from export.errors import SourceError
from export.weightfiles import Tensor

__all__ = [
    "RESNET",
    "UNET_TOP",
    "clip_config",
    "open_clip_config",
    "open_clip_tensors",
    "renamed",
    "unet_config",
    "unet_names",
    "vae_config",
    "vae_names",
]

Shapes = Mapping[str, tuple[int, ...]]
Rename = Callable[[str], str]
HEAD = 64  # channels of an attention head, but for the UNet of SD 1.x
SD1_HEADS = 8

UNET_TOP = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb.0.0": "add_embedding.linear_1",
    "label_emb.0.2": "add_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_VAE_MID = {"block_1": "resnets.0", "attn_1": "attentions.0", "block_2": "resnets.1"}
_VAE_ATTENTION = {
    "norm": "group_norm",
    "q": "to_q",
    "k": "to_k",
    "v": "to_v",
    "proj_out": "to_out.0",
}
_OPEN_CLIP = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


def renamed(part: str, tensors: Mapping[str, Tensor], rename: Rename) -> dict[str, Tensor]:
    """Give the tensors under diffusers' names. Raises SourceError for a name of another make."""
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        try:
            found[rename(name)] = tensor
        except (KeyError, ValueError):
            raise SourceError(
                f"the file's {part} has the weight '{name[:80]}', which this family does not have"
            ) from None
    return found


def unet_config(shapes: Shapes) -> dict[str, object]:
    """Give diffusers' configuration of a UNet, less sample_size. Raises SourceError."""
    layers, levels = _unet_grid(shapes)
    widths = [_width(shapes, f"input_blocks.{1 + i * (layers + 1)}") for i in range(levels)]
    depths = [_depth(shapes, f"input_blocks.{1 + i * (layers + 1)}") for i in range(levels)]
    middle = _depth(shapes, "middle_block")
    if depths[-1] not in {0, middle} or not any(depths):
        raise SourceError(f"the unet has {middle} attention blocks in its middle: another make")
    level = next(place for place, depth in enumerate(depths) if depth)
    attention = f"input_blocks.{1 + level * (layers + 1)}.1"
    linear = len(_shape(shapes, f"{attention}.proj_in.weight")) == 2
    text = _shape(shapes, f"{attention}.transformer_blocks.0.attn2.to_k.weight")
    config: dict[str, object] = {
        "_class_name": "UNet2DConditionModel",
        "in_channels": _shape(shapes, "input_blocks.0.0.weight")[1],
        "out_channels": _shape(shapes, "out.2.weight")[0],
        "block_out_channels": widths,
        "down_block_types": [
            "CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in depths
        ],
        "up_block_types": [
            "CrossAttnUpBlock2D" if depth else "UpBlock2D" for depth in depths[::-1]
        ],
        "layers_per_block": layers,
        "transformer_layers_per_block": [*(depth or 1 for depth in depths[:-1]), middle],
        "attention_head_dim": [width // HEAD for width in widths] if linear else SD1_HEADS,
        "cross_attention_dim": text[1],
        "norm_num_groups": 32,
        "use_linear_projection": linear,
    }
    if "label_emb.0.0.weight" in shapes:
        config |= {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": _shape(shapes, "label_emb.0.0.weight")[1],
        }
    return config


def unet_names(shapes: Shapes) -> Rename:
    """Give the function from the original name of a UNet's weight to diffusers' name."""
    layers, _ = _unet_grid(shapes)

    def rename(name: str) -> str:
        module, _, leaf = name.rpartition(".")
        if module in UNET_TOP:
            return f"{UNET_TOP[module]}.{leaf}"
        side, number, rest = name.split(".", 2)
        if side == "middle_block":
            place = {"0": "resnets.0", "1": "attentions.0", "2": "resnets.1"}[number]
            return f"mid_block.{place}.{_inner(rest, place)}"
        slot, rest = rest.split(".", 1)
        first, block = {"input_blocks": (1, "down"), "output_blocks": (0, "up")}[side]
        if int(number) < first:
            raise KeyError(name)
        level, index = divmod(int(number) - first, layers + 1)
        if rest in {"op.weight", "op.bias", "conv.weight", "conv.bias"}:
            if index != layers:
                raise KeyError(name)  # only the last of a level changes the size
            return f"{block}_blocks.{level}.{block}samplers.0.conv.{leaf}"
        place = {"0": "resnets", "1": "attentions"}[slot]
        return f"{block}_blocks.{level}.{place}.{index}.{_inner(rest, place)}"

    return rename


def vae_config(shapes: Shapes) -> dict[str, object]:
    """Give diffusers' configuration of a VAE, less sample_size and scaling_factor."""
    levels = _count(shapes, "encoder.down.{}.block.0.conv1.weight")
    layers = _count(shapes, "encoder.down.0.block.{}.conv1.weight")
    widths = [
        _shape(shapes, f"encoder.down.{level}.block.0.conv1.weight")[0] for level in range(levels)
    ]
    return {
        "_class_name": "AutoencoderKL",
        "in_channels": _shape(shapes, "encoder.conv_in.weight")[1],
        "out_channels": _shape(shapes, "decoder.conv_out.weight")[0],
        "latent_channels": _shape(shapes, "decoder.conv_in.weight")[1],
        "block_out_channels": widths,
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "layers_per_block": layers,
        "norm_num_groups": 32,
    }


def vae_names(shapes: Shapes) -> Rename:
    """Give the function from the original name of a VAE's weight to diffusers' name."""
    levels = _count(shapes, "encoder.down.{}.block.0.conv1.weight")

    def rename(name: str) -> str:
        match name.split("."):
            case ["encoder" | "decoder" as side, "mid", place, *rest]:
                inner = _vae_inner(rest, _VAE_ATTENTION if place == "attn_1" else {})
                return f"{side}.mid_block.{_VAE_MID[place]}.{inner}"
            case ["encoder" | "decoder" as side, "down" | "up" as way, level, *rest]:
                # The original counts from the finest level on the way up as well.
                block = int(level) if way == "down" else levels - 1 - int(level)
                return f"{side}.{way}_blocks.{block}.{_vae_level(rest)}"
            case ["encoder" | "decoder" as side, "norm_out", leaf]:
                return f"{side}.conv_norm_out.{leaf}"
            case ["encoder" | "decoder", "conv_in" | "conv_out", _]:
                return name
            case ["quant_conv" | "post_quant_conv", _]:
                return name
            case _:
                raise KeyError(name)

    return rename


def clip_config(shapes: Shapes) -> dict[str, object]:
    """Give transformers' configuration of OpenAI's CLIP text encoder, as SD 1.x and XL have it."""
    stem = "text_model." if any(name.startswith("text_model.") for name in shapes) else ""
    layers = _count(shapes, stem + "encoder.layers.{}.mlp.fc1.weight")
    rows, width = _shape(shapes, stem + "embeddings.token_embedding.weight")
    return _text_config(
        vocabulary=rows,
        width=width,
        inner=_shape(shapes, stem + "encoder.layers.0.mlp.fc1.weight")[0],
        layers=layers,
        positions=_shape(shapes, stem + "embeddings.position_embedding.weight")[0],
        act="quick_gelu",
    )


def open_clip_config(shapes: Shapes, layers: int) -> dict[str, object]:
    """Give transformers' configuration of an OpenCLIP text encoder of which `layers` are used."""
    rows, width = _shape(shapes, "token_embedding.weight")
    return _text_config(
        vocabulary=rows,
        width=width,
        inner=_shape(shapes, "transformer.resblocks.0.mlp.c_fc.weight")[0],
        layers=layers,
        positions=_shape(shapes, "positional_embedding")[0],
        act="gelu",
    )


def open_clip_tensors(tensors: Mapping[str, Tensor], layers: int) -> dict[str, Tensor]:
    """Give an OpenCLIP text encoder's weights under transformers' names, the first `layers` only.

    Its queries, keys and values are one matrix there, and its projection lies the other way.
    Raises SourceError for a name of another make.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        parts = name.split(".")
        if parts[:2] == ["transformer", "resblocks"] and len(parts) > 3 and parts[2].isdecimal():
            if int(parts[2]) < layers:
                found |= _open_clip_layer(int(parts[2]), ".".join(parts[3:]), tensor)
            continue
        match name:
            case "token_embedding.weight":
                found["embeddings.token_embedding.weight"] = tensor
            case "positional_embedding":
                found["embeddings.position_embedding.weight"] = tensor
            case "ln_final.weight" | "ln_final.bias":
                found[f"final_layer_norm.{parts[1]}"] = tensor
            case "text_projection":
                shape = tensor.shape[::-1]
                found["text_projection.weight"] = replace(tensor, shape=shape, transposed=True)
            case "logit_scale":
                pass  # of its training
            case _:
                raise _unknown_text(name)
    return found


def _open_clip_layer(number: int, rest: str, tensor: Tensor) -> dict[str, Tensor]:
    layer = f"encoder.layers.{number}"
    if rest in {"attn.in_proj_weight", "attn.in_proj_bias"} and tensor.shape:
        width, leaf = tensor.shape[0] // 3, rest.rpartition("_")[2]
        return {
            f"{layer}.self_attn.{name}_proj.{leaf}": replace(
                tensor, shape=(width, *tensor.shape[1:]), rows=(at * width, (at + 1) * width)
            )
            for at, name in enumerate("qkv")
        }
    module, _, leaf = rest.rpartition(".")
    if module not in _OPEN_CLIP:
        raise _unknown_text(rest)
    return {f"{layer}.{_OPEN_CLIP[module]}.{leaf}": tensor}


def _unknown_text(name: str) -> SourceError:
    return SourceError(f"the file's text encoder has the weight '{name[:80]}', which no CLIP has")


def _text_config(
    *, vocabulary: int, width: int, inner: int, layers: int, positions: int, act: str
) -> dict[str, object]:
    return {
        "architectures": ["CLIPTextModel"],
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": inner,
        "projection_dim": width,
        "num_hidden_layers": layers,
        "num_attention_heads": max(1, width // HEAD),
        "max_position_embeddings": positions,
        "hidden_act": act,
        "bos_token_id": 49406,
        "eos_token_id": 49407,
        "pad_token_id": 49407 if act == "quick_gelu" else 0,
    }


def _unet_grid(shapes: Shapes) -> tuple[int, int]:
    """Give layers a level, and levels. The levels of the encoder end in a down-sampling each."""
    downs = sorted(
        int(name.split(".")[1])
        for name in shapes
        if re.fullmatch(r"input_blocks\.\d{1,4}\.0\.op\.weight", name)
    )
    if not downs:
        raise SourceError("the file's unet has no levels: it is of another make")
    layers = downs[0] - 1
    if layers < 1 or downs != [(layers + 1) * (level + 1) for level in range(len(downs))]:
        raise SourceError("the file's unet has levels of different lengths: it is of another make")
    return layers, len(downs) + 1


def _width(shapes: Shapes, block: str) -> int:
    return _shape(shapes, f"{block}.0.out_layers.3.weight")[0]


def _depth(shapes: Shapes, block: str) -> int:
    return _count(shapes, block + ".1.transformer_blocks.{}.norm1.weight")


def _inner(rest: str, place: str) -> str:
    if place.startswith("attentions"):
        return rest
    module, _, leaf = rest.rpartition(".")
    return f"{RESNET[module]}.{leaf}"


def _vae_level(rest: Sequence[str]) -> str:
    match rest:
        case ["block", index, *inner]:
            return f"resnets.{int(index)}.{_vae_inner(inner, {})}"
        case ["downsample" | "upsample" as sampling, "conv", leaf]:
            return f"{sampling}rs.0.conv.{leaf}"
        case _:
            raise KeyError(rest)


def _vae_inner(rest: Sequence[str], table: Mapping[str, str]) -> str:
    module, leaf = rest
    if table:
        return f"{table[module]}.{leaf}"
    return f"{'conv_shortcut' if module == 'nin_shortcut' else module}.{leaf}"


def _count(shapes: Shapes, pattern: str) -> int:
    count = 0
    while pattern.format(count) in shapes:
        count += 1
    return count


def _shape(shapes: Shapes, name: str) -> tuple[int, ...]:
    shape = shapes.get(name)
    if shape is None or len(shape) < 2:
        raise SourceError(f"the file lacks the weight '{name}', so its network is not known")
    return shape
