"""LoRA and textual inversion are put where they belong, on both sides of the parity gate."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from torch import nn

from engine.tokenizer import Tokenizer
from export import Ingredients, SourceError
from export.additions import teach
from export.checkpoint import fingerprint
from export.modules import parameter_shapes
from export.originals import load_original
from export.parameters import matched, read_weight
from safelight.cli.export import _embedding, _lora
from safelight.exits import UsageError
from tests.export.originals import TINY_SD1, TINY_SD2, TINY_SDXL, write_single_file

ARCHITECTURES = {"sd1": TINY_SD1, "sd2": TINY_SD2, "sdxl": TINY_SDXL}
RANK = 2


@pytest.fixture(scope="module", params=ARCHITECTURES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def sources(tmp_path_factory, family) -> dict[str, Path]:
    """Give the same checkpoint as a single file and as a folder."""
    folder = tmp_path_factory.mktemp(family)
    file = write_single_file(folder / "m.safetensors", folder / "source", ARCHITECTURES[family])
    return {"file": file, "folder": folder / "source"}


def open_with(source: Path, **given):
    return Ingredients(source=source, prediction="epsilon", **given).open()


def lora(path: Path, layers: dict[str, tuple[int, int]], seed: int) -> tuple[Path, dict]:
    """Write a LoRA in kohya's style; give it, and layer -> up @ down in float64."""
    random = np.random.default_rng(seed)
    tensors, products = {}, {}
    for layer, (out, width) in layers.items():
        up, down = (0.1 * random.standard_normal(s) for s in ((out, RANK), (RANK, width)))
        tensors[f"{layer}.lora_up.weight"] = up.astype(np.float16)
        tensors[f"{layer}.lora_down.weight"] = down.astype(np.float16)
        tensors[f"{layer}.alpha"] = np.array(1.0, np.float32)
        wide = (tensors[f"{layer}.lora_{x}.weight"].astype(np.float64) for x in ("up", "down"))
        products[layer] = np.matmul(*wide) / RANK
    save_file(tensors, path)
    return path, products


def values(checkpoint, part: str) -> dict[str, np.ndarray]:
    """Read all weights of the components in a folder of the checkpoint, as the graphs get them."""
    found = {}
    for component in checkpoint.recipe.components:
        if component.folder == part:
            shapes = parameter_shapes(component, checkpoint.configs[part])
            tensors = matched(component, shapes, checkpoint.tensors[part])
            found |= {key: read_weight(tensors[key]).reshape(s) for key, s in shapes.items()}
    return found


def same_as_the_libraries(checkpoint, part: str) -> None:
    """Compare with the module that the gate takes as its reference, after the same rounding."""
    theirs = dict(load_original(checkpoint, part).named_parameters())
    ours = values(checkpoint, part)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(torch.from_numpy(value).float(), theirs[name]), name


ATTENTION = "down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
XL_ATTENTION = "down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q"


def layers_of(family: str) -> dict[str, tuple[str, str, tuple[int, int]]]:
    """Give kohya's layer -> (part, parameter's end, shape) of one layer in each network."""
    inner = ".transformer_blocks.0.attn1.to_q.weight"
    text = "text_model_encoder_layers_0_self_attn_q_proj"
    end = "encoder.layers.0.self_attn.q_proj.weight"
    if family == "sdxl":
        return {
            f"lora_unet_{XL_ATTENTION}": ("unet", f"down_blocks.1.attentions.0{inner}", (128, 128)),
            f"lora_te1_{text}": ("text_encoder", end, (64, 64)),
            f"lora_te2_{text}": ("text_encoder_2", end, (128, 128)),
        }
    return {
        f"lora_unet_{ATTENTION}": ("unet", f"down_blocks.0.attentions.0{inner}", (64, 64)),
        f"lora_te_{text}": ("text_encoder", end, (64, 64)),
    }


