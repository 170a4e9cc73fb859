"""What is no LoRA for the model at hand is refused in one sentence, and nothing is merged."""

import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from export import MissingError, SourceError
from export.lora import read_lora
from export.products import Hadamard, Kronecker
from tests.export.lora_files import (
    NOTHING,
    SD1_LIKE,
    SDXL_LIKE,
    attentions,
    deltas,
    draw,
    shapes_of,
    state,
    tiny_weights,
    unet,
    write,
    xl_weights,
)


@pytest.fixture(scope="module")
def weights() -> dict[str, dict[str, tuple[int, ...]]]:
    return tiny_weights()


LAYER = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"

HADAMARD = {
    "hada_w1_a": (32, 4),
    "hada_w1_b": (4, 32),
    "hada_w2_a": (32, 4),
    "hada_w2_b": (4, 32),
}


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
        (f"{LAYER}.oft_blocks", "an OFT"),
        (f"{LAYER}.on_input", "an IA3"),
        (f"{LAYER}.a1.weight", "a GLora"),
        ("unet.mid_block.x.lora_B.bias", "a LoRA with biases"),
        ("base_model.model.x.lora_embedding_A", "a LoRA of an embedding table"),
    ],
)
def test_other_additions_are_refused_by_name(tmp_path, weights, good, key, kind):
    good[key] = np.zeros(3, dtype=np.float32)
    merged = "LoRA, LoCon, LoHa, LoKr, DoRA and whole differences"
    with pytest.raises(SourceError, match=f"is {kind}; only {merged} can be merged"):
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


@pytest.mark.parametrize(
    ("shapes", "match"),
    [
        ({"hada_w1_a": (32, 4), "hada_w1_b": (4, 32)}, "has no 'hada_w2_a' factor"),
        ({"lokr_w1": (4, 4), "lokr_w2_b": (2, 8)}, "has no 'lokr_w2_a' factor"),
        ({"lokr_w1": (4, 4), "lora_up.weight": (2, 8)}, "beside factors of another kind"),
        ({"lokr_w1": (4, 4), "lokr_w2": (8, 9)}, r"\[4, 4\] and \[8, 9\] do not make mid_block"),
        ({"lokr_w1": (), "lokr_w2": (32, 32)}, r"\[\] and \[32, 32\] do not make"),
        ({"lokr_w1": (4, 4, 1, 1), "lokr_w2": (8, 8)}, "do not make"),
        ({"lokr_w1": (4, 4), "lokr_w2_a": (8, 0), "lokr_w2_b": (0, 8)}, "is empty"),
        ({"lokr_w1": (4, 4), "lokr_w2_a": (8, 2), "lokr_w2_b": (3, 8)}, "do not make"),
        (HADAMARD | {"hada_w2_b": (4, 31)}, r"\[32, 4\] and \[4, 31\] do not make"),
        (HADAMARD | {"hada_w2_b": (5, 32)}, "do not make"),
        (HADAMARD | {"hada_w1_a": (32, 0), "hada_w1_b": (0, 32)}, "is empty"),
        (HADAMARD | {"hada_t1": (32, 4, 1, 1)}, "has no 'hada_t2' factor"),
        ({"lokr_w1": (4, 4), "lokr_w2": (8, 8), "lokr_w2_a": (8, 2)}, "lokr_w2 and lokr_w2_a, whi"),
        (
            HADAMARD | {"dora_scale": (31, 1)},
            r"magnitude of \[31, 1\] is not mid_block.*\[32, 32\]",
        ),
        (HADAMARD | {"dora_scale": (1, 31)}, "magnitude of"),
        (HADAMARD | {"dora_scale": (4, 8)}, "magnitude of"),
        (HADAMARD | {"dora_scale": (32, 1), "lora_magnitude_vector": (32,)}, "says again"),
        ({"dora_scale": (32, 1)}, "has no 'up' factor"),
        ({"diff": (32, 31)}, r"\[32, 31\] is not mid_block.*\[32, 32\]"),
        ({"diff": (0, 32)}, "it is empty"),
        ({"diff": (32, 32), "w_norm": (32, 32)}, "says again"),
        ({"diff": (32, 32), "lora_up.weight": (32, 4)}, "beside factors of another kind"),
        ({"diff": (32, 32), "dora_scale": (32, 1)}, r"dora_scale' is a DoRA's, but stands beside"),
        ({"diff_b": (32,)}, r"diff_b' \(the model has no such weight"),  # to_q has no bias
    ],
)
def test_factors_of_other_kinds_that_do_not_fit_are_refused(tmp_path, weights, good, shapes, match):
    for role in ("lora_up.weight", "lora_down.weight", "alpha"):
        del good[f"{LAYER}.{role}"]
    more = {f"{LAYER}.{role}": np.ones(shape, dtype=np.float32) for role, shape in shapes.items()}
    with pytest.raises(SourceError, match=match):
        read_lora(write(tmp_path, good | more), 1.0, weights)


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
        found["unet"][name].delta(NOTHING)


