"""A LoRA adds the same to the same weights in every key style, and as diffusers fuses it."""

import json
import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from diffusers.loaders import StableDiffusionLoraLoaderMixin, StableDiffusionXLLoraLoaderMixin
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
from diffusers.utils.state_dict_utils import (
    convert_state_dict_to_peft,
    convert_unet_state_dict_to_peft,
)
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from export import MissingError, SourceError
from export.architectures import TINY
from export.lora import LowRank, combine, read_lora
from export.lora_names import addresses, ldm_unet_names, locate

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


@pytest.fixture(scope="module")
def weights() -> dict[str, dict[str, tuple[int, ...]]]:
    return {"unet": shapes_of(unet(TINY["unet"])), "text_encoder": shapes_of(clip())}


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


def deltas(found: Mapping[str, Mapping[str, LowRank]]) -> dict[tuple[str, str], np.ndarray]:
    return {
        (component, name): addition.delta()
        for component, additions in found.items()
        for name, addition in additions.items()
    }


def same(found: Mapping, wanted: Mapping, tolerance: float = 1e-5) -> None:
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


@pytest.mark.parametrize("style", STYLES)
def test_every_key_style_adds_the_same(tmp_path, weights, style):
    chosen = (attentions if style in ATTENTION_ONLY else trainable)(weights)
    factors = draw(weights, chosen)
    file = write(tmp_path, state(weights, factors, style))
    wanted = expected(weights, factors, SCALE * ALPHA / RANK)
    assert len(wanted) > 30
    same(deltas(read_lora(file, SCALE, weights)), wanted)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_read_exactly(tmp_path, weights, dtype):
    factors = draw(weights, attentions(weights)[:3])
    tensors = {
        key: torch.tensor(value).to(dtype)
        for key, value in state(weights, factors, "kohya").items()
    }
    save_torch(tensors, tmp_path / "half.safetensors")
    rounded = {
        key: tuple(torch.tensor(each).to(dtype).float().numpy() for each in pair)
        for key, pair in factors.items()
    }
    wanted = expected(weights, rounded, ALPHA / RANK)
    same(deltas(read_lora(tmp_path / "half.safetensors", 1.0, weights)), wanted)


def test_a_whole_alpha_counts_and_a_missing_one_is_the_rank(tmp_path, weights):
    factors = draw(weights, attentions(weights)[:2])
    tensors = state(weights, factors, "kohya")
    first, second = (key for key in tensors if key.endswith(".alpha"))
    tensors[first] = np.array([8], dtype=np.int64)
    del tensors[second]
    wanted = expected(weights, factors, 1.0)
    wanted[next(iter(wanted))] *= 8 / RANK
    same(deltas(read_lora(write(tmp_path, tensors), 1.0, weights)), wanted)


# Names against diffusers


@pytest.mark.parametrize("family", UNETS)
def test_ldm_names_are_those_that_diffusers_converts(family):
    names = list(shapes_of(unet(UNETS[family])))
    weights = {"unet": names}
    checkpoint = {f"model.diffusion_model.{in_ldm(weights, name)}": name for name in names}
    assert len(checkpoint) == len(names)
    assert convert_ldm_unet_checkpoint(checkpoint, UNETS[family]) == {name: name for name in names}


@pytest.mark.parametrize("family", UNETS)
def test_every_weight_is_found_by_its_flat_name_in_both_conventions(family):
    names = list(shapes_of(unet(UNETS[family])))
    places = addresses({"unet": names})
    for name in names:
        if name.endswith(".weight"):
            for layer in (name, in_ldm({"unet": names}, name)):
                flat = layer.removesuffix(".weight").replace(".", "_")
                assert locate(f"lora_unet_{flat}", places) == [("unet", name)]


def test_one_spelling_for_two_weights_is_refused():
    with pytest.raises(SourceError, match="are one name"):
        addresses({"unet": ["a_b.c.weight", "a.b_c.weight"]})