@pytest.mark.parametrize("form", ["file", "folder"])
def test_loras_are_added_by_their_scales_to_what_they_name_and_to_nothing_else(
    sources, family, form, tmp_path
):
    layers = layers_of(family)
    shapes = {layer: shape for layer, (_, _, shape) in layers.items()}
    one, first = lora(tmp_path / "one.safetensors", shapes, seed=1)
    two, second = lora(tmp_path / "two.safetensors", shapes, seed=2)
    plain = open_with(sources[form])
    merged = open_with(sources[form], loras=((one, 0.5), (two, -2.0)))
    for part in {part for part, _, _ in layers.values()}:
        before, after = values(plain, part), values(merged, part)
        same_as_the_libraries(merged, part)
        changed = {name for name in before if not np.array_equal(before[name], after[name])}
        wanted = {end: layer for layer, (where, end, _) in layers.items() if where == part}
        assert len(changed) == len(wanted)
        for name in changed:
            layer = next(layer for end, layer in wanted.items() if name.endswith(end))
            exact = before[name].astype(np.float64) + 0.5 * first[layer] - 2 * second[layer]
            np.testing.assert_allclose(after[name], exact, atol=2e-3)  # rounded to fp16
            assert after[name].dtype == before[name].dtype == np.float16
    assert fingerprint(plain) != fingerprint(merged)
    other = open_with(sources[form], loras=((one, 0.5), (two, -1.0)))
    assert fingerprint(other) != fingerprint(merged)


@pytest.mark.parametrize("family", ["sd1"], indirect=True)
@pytest.mark.parametrize("order", [1, -1])
def test_a_dora_begins_with_the_stored_weight_whatever_else_is_added(sources, tmp_path, order):
    layer = f"lora_unet_{ATTENTION}"
    name = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q."
    one, first = lora(tmp_path / "one.safetensors", {layer: (64, 64)}, seed=1)
    two, second = lora(tmp_path / "two.safetensors", {layer: (64, 64)}, seed=2)
    magnitude = np.linspace(0.5, 2.0, 64, dtype=np.float32).reshape(64, 1)
    save_file(load_file(one) | {f"{layer}.dora_scale": magnitude}, one)
    merged = open_with(sources["folder"], loras=((one, 0.5), (two, -2.0))[::order])
    same_as_the_libraries(merged, "unet")
    (stored,) = [v for k, v in values(open_with(sources["folder"]), "unet").items() if name in k]
    (found,) = [v for k, v in values(merged, "unet").items() if name in k]
    stored = stored.astype(np.float64)
    turned = stored + first[layer]
    whole = magnitude * turned / np.linalg.norm(turned, axis=1, keepdims=True)
    exact = stored + 0.5 * (whole - stored) - 2 * second[layer]
    np.testing.assert_allclose(found, exact, atol=2e-3)  # rounded to fp16


@pytest.mark.parametrize("form", ["file", "folder"])
def test_normalisations_and_biases_are_added_to_under_either_name(sources, family, form, tmp_path):
    """A single file has LDM's names, where a layer is found by another way."""
    part, layer, name = "unet", "lora_unet_mid_block_resnets_0_norm1", "mid_block.resnets.0.norm1"
    (width,) = values(open_with(sources[form]), part)[f"{name}.weight"].shape
    added = {key: np.linspace(-1, 1, width, dtype=np.float32) + n for n, key in enumerate("wb")}
    file = tmp_path / "norms.safetensors"
    save_file({f"{layer}.{key}_norm": value for key, value in added.items()}, file)
    plain, merged = open_with(sources[form]), open_with(sources[form], loras=((file, 0.5),))
    same_as_the_libraries(merged, part)
    before, after = values(plain, part), values(merged, part)
    changed = {each for each in before if not np.array_equal(before[each], after[each])}
    assert changed == {f"{name}.weight", f"{name}.bias"}
    for end, key in (("weight", "w"), ("bias", "b")):
        exact = before[f"{name}.{end}"].astype(np.float64) + 0.5 * added[key]
        np.testing.assert_allclose(after[f"{name}.{end}"], exact, atol=2e-3)  # rounded to fp16


@pytest.mark.parametrize("family", ["sd1"], indirect=True)
def test_what_overflows_fp16_is_refused(sources, tmp_path):
    layer = f"lora_unet_{ATTENTION}"
    huge = {
        f"{layer}.lora_up.weight": np.full((64, 1), 300, np.float32),
        f"{layer}.lora_down.weight": np.full((1, 64), 300, np.float32),
    }
    save_file(huge, tmp_path / "huge.safetensors")
    checkpoint = open_with(sources["folder"], loras=((tmp_path / "huge.safetensors", 1.0),))
    with pytest.raises(SourceError, match="beyond fp16's"):
        values(checkpoint, "unet")