def test_a_length_that_overflows_is_refused(tmp_path, weights, good):
    name = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q.weight"
    good[f"{LAYER}.lora_up.weight"] = np.full_like(good[f"{LAYER}.lora_up.weight"], 1e30)
    good[f"{LAYER}.dora_scale"] = np.ones((32, 1), np.float32)
    found = read_lora(write(tmp_path, good), 1.0, weights)
    with pytest.raises(SourceError, match=r"dora_scale' in .* makes NaN or Inf"):
        found["unet"][name].delta(np.ones((32, 32), np.float32))


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
        next(iter(found["unet"].values())).delta(NOTHING)


def test_a_missing_file_is_named(tmp_path, weights):
    with pytest.raises(MissingError, match=r"no file 'x\.safetensors'"):
        read_lora(tmp_path / "x.safetensors", 1.0, weights)


# Keys and shapes of all kinds, right ones among them: an answer or one sentence, never a crash.
LAYERS = st.sampled_from(
    [LAYER, f"{LAYER}_lora", "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q",
     "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k", "lora_te_final_layer_norm",
     "base_model.model.conv_in", "lora_te2_x", "unet.", "lora_unet_", "", ".", "\n", "\U0010ffff"]
)  # fmt: skip
ENDS = st.sampled_from(
    [".lora_down.weight", ".lora_up.weight", ".lora_mid.weight", ".lora_A.weight", ".alpha",
     ".lora_B.x.weight", "_lora.up.weight", ".lora.down.weight", ".weight", ""]
)  # fmt: skip
OTHER_KINDS = st.sampled_from(
    [f".{role}" for kind in (Hadamard, Kronecker) for role in (*kind.roles, "alpha", "dora_scale")]
    + [".diff", ".diff_b", ".w_norm", ".b_norm"]
)
SHAPES = st.sampled_from(
    [(), (0,), (1,), (32,), (2, 32), (32, 2), (4, 8), (8, 4), (0, 32), (2, 32, 1, 1), (2, 2, 3, 3)]
)  # fmt: skip


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    keys=st.dictionaries(st.tuples(LAYERS, ENDS).map("".join), SHAPES, max_size=6)
    | st.tuples(LAYERS, st.dictionaries(OTHER_KINDS, SHAPES, max_size=7)).map(
        lambda drawn: {drawn[0] + end: shape for end, shape in drawn[1].items()}
    ),
    note=st.none() | st.text(max_size=20) | st.just("[]") | st.just('{"unet": {"r": 1}}'),
)
def test_any_file_is_read_or_refused_in_one_sentence(tmp_path, weights, keys, note):
    tensors = {key: np.ones(shape, dtype=np.float32) for key, shape in keys.items()}
    metadata = {} if note is None else {"lora_adapter_metadata": note}
    try:
        found = read_lora(write(tmp_path, tensors, **metadata), 1.0, weights)
    except SourceError as error:
        found, lines = {}, str(error).splitlines()
    else:
        lines = [""]
    assert len(lines) == 1
    stored = {
        (part, name): np.ones(shape) for part in weights for name, shape in weights[part].items()
    }
    for (component, name), delta in deltas(found, stored).items():
        assert delta.shape == weights[component][name]