def diffusers_names(tensors: Mapping, config: Mapping, loader: type) -> set[tuple[str, str]]:
    """Give component and parameter of every layer as diffusers' converters name them."""
    torched = {key: torch.tensor(value) for key, value in tensors.items()}
    # The loader of SD 1.x and 2.x asks for no configuration, that of SDXL for the UNet's.
    extra = {"unet_config": SimpleNamespace(**config)} if loader is XL else {}
    converted, _ = loader.lora_state_dict(torched, **extra)
    found = set()
    for component in ("unet", "text_encoder", "text_encoder_2"):
        part = {
            key.removeprefix(f"{component}."): value
            for key, value in converted.items()
            if key.startswith(f"{component}.")
        }
        if part and "lora_A" not in next(iter(part)):
            to_peft = convert_unet_state_dict_to_peft
            if component != "unet":
                to_peft = convert_state_dict_to_peft
            part = to_peft(part)
        found |= {(component, key.split(".lora_A")[0]) for key in part if ".lora_A" in key}
    return found


XL = StableDiffusionXLLoraLoaderMixin


@pytest.mark.parametrize("style", ["kohya", "diffusers", "diffusers 0.2x", "processor"])
def test_layers_mean_what_diffusers_takes_them_for(tmp_path, weights, style):
    tensors = state(weights, draw(weights, attentions(weights)), style)
    theirs = diffusers_names(tensors, TINY["unet"], StableDiffusionLoraLoaderMixin)
    ours = read_lora(write(tmp_path, tensors), 1.0, weights)
    assert theirs == {
        (component, module_of(component, name))
        for component, additions in ours.items()
        for name in additions
    }


def xl_weights() -> dict[str, dict[str, tuple[int, ...]]]:
    return {
        "unet": shapes_of(unet(SDXL_LIKE)),
        "text_encoder": shapes_of(clip()),
        "text_encoder_2": shapes_of(clip(CLIPTextModelWithProjection)),
    }


def test_an_sdxl_lora_in_ldm_names_means_what_diffusers_takes_it_for(tmp_path):
    weights = xl_weights()
    tensors = state(weights, draw(weights, attentions(weights)), "kohya in LDM's names")
    assert any(key.startswith("lora_unet_output_blocks_5_1_") for key in tensors)
    theirs = diffusers_names(tensors, SDXL_LIKE, XL)
    ours = read_lora(write(tmp_path, tensors), 1.0, weights)
    assert theirs == {(part, module_of(part, name)) for part in ours for name in ours[part]}


# Numbers against diffusers and PEFT


def real(module: torch.nn.Module, seed: int) -> torch.nn.Module:
    module = module.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed)
    for value in module.parameters():
        value.data = torch.randn(value.shape, generator=generator)
    return module


def fused(pipe: object, file: Path) -> dict[tuple[str, str], np.ndarray]:
    """Give what diffusers adds to each parameter when it loads and fuses `file`."""
    parts = [part for part in ("unet", "text_encoder", "text_encoder_2") if hasattr(pipe, part)]
    before = {
        (part, name): value.detach().clone().double().numpy()
        for part in parts
        for name, value in getattr(pipe, part).named_parameters()
    }
    pipe.load_lora_weights(file.parent, weight_name=file.name)
    pipe.fuse_lora(lora_scale=SCALE, components=parts)
    pipe.unload_lora_weights()
    changes = {}
    for (part, name), old in before.items():
        change = dict(getattr(pipe, part).named_parameters())[name].detach().double().numpy() - old
        if np.abs(change).max() > 0:
            changes[part, name] = change
    return changes


