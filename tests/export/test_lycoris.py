"""LoHa, LoKr, DoRA: what PEFT's own modules add, and what the formulas of their papers say. And
differences: what LyCORIS trains as a whole.
"""

import warnings

import numpy as np
import peft
import pytest
import torch
from diffusers import UNet2DConditionModel

from export import SourceError
from export.architectures import TINY
from export.lora import read_lora
from tests.export.lora_files import assert_same, attentions, deltas, kohya, tiny_weights, write

SCALE, ALPHA = 0.75, 3
TARGETS = ["to_q", "to_out.0", "proj_in", "conv1", "conv_shortcut"]  # linear, 1 x 1 and 3 x 3
DRAW = np.random.default_rng(8)


@pytest.fixture(scope="module")
def weights():
    return tiny_weights()


def drawn(*shape):
    return DRAW.standard_normal(shape).astype(np.float32)


RANDOM = {"alpha": ALPHA, "init_weights": False}
TUCKER = {"use_effective_conv2d": True}
PATTERN = {"decompose_factor": 2, "rank_pattern": {"conv1": 3, "to_q": 64}}
CONFIGS = [
    (peft.LoraConfig, {"use_dora": True, "lora_alpha": ALPHA, "init_lora_weights": False}),
    (peft.LoHaConfig, RANDOM),
    (peft.LoHaConfig, RANDOM | TUCKER),
    (peft.LoKrConfig, RANDOM),
    (peft.LoKrConfig, RANDOM | TUCKER),
    (peft.LoKrConfig, RANDOM | {"decompose_both": True}),
    (peft.LoKrConfig, RANDOM | TUCKER | PATTERN),
]