def embedding(path: Path, family: str, rows: int, seed: int = 4) -> Path:
    random = np.random.default_rng(seed)
    first = random.standard_normal((rows, 64)).astype(np.float32)
    if family == "sdxl":
        second = random.standard_normal((rows, 128)).astype(np.float32)
        save_file({"clip_l": first, "clip_g": second}, path)
    else:
        save_file({"emb_params": first}, path)
    return path


@pytest.mark.parametrize("form", ["file", "folder"])
def test_words_get_the_rows_behind_the_table_and_the_tokenizers_know_them(
    sources, family, form, tmp_path
):
    one = embedding(tmp_path / "one.safetensors", family, rows=3)
    two = embedding(tmp_path / "two.safetensors", family, rows=1, seed=5)
    taught = open_with(sources[form], embeddings=(("moodword", one), ("<other>", two)))
    plain = open_with(sources[form])
    parts = [part for part in taught.tensors if part.startswith("text_encoder")]
    for part in parts:
        table = next(n for n in values(taught, part) if n.endswith("token_embedding.weight"))
        before, after = values(plain, part)[table], values(taught, part)[table]
        assert np.array_equal(after[: len(before)], before)
        assert len(after) == len(before) + 4
        same_as_the_libraries(taught, part)
    for name, content in taught.pieces.files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    teach(taught.pieces.words, tmp_path)
    for part in parts:
        folder = tmp_path / part.replace("text_encoder", "tokenizer")
        first = taught.configs[part]["vocab_size"] - 4
        ids = Tokenizer(folder, limit=20).encode("a moodword <other>")[0].tolist()
        assert ids[2:6] == [first, first + 1, first + 2, first + 3]
    assert not list(tmp_path.glob("*.taught"))


@pytest.mark.parametrize("family", ["sd1"], indirect=True)
def test_a_table_that_is_longer_than_the_vocabulary_takes_no_word(sources, tmp_path):
    one = embedding(tmp_path / "one.safetensors", "sd1", rows=1)
    checkpoint = open_with(sources["folder"], embeddings=(("moodword", one),))
    (word,) = checkpoint.pieces.words
    for name, content in checkpoint.pieces.files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    late = replace(word, first={"text_encoder": word.first["text_encoder"] + 1})
    with pytest.raises(SourceError, match="next row 49409: 'moodword' cannot"):
        teach((late,), tmp_path)


def test_ingredients_survive_the_way_to_the_export_process():
    given = Ingredients(
        source=Path("/a"),
        vae=Path("/b"),
        prediction="epsilon",
        loras=((Path("/c"), 0.5), (Path("/d"), -1.0)),
        embeddings=(("word", Path("/e")),),
    )
    assert Ingredients.from_job(given.job()) == given
    bare = Ingredients(source=Path("/a"))
    assert Ingredients.from_job(bare.job()) == bare


def test_file_and_scale_or_word_on_the_command_line(tmp_path):
    assert _lora("x.safetensors") == (Path("x.safetensors"), 1.0)
    assert _lora("x.safetensors:0.8") == (Path("x.safetensors"), 0.8)
    assert _embedding("dir/mood.safetensors") == ("mood", Path("dir/mood.safetensors"))
    assert _embedding("mood.safetensors:<m>") == ("<m>", Path("mood.safetensors"))
    odd = tmp_path / "odd:2.safetensors"
    odd.touch()
    assert _lora(str(odd)) == (odd, 1.0)
    with pytest.raises(UsageError, match="'much' is no scale"):
        _lora("x.safetensors:much")


def test_no_module_is_left_with_gradients(tmp_path):
    """A changed weight must not begin a graph of derivatives: that is twice the memory."""
    source = write_single_file(tmp_path / "m.safetensors", tmp_path / "source", TINY_SD1)
    one, _ = lora(tmp_path / "one.safetensors", {f"lora_unet_{ATTENTION}": (64, 64)}, seed=1)
    module: nn.Module = load_original(open_with(source, loras=((one, 1.0),)), "unet")
    name = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight"
    assert not dict(module.named_parameters())[name].requires_grad