def tiny_pipe() -> StableDiffusionPipeline:
    return StableDiffusionPipeline(
        vae=None,
        text_encoder=real(clip(), 1),
        tokenizer=None,
        unet=real(unet(TINY["unet"]), 2),
        scheduler=None,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def xl_pipe() -> StableDiffusionXLPipeline:
    return StableDiffusionXLPipeline(
        vae=None,
        text_encoder=real(clip(), 1),
        text_encoder_2=real(clip(CLIPTextModelWithProjection), 3),
        tokenizer=None,
        tokenizer_2=None,
        unet=real(unet(SDXL_LIKE), 2),
        scheduler=None,
    )


@pytest.mark.filterwarnings("ignore")  # PEFT's and torch's about each other
@pytest.mark.parametrize("style", ["kohya", "diffusers", "diffusers 0.2x", "processor", "xl"])
def test_the_sum_is_what_diffusers_fuses(tmp_path, weights, style):
    pytest.importorskip("peft", reason="diffusers fuses only with PEFT, which is no dependency")
    if style == "xl":  # diffusers reads LDM's names for SDXL alone
        weights, pipe, style = xl_weights(), xl_pipe(), "kohya in LDM's names"
    else:
        pipe = tiny_pipe()
    chosen = attentions(weights) if style in ATTENTION_ONLY else trainable(weights)
    file = write(tmp_path, state(weights, draw(weights, chosen), style))
    ours = deltas(read_lora(file, SCALE, weights))
    assert len(ours) == len(chosen)
    # The difference of two fp32 weights of size 1 to 10 has an error of 1e-6.
    same(fused(pipe, file), ours, tolerance=1e-5)


# Notes beside the tensors


def noted(alpha: float, patterns: Mapping[str, float], **more: object) -> str:
    fields = {"r": RANK, "lora_alpha": alpha, "alpha_pattern": patterns} | more
    return json.dumps({f"unet.{key}": value for key, value in fields.items()})


def test_alpha_comes_from_diffusers_notes(tmp_path, weights):
    query, key, value, out = (
        each for each in attentions(weights) if "down_blocks.0.attentions.0" in each[1]
        and "attn1" in each[1]
    )  # fmt: skip
    factors = draw(weights, [query, key, value, out])
    module = {each: each[1].removesuffix(".weight") for each in factors}
    patterns = {f"^{module[query]}": 8.0, "attn1.to_k": 6.0, "o_v": 5.0}
    tensors = state(weights, factors, "diffusers")
    for name in tensors:
        if name.endswith("lora_B.weight"):
            tensors[name] = tensors[name] / np.float32(ALPHA / RANK)
    file = write(tmp_path, tensors, lora_adapter_metadata=noted(2.0, patterns))
    found = read_lora(file, 1.0, weights)["unet"]
    got = {each: found[each[1]].scale * RANK for each in factors}
    assert got == {query: 8.0, key: 6.0, value: 2.0, out: 2.0}  # 'o_v' is no whole name
    file = write(tmp_path, tensors, lora_adapter_metadata=noted(2.0, {}, use_rslora=True))
    assert read_lora(file, 1.0, weights)["unet"][query[1]].scale == 2.0 / np.sqrt(RANK)


def test_alpha_comes_from_the_configuration_that_peft_writes_beside_the_file(tmp_path, weights):
    factors = draw(weights, [each for each in attentions(weights) if each[0] == "unet"])
    file = write(tmp_path, state(weights, factors, "peft"))
    file = file.rename(tmp_path / "adapter_model.safetensors")
    assert next(iter(read_lora(file, 1.0, weights)["unet"].values())).scale == 1.0
    config = {"lora_alpha": 16, "r": RANK, "peft_type": "LORA"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    assert {each.scale for each in read_lora(file, 1.0, weights)["unet"].values()} == {16 / RANK}


@pytest.mark.parametrize(
    ("note", "match"),
    [
        ("{", "not good JSON"),
        (noted(2.0, {}, use_dora=True), "is a DoRA"),
        (noted(2.0, {}, lora_bias=True), "with biases"),
        (noted(2.0, {"(a+)+": 1.0}), "is no layer"),
        (noted(2.0, {"to_q": "much"}), "a number is needed"),
        (noted(float("inf"), {}), "not good JSON"),
        (noted(1e9, {}), "is allowed"),
        (json.dumps({"unet.alpha_pattern": [1]}), "is no object"),
    ],
)
def test_notes_that_are_not_acceptable_are_refused(tmp_path, weights, note, match):
    tensors = state(weights, draw(weights, attentions(weights)[:1]), "diffusers")
    with pytest.raises(SourceError, match=match):
        read_lora(write(tmp_path, tensors, lora_adapter_metadata=note), 1.0, weights)


# Convolutions


def test_a_convolution_s_addition_is_the_chain_of_its_factors(tmp_path, weights):
    name = "down_blocks.0.resnets.0.conv1.weight"
    out, into, *kernel = weights["unet"][name]
    random = np.random.default_rng(5)
    up = random.standard_normal((out, 3, 1, 1))
    core = random.standard_normal((3, 5, *kernel))
    down = random.standard_normal((5, into, 1, 1))
    wide = random.standard_normal((3, into, *kernel))
    x = torch.tensor(random.standard_normal((2, into, 6, 7)))
    base = "lora_unet_down_blocks_0_resnets_0_conv1"
    conv = torch.nn.functional.conv2d
    for factors, chain, rank in (
        (
            {"lora_up": up, "lora_mid": core, "lora_down": down},
            lambda x: conv(conv(conv(x, torch.tensor(down)), torch.tensor(core), padding=1),
                           torch.tensor(up)),
            5,
        ),
        (
            {"lora_up": up, "lora_down": wide},
            lambda x: conv(conv(x, torch.tensor(wide), padding=1), torch.tensor(up)),
            3,
        ),
    ):  # fmt: skip
        tensors = {
            f"{base}.{role}.weight": value.astype(np.float32) for role, value in factors.items()
        } | {f"{base}.alpha": np.array(2.0, dtype=np.float16)}
        file = write(tmp_path, tensors)
        delta = torch.tensor(read_lora(file, -0.5, weights)["unet"][name].delta()).double()
        torch.testing.assert_close(
            conv(x, delta, padding=1), -0.5 * 2.0 / rank * chain(x), rtol=1e-4, atol=1e-4
        )


def test_one_by_one_convolutions_and_linear_layers_are_the_same(tmp_path, weights):
    name = "down_blocks.0.attentions.0.proj_in.weight"
    assert weights["unet"][name][2:] == (1, 1)
    factors = draw(weights, [("unet", name)])
    tensors = state(weights, factors, "kohya")
    conv = deltas(read_lora(write(tmp_path, tensors), 1.0, weights))
    flat = {key: value.reshape(value.shape[:2]) for key, value in tensors.items()}
    same(deltas(read_lora(write(tmp_path, flat), 1.0, weights)), conv)
    linear = {"unet": weights["unet"] | {name: weights["unet"][name][:2]}}
    found = deltas(read_lora(write(tmp_path, tensors), 1.0, linear))
    assert found["unet", name].shape == linear["unet"][name]


# Several, and how much is held


def test_several_loras_on_one_weight_are_all_kept_in_order(tmp_path, weights):
    names = attentions(weights)
    one, two = (
        read_lora(write(tmp_path, state(weights, draw(weights, chosen), "kohya")), scale, weights)
        for chosen, scale in ((names[:3], 1.0), (names[2:5], 2.0))
    )
    both = combine([one, two])
    sizes = {(part, name): len(found) for part in both for name, found in both[part].items()}
    assert sizes == {each: 2 if each == names[2] else 1 for each in names[:5]}
    first, second = both[names[2][0]][names[2][1]]
    assert second.scale == 2 * first.scale
    assert combine([]) == {}


def test_tensors_are_read_one_by_one_and_not_kept(tmp_path, weights):
    shape = (1024, 1024)
    names = [f"blocks.{number}.weight" for number in range(8)]
    tensors = {}
    for name in names:
        base = "lora_unet_" + name.removesuffix(".weight").replace(".", "_")
        tensors[f"{base}.lora_down.weight"] = np.zeros((256, 1024), dtype=np.float32)
        tensors[f"{base}.lora_up.weight"] = np.zeros((1024, 256), dtype=np.float32)
    file = write(tmp_path, tensors)
    del tensors
    tracemalloc.start()
    found = read_lora(file, 1.0, {"unet": dict.fromkeys(names, shape)})
    now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found["unet"]) == 8
    assert now < 1 << 20  # the file has 16 MiB, each tensor 1
    assert peak < 4 << 20


def test_importing_and_reading_needs_no_torch(tmp_path, weights):
    file = write(tmp_path, state(weights, draw(weights, attentions(weights)[:2]), "kohya"))
    program = (
        "import json, sys; from pathlib import Path; from export.lora import read_lora\n"
        "found = read_lora(Path(sys.argv[1]), 1.0, json.loads(sys.argv[2]))\n"
        "[each.delta() for each in found['unet'].values()]\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program, str(file), json.dumps(weights)], check=True)


# Bad input


LAYER = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"


@pytest.fixture
def good(weights) -> dict[str, np.ndarray]:
    return state(weights, draw(weights, attentions(weights)), "kohya")


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), 10.5, -11.0])
def test_a_scale_out_of_bounds_is_refused(tmp_path, weights, good, scale):
    with pytest.raises(SourceError, match="from -10 to 10 is allowed"):
        read_lora(write(tmp_path, good), scale, weights)


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        (f"{LAYER}.dora_scale", "a DoRA"),
        ("unet.mid_block.x.lora_magnitude_vector", "a DoRA"),
        (f"{LAYER}.hada_w1_a", "a LoHa"),
        (f"{LAYER}.lokr_w1", "a LoKr"),
        (f"{LAYER}.oft_blocks", "an OFT"),
        (f"{LAYER}.on_input", "an IA3"),
        (f"{LAYER}.a1.weight", "a GLora"),
        (f"{LAYER}.diff", "a set of whole differences"),
        (f"{LAYER}.diff_b", "a set of whole differences"),
        (f"{LAYER}.w_norm", "a set of whole differences"),
        ("unet.mid_block.x.lora_B.bias", "a LoRA with biases"),
        ("base_model.model.x.lora_embedding_A", "a LoRA of an embedding table"),
    ],
)
def test_other_additions_are_refused_by_name(tmp_path, weights, good, key, kind):
    good[key] = np.zeros(3, dtype=np.float32)
    with pytest.raises(SourceError, match=f"is {kind}; only LoRA and LoCon can be merged"):
        read_lora(write(tmp_path, good), 1.0, weights)