@pytest.mark.parametrize("rank", [2, 16])
@pytest.mark.parametrize(("kind", "settings"), CONFIGS)
def test_what_peft_saves_adds_what_peft_merges(tmp_path, weights, kind, settings, rank):
    """Of rank 16 these small matrices are kept whole: then only the configuration says a rank."""
    torch.manual_seed(5)
    unet = UNet2DConditionModel.from_config(dict(TINY["unet"]))
    before = {name: value.detach().clone() for name, value in unet.named_parameters()}
    config = kind(target_modules=TARGETS, r=rank, **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft.get_peft_model(unet, config)
        model.save_pretrained(tmp_path)
        after = dict(model.merge_and_unload().named_parameters())
    wanted = {
        ("unet", name): SCALE * (after[name].detach() - value).numpy()
        for name, value in before.items()
        if not torch.equal(after[name], value)
    }
    assert len(wanted) > 20
    file = tmp_path / "adapter_model.safetensors"
    stored = {("unet", name): value.numpy() for name, value in before.items()}
    assert_same(deltas(read_lora(file, SCALE, weights), stored), wanted, tolerance=1e-5)


def kronecker(factors):
    """The definition: block (i, j) is w1[i, j] times w2."""
    one, two = (
        factors[side] if side in factors else factors[f"{side}_a"] @ factors[f"{side}_b"]
        for side in ("w1", "w2")
    )
    return np.block([[number * two for number in row] for row in one])


@pytest.mark.parametrize(
    ("factors", "strength"),
    [
        ({"w1": (4, 2), "w2": (8, 16)}, 1.0),  # no rank: alpha says nothing
        ({"w1": (4, 2), "w2_a": (8, 3), "w2_b": (3, 16)}, ALPHA / 3),
        ({"w1_a": (4, 3), "w1_b": (3, 2), "w2_a": (8, 3), "w2_b": (3, 16)}, ALPHA / 3),
    ],
)
def test_a_lokr_of_lycoris_is_blocks_of_blocks(tmp_path, weights, factors, strength):
    name = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q.weight"
    layer = kohya(weights, "unet", name)
    values = {role: drawn(*shape) for role, shape in factors.items()}
    tensors = {f"{layer}.lokr_{role}": value for role, value in values.items()}
    tensors[f"{layer}.alpha"] = np.array(ALPHA, np.float32)
    found = deltas(read_lora(write(tmp_path, tensors), SCALE, weights))
    assert_same(found, {("unet", name): SCALE * strength * kronecker(values)})


def test_a_loha_of_lycoris_is_a_product_of_products_beside_a_lora(tmp_path, weights):
    """A trainer may take one kind for attention and another for convolutions, in one file."""
    conv, linear = "conv_in.weight", "mid_block.attentions.0.transformer_blocks.0.attn1.to_q.weight"
    out, into, *kernel = weights["unet"][conv]
    flat = into * kernel[0] * kernel[1]
    one, two = (drawn(out, 3), drawn(3, flat)), (drawn(out, 3), drawn(3, flat))
    up, down = drawn(32, 2), drawn(2, 32)
    first, second = (kohya(weights, "unet", name) for name in (conv, linear))
    tensors = {
        f"{first}.hada_w1_a": one[0],
        f"{first}.hada_w1_b": one[1],
        f"{first}.hada_w2_a": two[0],
        f"{first}.hada_w2_b": two[1],
        f"{first}.alpha": np.array(ALPHA, np.float32),
        f"{second}.lora_up.weight": up,
        f"{second}.lora_down.weight": down,
    }
    wanted = {
        ("unet", conv): ALPHA
        / 3
        * ((one[0] @ one[1]) * (two[0] @ two[1])).reshape(weights["unet"][conv]),
        ("unet", linear): up @ down,
    }
    assert_same(deltas(read_lora(write(tmp_path, tensors), 1.0, weights)), wanted)


@pytest.mark.parametrize("kind", ["hada", "lokr"])
def test_another_family_is_told_by_the_text_s_width(tmp_path, weights, kind):
    (name, *_) = [name for _, name in attentions(weights) if "attn2.to_k" in name]
    layer = kohya(weights, "unet", name)
    out = weights["unet"][name][0]
    shapes = {"hada_w1_a": (out, 2), "hada_w1_b": (2, 768), "hada_w2_a": (out, 2)}
    shapes |= {"hada_w2_b": (2, 768)}
    if kind == "lokr":
        shapes = {"lokr_w1": (2, 24), "lokr_w2": (out // 2, 32)}
    tensors = {f"{layer}.{role}": drawn(*shape) for role, shape in shapes.items()}
    with pytest.raises(SourceError, match=r"is a LoRA for SD 1\.x \(text 768 wide\)"):
        read_lora(write(tmp_path, tensors), 1.0, weights)


@pytest.mark.parametrize("along", ["outputs", "inputs"])
@pytest.mark.parametrize("name", ["conv_in.weight", "time_embedding.linear_1.weight"])
def test_each_column_of_a_dora_is_as_long_as_its_magnitude_says(tmp_path, weights, name, along):
    out, into, *kernel = weights["unet"][name]
    layer = kohya(weights, "unet", name)
    up, down = drawn(out, 2, *(1 for _ in kernel)), drawn(2, into, *kernel)
    axis = 0 if along == "outputs" else 1
    size = (out, 1) if axis == 0 else (1, into)
    magnitude = np.abs(drawn(*size, *(1 for _ in kernel))) + 1
    tensors = {
        f"{layer}.lora_up.weight": up,
        f"{layer}.lora_down.weight": down,
        f"{layer}.dora_scale": magnitude,
    }
    stored = drawn(out, into, *kernel)
    file = write(tmp_path, tensors)
    added = deltas(read_lora(file, 1.0, weights), {("unet", name): stored})["unet", name]
    whole = stored + added
    others = tuple(each for each in range(whole.ndim) if each != axis)
    lengths = np.sqrt((whole**2).sum(axis=others))
    np.testing.assert_allclose(lengths, magnitude.reshape(-1), rtol=1e-5)
    turned = stored + np.tensordot(up.reshape(out, 2), down, axes=1)
    along_it = (whole * turned).sum(axis=others) / lengths
    np.testing.assert_allclose(along_it, np.sqrt((turned**2).sum(axis=others)), rtol=1e-5)
    half = deltas(read_lora(file, 0.5, weights), {("unet", name): stored})["unet", name]
    np.testing.assert_allclose(half, added / 2, rtol=1e-5, atol=1e-6)


def test_differences_of_weights_and_biases_are_added_as_they_are(tmp_path, weights):
    """Of convolutions, one of 1 x 1 written as a matrix, and of normalisations in both networks."""
    wanted = {
        ("unet", "conv_in.weight"): drawn(*weights["unet"]["conv_in.weight"]),
        ("unet", "conv_in.bias"): drawn(*weights["unet"]["conv_in.bias"]),
        ("unet", "conv_norm_out.weight"): drawn(*weights["unet"]["conv_norm_out.weight"]),
        ("unet", "conv_norm_out.bias"): drawn(*weights["unet"]["conv_norm_out.bias"]),
    }
    shortcut = next(name for name in weights["unet"] if name.endswith("conv_shortcut.weight"))
    wanted["unet", shortcut] = drawn(*weights["unet"][shortcut])
    (text,) = [name for name in weights["text_encoder"] if name.endswith("final_layer_norm.bias")]
    wanted["text_encoder", text] = drawn(*weights["text_encoder"][text])
    tensors = {}
    for (part, name), value in wanted.items():
        layer, _, parameter = name.rpartition(".")
        norm = "norm" in layer
        role = {"weight": "w_norm" if norm else "diff", "bias": "b_norm" if norm else "diff_b"}
        key = f"{kohya(weights, part, f'{layer}.weight')}.{role[parameter]}"
        tensors[key] = value[..., 0, 0] if name == shortcut else value
    linear = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q.weight"
    layer = kohya(weights, "unet", linear)
    up, down = drawn(32, 2), drawn(2, 32)
    tensors |= {f"{layer}.lora_up.weight": up, f"{layer}.lora_down.weight": down}
    wanted["unet", linear] = up @ down
    found = deltas(read_lora(write(tmp_path, tensors), SCALE, weights))
    assert_same(found, {key: SCALE * value for key, value in wanted.items()})
