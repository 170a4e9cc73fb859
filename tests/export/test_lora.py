"""A LoRA adds the same to the same weights in every key style, and as diffusers fuses it."""

import json
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from safetensors.torch import save_file as save_torch
from transformers import CLIPTextModelWithProjection

from export.architectures import TINY
from export.lora import combine, read_lora
from tests.export.lora_files import (
    ALPHA,
    ATTENTION_ONLY,
    NOTHING,
    RANK,
    SCALE,
    SDXL_LIKE,
    STYLES,
    assert_same,
    attentions,
    clip,
    deltas,
    draw,
    expected,
    state,
    tiny_weights,
    trainable,
    unet,
    write,
    xl_weights,
)


@pytest.fixture(scope="module")
def weights() -> dict[str, dict[str, tuple[int, ...]]]:
    return tiny_weights()


@pytest.mark.parametrize("style", STYLES)
def test_every_key_style_adds_the_same(tmp_path, weights, style):
    chosen = (attentions if style in ATTENTION_ONLY else trainable)(weights)
    factors = draw(weights, chosen)
    file = write(tmp_path, state(weights, factors, style))
    wanted = expected(weights, factors, SCALE * ALPHA / RANK)
    assert len(wanted) > 30
    assert_same(deltas(read_lora(file, SCALE, weights)), wanted)


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
    assert_same(deltas(read_lora(tmp_path / "half.safetensors", 1.0, weights)), wanted)


def test_a_whole_alpha_counts_and_a_missing_one_is_the_rank(tmp_path, weights):
    factors = draw(weights, attentions(weights)[:2])
    tensors = state(weights, factors, "kohya")
    first, second = (key for key in tensors if key.endswith(".alpha"))
    tensors[first] = np.array([8], dtype=np.int64)
    del tensors[second]
    wanted = expected(weights, factors, 1.0)
    wanted[next(iter(wanted))] *= 8 / RANK
    assert_same(deltas(read_lora(write(tmp_path, tensors), 1.0, weights)), wanted)


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
    assert_same(fused(pipe, file), ours, tolerance=1e-5)


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
        delta = torch.tensor(read_lora(file, -0.5, weights)["unet"][name].delta(NOTHING)).double()
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
    assert_same(deltas(read_lora(write(tmp_path, flat), 1.0, weights)), conv)
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
        "[each.delta(None) for each in found['unet'].values()]\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program, str(file), json.dumps(weights)], check=True)