def test_keys_that_are_no_part_of_a_lora_are_counted_and_named(tmp_path, weights, good):
    good |= {"zebra.weight": np.zeros(3), "zoo.bias": np.zeros(3)}
    good = {key: value.astype(np.float32) for key, value in good.items()}
    with pytest.raises(SourceError, match=rf"has 2 of {len(good)} keys .* 'zebra\.weight'"):
        read_lora(write(tmp_path, good), 1.0, weights)


@pytest.mark.parametrize("missing", ["lora_down.weight", "lora_up.weight"])
def test_half_a_layer_is_refused(tmp_path, weights, good, missing):
    del good[f"{LAYER}.{missing}"]
    with pytest.raises(SourceError, match=f"has no '{missing[5:-7]}' factor"):
        read_lora(write(tmp_path, good), 1.0, weights)


def test_a_lone_alpha_is_refused(tmp_path, weights, good):
    good["lora_unet_nowhere.alpha"] = np.float32(1)
    with pytest.raises(SourceError, match=r"'lora_unet_nowhere\.alpha'.* has no 'up' factor"):
        read_lora(write(tmp_path, good), 1.0, weights)


def test_a_layer_that_the_model_lacks_is_named(tmp_path, weights, good):
    for role in ("down", "up"):
        good[f"lora_unet_nowhere.lora_{role}.weight"] = np.ones((4, 4), dtype=np.float32)
    count = sum(key.endswith("lora_up.weight") for key in good)
    message = rf"1 of its {count} layers do not fit .*'lora_unet_nowhere\.lora_up\.weight'"
    with pytest.raises(SourceError, match=rf"{message} \(the model has no such weight\)"):
        read_lora(write(tmp_path, good), 1.0, weights)


def test_the_second_text_encoder_s_layers_need_a_second_text_encoder(tmp_path, weights):
    names = [each for each in attentions(weights) if each[0] == "text_encoder"]
    tensors = {
        key.replace("lora_te_", "lora_te2_"): value
        for key, value in state(weights, draw(weights, names), "kohya").items()
    }
    with pytest.raises(SourceError, match="another family: 8 of its 8 layers do not fit"):
        read_lora(write(tmp_path, tensors), 1.0, weights)


def test_a_layer_that_could_be_in_either_text_encoder_is_refused(tmp_path):
    weights = xl_weights()
    tensors = state(weights, draw(weights, [("text_encoder", TEXT_LAYER)]), "peft")
    with pytest.raises(SourceError, match="it can mean text_encoder or text_encoder_2"):
        read_lora(write(tmp_path, tensors), 1.0, weights)


TEXT_LAYER = "encoder.layers.0.self_attn.q_proj.weight"


def test_two_layers_for_one_weight_are_refused(tmp_path, weights):
    factors = draw(weights, [("text_encoder", TEXT_LAYER)])
    tensors = state(weights, factors, "kohya") | state(weights, factors, "kohya without text_model")
    with pytest.raises(SourceError, match=f"two layers for text_encoder's '{TEXT_LAYER}'"):
        read_lora(write(tmp_path, tensors), 1.0, weights)


def test_two_adapters_in_one_file_are_refused(tmp_path, weights):
    factors = draw(weights, attentions(weights)[:1])
    tensors = state(weights, factors, "peft") | state(weights, factors, "peft")
    more = {key.replace("lora_A", "lora_A.b"): tensors[key] for key in tensors if "lora_A" in key}
    with pytest.raises(SourceError, match="says again what"):
        read_lora(write(tmp_path, tensors | more), 1.0, weights)


@pytest.mark.parametrize(
    ("width", "name"), [(96, "another family"), (768, r"SD 1\.x"), (1024, r"SD 2\.x"),
                        (2048, "SDXL")],
)  # fmt: skip
def test_a_lora_of_another_family_is_told_by_its_text(tmp_path, weights, width, name):
    other = {"unet": shapes_of(unet(SDXL_LIKE | {"cross_attention_dim": width}))}
    file = write(tmp_path, state(other, draw(other, attentions(other)), "kohya in LDM's names"))
    message = rf"is a LoRA for {name} \(text {width} wide\), this model is another family \(text 32"
    with pytest.raises(SourceError, match=message) as caught:
        read_lora(file, 1.0, weights)
    assert "SDXL" in caught.value.hint


def test_a_lora_of_another_family_is_told_by_most_of_its_layers(tmp_path, weights):
    other = {"unet": shapes_of(unet(SD1_LIKE))}
    names = [each for each in attentions(other) if "attn1" in each[1]]
    file = write(tmp_path, state(other, draw(other, names), "kohya"))
    with pytest.raises(SourceError, match="is a LoRA of another family") as caught:
        read_lora(file, 1.0, weights)
    assert "trained for" in caught.value.hint


@pytest.mark.parametrize(
    ("role", "shape", "match"),
    [
        ("lora_down", (4, 33), r"\[32, 4\] and \[4, 33\] do not make mid_block.*\[32, 32\]"),
        ("lora_up", (31, 4), r"\[31, 4\] and"),
        ("lora_up", (32, 5), r"\[32, 5\] and \[4, 32\]"),
        ("lora_down", (0, 32), "its rank is 0"),
        ("lora_down", (), "its rank is 0"),
        ("lora_down", (4, 32, 3, 3), "do not make"),
        ("lora_mid", (4, 4, 3, 3), "is no convolution"),
    ],
)
def test_wrong_shapes_are_refused(tmp_path, weights, good, role, shape, match):
    good[f"{LAYER}.{role}.weight"] = np.ones(shape, dtype=np.float32)
    with pytest.raises(SourceError, match=match):
        read_lora(write(tmp_path, good), 1.0, weights)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("key", ["lora_up.weight", "lora_down.weight", "alpha"])
def test_nan_and_infinity_are_refused(tmp_path, weights, good, key, bad):
    good[f"{LAYER}.{key}"] = good[f"{LAYER}.{key}"].copy()
    good[f"{LAYER}.{key}"].flat[-1] = bad
    with pytest.raises(SourceError, match=f"'{LAYER}.{key}' in .* holds NaN or Inf"):
        read_lora(write(tmp_path, good), 1.0, weights)


def test_a_product_that_overflows_is_refused(tmp_path, weights, good):
    for key in (f"{LAYER}.lora_up.weight", f"{LAYER}.lora_down.weight"):
        good[key] = np.full_like(good[key], 1e38)
    found = read_lora(write(tmp_path, good), 1.0, weights)
    name = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q.weight"
    with pytest.raises(SourceError, match="multiply to NaN or Inf"):
        found["unet"][name].delta()


def test_an_alpha_of_several_numbers_is_refused(tmp_path, weights, good):
    good[f"{LAYER}.alpha"] = np.ones(2, dtype=np.float32)
    with pytest.raises(SourceError, match="one number needed"):
        read_lora(write(tmp_path, good), 1.0, weights)


def test_another_dtype_is_refused(tmp_path, weights, good):
    good[f"{LAYER}.lora_up.weight"] = good[f"{LAYER}.lora_up.weight"].astype(np.float64)
    with pytest.raises(SourceError, match="is F64; one of BF16, F16, F32"):
        read_lora(write(tmp_path, good), 1.0, weights)


@pytest.mark.parametrize("name", ["lora.ckpt", "LORA.PT", "pytorch_lora_weights.bin"])
def test_a_pickle_is_refused_with_the_way_out(tmp_path, weights, name):
    (tmp_path / name).write_bytes(b"\x80\x04")
    with pytest.raises(SourceError, match="runs whatever code") as caught:
        read_lora(tmp_path / name, 1.0, weights)
    assert "safetensors" in caught.value.hint


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"", "cut short"),
        (b"PK\x03\x04 a renamed pickle", "no safetensors"),
        (struct.pack("<Q", 5) + b"{nope", "damaged"),
        (struct.pack("<Q", 2) + b"{}", "holds no tensor"),
    ],
)
def test_what_is_no_safetensors_file_is_refused(tmp_path, weights, data, match):
    file = tmp_path / "x.safetensors"
    file.write_bytes(data)
    with pytest.raises(SourceError, match=match):
        read_lora(file, 1.0, weights)


def test_a_huge_header_is_not_read(tmp_path, weights):
    with (tmp_path / "x.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", 20 << 20))
        file.truncate(40 << 20)
    with pytest.raises(SourceError, match="header of"):
        read_lora(tmp_path / "x.safetensors", 1.0, weights)


def test_a_file_cut_short_is_refused_also_when_it_is_cut_later(tmp_path, weights, good):
    file = write(tmp_path, good)
    found = read_lora(file, 1.0, weights)
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(SourceError, match="damaged or cut short"):
        read_lora(file, 1.0, weights)
    with pytest.raises(SourceError, match="damaged or cut short"):
        next(iter(found["unet"].values())).delta()


def test_a_missing_file_is_named(tmp_path, weights):
    with pytest.raises(MissingError, match=r"no file 'x\.safetensors'"):
        read_lora(tmp_path / "x.safetensors", 1.0, weights)
