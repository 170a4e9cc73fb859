"""A single file is read as the libraries read it: names, configurations, weights, refusals."""

import json
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.loaders.single_file_utils import (
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from export import MissingError, SourceError, ldm
from export.architectures import SD15, SDXL
from export.modules import parameter_shapes
from export.originals import load_original
from export.parameters import matched, read_weight
from export.source import open_checkpoint
from export.weightfiles import index_tensors
from tests.export.originals import TINY_SD1, TINY_SD2, TINY_SDXL, original_names, write_single_file

ARCHITECTURES = {"sd1": TINY_SD1, "sd2": TINY_SD2, "sdxl": TINY_SDXL}


@pytest.fixture(scope="module", params=ARCHITECTURES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def file(tmp_path_factory, family) -> Path:
    """Give a file; the folder of the same weights lies beside it."""
    folder = tmp_path_factory.mktemp(family)
    return write_single_file(folder / "model.safetensors", folder / "folder", ARCHITECTURES[family])


def changed(file: Path, target: Path, change) -> Path:
    """Write a copy in which `change` has edited the dictionary of weights."""
    weights = load_file(file)
    change(weights)
    save_file(weights, target)
    return target


def test_it_is_recognised_and_configured_as_its_folder_is(file, family):
    ours = open_checkpoint(file, prediction="epsilon")
    theirs = open_checkpoint(file.parent / "folder")
    assert ours.family == theirs.family == family
    chosen = {"sample_size", "projection_dim", "_class_name"}  # not of the weights' shapes
    assert ours.scaling_factor == theirs.scaling_factor
    for part in ours.tensors:
        wanted = {k: v for k, v in theirs.configs[part].items() if k not in chosen}
        assert {k: ours.configs[part].get(k) for k in wanted} == wanted


def test_every_weight_is_found_and_is_the_same(file):
    ours = open_checkpoint(file, prediction="epsilon")
    theirs = open_checkpoint(file.parent / "folder")
    for part in ours.recipe.components:
        shapes = parameter_shapes(part, ours.configs[part.folder])
        one, other = (matched(part, shapes, each.tensors[part.folder]) for each in (ours, theirs))
        for name, shape in shapes.items():
            mine = read_weight(one[name]).reshape(shape)
            assert np.array_equal(mine, read_weight(other[name]).reshape(shape)), name


@pytest.mark.parametrize("part", ["text_encoder", "text_encoder_2", "unet", "vae"])
def test_the_libraries_read_the_same_from_it(file, part):
    checkpoint = open_checkpoint(file, prediction="epsilon")
    if part not in checkpoint.tensors:
        assert part == "text_encoder_2"
        assert checkpoint.family != "sdxl"
        return
    ours = load_original(checkpoint, part)
    theirs = load_original(open_checkpoint(file.parent / "folder"), part)
    wanted = dict(theirs.named_parameters())
    assert wanted.keys() == dict(ours.named_parameters()).keys()
    for name, parameter in ours.named_parameters():
        assert torch.equal(parameter, wanted[name]), name


SD21_UNET = dict(SD15["unet"]) | {
    "attention_head_dim": [5, 10, 20, 20],
    "cross_attention_dim": 1024,
    "use_linear_projection": True,
}


# github.com/Stability-AI/generative-models, sd_xl_refiner.yaml, in diffusers' terms.
REFINER_UNET = dict(SDXL["unet"]) | {
    "block_out_channels": [384, 768, 1536, 1536],
    "down_block_types": ["DownBlock2D", *["CrossAttnDownBlock2D"] * 2, "DownBlock2D"],
    "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 2, "UpBlock2D"],
    "transformer_layers_per_block": [1, 4, 4, 4],
    "attention_head_dim": [6, 12, 24, 24],
    "cross_attention_dim": 1280,
    "projection_class_embeddings_input_dim": 1280 + 5 * 256,
}
INPAINT_UNET = dict(SD15["unet"]) | {"in_channels": 9}


@pytest.mark.parametrize(
    "config",
    [SD15["unet"], SD21_UNET, SDXL["unet"], REFINER_UNET, INPAINT_UNET],
    ids=["1.5", "2.1", "xl", "refiner", "inpainting"],
)
def test_names_and_network_of_real_unets_are_the_libraries(config):
    """At full size, where a tiny one may be right by luck; shapes alone, no memory."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    with torch.device("meta"):
        module = UNet2DConditionModel.from_config(dict(config))
    names = dict(module.named_parameters())
    originals = original_names("unet", {"unet": config}, names)
    shapes = {original: tuple(names[name].shape) for original, name in originals.items()}
    found = ldm.unet_config(shapes)
    kept = {key: value for key, value in config.items() if key != "sample_size"}
    assert {key: found.get(key) for key in kept} == kept
    stored = {f"model.diffusion_model.{key}": names[name] for key, name in originals.items()}
    given = dict(config) | {"class_embed_type": None}
    theirs = convert_ldm_unet_checkpoint(stored, given)
    rename = ldm.unet_names(shapes)
    assert {rename(key) for key in originals} == theirs.keys()
    for key in originals:
        assert theirs[rename(key)] is stored[f"model.diffusion_model.{key}"], key


def test_names_and_network_of_the_real_vae_are_the_libraries():
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    config = SD15["vae"]
    with torch.device("meta"):
        names = dict(AutoencoderKL.from_config(dict(config)).named_parameters())
    originals = original_names("vae", {"vae": config}, names)
    shapes = {original: tuple(names[name].shape) for original, name in originals.items()}
    kept = {k: v for k, v in config.items() if k not in {"sample_size", "scaling_factor"}}
    found = ldm.vae_config(shapes)
    assert {key: found.get(key) for key in kept} == kept
    theirs = convert_ldm_vae_checkpoint(
        {f"first_stage_model.{key}": names[name] for key, name in originals.items()}, dict(config)
    )
    assert {ldm.vae_names(shapes)(key) for key in originals} == theirs.keys()


# -- what it predicts --------------------------------------------------------------------------


def test_an_sd1_predicts_noise_and_an_sd2_must_say_what(file, family, tmp_path):
    if family != "sd2":
        checkpoint = open_checkpoint(file)
        assert checkpoint.training.prediction_type == "epsilon"
        assert checkpoint.sizes["latent_side"] == {"sd1": 64, "sdxl": 128}[family]
        return
    with pytest.raises(SourceError, match="does not say what its unet predicts") as caught:
        open_checkpoint(file)
    assert "--prediction v_prediction" in caught.value.hint


@pytest.mark.parametrize("family", ["sd2"], indirect=True)
@pytest.mark.parametrize(
    ("metadata", "key", "found", "side"),
    [
        ({"modelspec.prediction_type": "v"}, None, "v_prediction", 96),
        ({"modelspec.prediction_type": "epsilon"}, None, "epsilon", 64),
        (None, "v_pred", "v_prediction", 96),
    ],
)
def test_a_file_may_say_what_it_predicts(file, tmp_path, metadata, key, found, side):
    weights = load_file(file) | ({key: np.zeros(0, np.float32)} if key else {})
    save_file(weights, tmp_path / "said.safetensors", metadata=metadata)
    checkpoint = open_checkpoint(tmp_path / "said.safetensors")
    assert checkpoint.training.prediction_type == found
    assert checkpoint.sizes["latent_side"] == side
    other = "epsilon" if found == "v_prediction" else "v_prediction"
    told = open_checkpoint(tmp_path / "said.safetensors", prediction=other)
    assert told.training.prediction_type == other  # the person has the last word


# -- what is refused ---------------------------------------------------------------------------


def keep(*prefixes):
    def change(weights):
        for name in [name for name in weights if not name.startswith(prefixes)]:
            del weights[name]

    return change


def put(name, value=0.0):
    return lambda weights: weights.update({name: np.full((2, 2), value, np.float16)})


@pytest.mark.parametrize("family", ["sd1"], indirect=True)
@pytest.mark.parametrize(
    ("change", "match"),
    [
        (keep("first_stage_model."), "no Stable Diffusion"),
        (keep("model.diffusion_model."), "no text encoder"),
        (keep("model.", "cond_stage_model."), "has no VAE"),
        (put("conditioner.embedders.0.model.ln_final.weight"), "lacks the weight 'token_embedding"),
        (put("conditioner.embedders.1.model.ln_final.weight"), "one of the two text encoders"),
        (put("model.diffusion_model.input_blocks.0.1.weight"), "'input_blocks.0.1.weight', which"),
        (put("model.diffusion_model.strange.0.weight"), "'strange.0.weight', which"),
        (put("first_stage_model.decoder.strange.weight"), "'decoder.strange.weight', which"),
        (lambda w: w.pop("model.diffusion_model.out.2.weight"), r"lacks the weight 'out\.2"),
        (
            lambda w: w.pop("model.diffusion_model.input_blocks.2.0.op.weight"),
            "has no levels",
        ),
    ],
)
def test_what_is_no_whole_checkpoint_is_refused(file, tmp_path, change, match):
    target = changed(file, tmp_path / "other.safetensors", change)
    with pytest.raises(SourceError, match=match):
        open_checkpoint(target)


@pytest.mark.parametrize("family", ["sd1"], indirect=True)
def test_a_lora_is_told_apart_and_cut_files_are_refused(file, tmp_path):
    weights = {"lora_unet_mid_block_attentions_0_proj_in.lora_down.weight": np.ones((4, 8))}
    save_file(weights, tmp_path / "lora.safetensors")
    with pytest.raises(SourceError, match="a LoRA, which goes to --lora"):
        open_checkpoint(tmp_path / "lora.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(file.read_bytes()[:-1])
    with pytest.raises(SourceError, match="damaged or cut short"):
        open_checkpoint(tmp_path / "cut.safetensors")


@pytest.mark.parametrize("family", ["sd1"], indirect=True)
def test_another_vocabulary_is_refused(file, tmp_path):
    name = "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight"

    def shorten(weights):
        weights[name] = weights[name][:-1].copy()

    with pytest.raises(SourceError, match="49407 tokens; CLIP's vocabulary has 49408"):
        open_checkpoint(changed(file, tmp_path / "short.safetensors", shorten))


# -- another VAE -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vaes(tmp_path_factory) -> Path:
    """Give a folder with one VAE in each form that people have it in."""
    folder = tmp_path_factory.mktemp("vaes")
    whole = write_single_file(folder / "whole.safetensors", folder / "folder", TINY_SD1, seed=5)
    prefix = "first_stage_model."
    inside = {k.removeprefix(prefix): v for k, v in load_file(whole).items() if prefix in k}
    save_file(inside | {"loss.logvar": np.zeros(1)}, folder / "original.safetensors")
    stored = folder / "folder/vae/diffusion_pytorch_model.safetensors"
    shutil.copy(stored, folder / "diffusers.safetensors")
    return folder


@pytest.mark.parametrize(
    "name",
    ["whole.safetensors", "original.safetensors", "diffusers.safetensors", "folder", "folder/vae"],
)
@pytest.mark.parametrize("family", ["sd1"], indirect=True)
def test_a_vae_takes_the_place_of_the_checkpoints_own(file, vaes, name):
    plain = open_checkpoint(file)
    other = open_checkpoint(file, vae=vaes / name)
    wanted = open_checkpoint(vaes / "folder")
    assert other.scaling_factor == plain.scaling_factor
    assert other.tensors["unet"] == plain.tensors["unet"]
    assert other.pieces.origins.keys() > plain.pieces.origins.keys()
    decoder = other.recipe.components[2]
    shapes = parameter_shapes(decoder, other.configs["vae"])
    one, two = (matched(decoder, shapes, each.tensors["vae"]) for each in (other, wanted))
    for key, shape in shapes.items():
        mine = read_weight(one[key]).reshape(shape)
        assert np.array_equal(mine, read_weight(two[key]).reshape(shape)), key
    loaded = dict(load_original(other, "vae").named_parameters())
    for key, parameter in load_original(wanted, "vae").named_parameters():
        assert torch.equal(parameter, loaded[key]), key


@pytest.mark.parametrize("family", ["sd1"], indirect=True)
def test_a_checkpoint_without_a_vae_takes_one(file, vaes, tmp_path):
    bare = changed(file, tmp_path / "bare.safetensors", keep("model.", "cond_stage_model."))
    with pytest.raises(MissingError, match="has no VAE") as caught:
        open_checkpoint(bare)
    assert "--vae" in caught.value.hint
    assert open_checkpoint(bare, vae=vaes / "original.safetensors").scaling_factor == 0.18215
    with pytest.raises(SourceError, match="does not say how its VAE is built"):
        open_checkpoint(bare, vae=vaes / "diffusers.safetensors")


@pytest.mark.parametrize("family", ["sd1"], indirect=True)
def test_what_is_no_vae_is_refused(file, vaes, tmp_path):
    lora = tmp_path / "lora.safetensors"
    save_file({"x.lora_up.weight": np.ones((2, 2))}, lora)
    (tmp_path / "vae.pt").write_bytes(b"\x80")
    (tmp_path / "empty").mkdir()
    cases = [(lora, "has no VAE"), (tmp_path / "vae.pt", "is a pickle")]
    cases += [(tmp_path / "empty", r"lacks config\.json"), (tmp_path / "gone", "there is no VAE")]
    for place, match in cases:
        with pytest.raises(SourceError, match=match):
            open_checkpoint(file, vae=place)


@pytest.mark.parametrize("family", ["sd1"], indirect=True)
def test_the_bundled_vocabulary_is_the_libraries(file, tmp_path):
    from transformers import CLIPTokenizer

    from engine.tokenizer import Tokenizer

    for name, content in open_checkpoint(file).pieces.files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    folder = tmp_path / "tokenizer"
    assert json.loads((folder / "tokenizer_config.json").read_text())["model_max_length"] == 77
    theirs = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
    ours = Tokenizer(folder, limit=77)
    for text in ("an astronaut riding a horse on mars", "Über-naïve café, 3 £!", "日本 🎨 don't"):
        ids = theirs(text).input_ids
        assert ours.encode(text)[0][: len(ids)].tolist() == ids
    # The ids that OpenAI's own tokenizer gives to the three texts of CLIP's README.
    for text, word in (("a diagram", 22697), ("a dog", 1929), ("a cat", 2368)):
        assert ours.encode(text)[0][:4].tolist() == [49406, 320, word, 49407]


@pytest.mark.parametrize("family", ["sdxl"], indirect=True)
def test_noise_without_end_is_told_by_a_key(file, tmp_path):
    """Fine-tunes of XL that predict v with a zero terminal signal-to-noise ratio say it so."""
    keys = {"v_pred": np.zeros(0, np.float32), "ztsnr": np.zeros(0, np.float32)}
    save_file(load_file(file) | keys, tmp_path / "v.safetensors")
    training = open_checkpoint(tmp_path / "v.safetensors").training
    assert training.prediction_type == "v_prediction"
    assert training.rescale_betas_zero_snr
    assert training.timestep_spacing == "trailing"
    assert not open_checkpoint(file).training.rescale_betas_zero_snr


@pytest.mark.parametrize("family", ["sd2", "sdxl"], indirect=True)
@given(data=st.data())
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_header_that_somebody_bent_is_one_sentence(file, data):
    """Whatever is missing or has another shape: the network is read off what the file says."""
    stored = dict(index_tensors([file]))
    names = sorted(stored, key=lambda name: ("input_blocks" not in name, name))
    for name in data.draw(st.lists(st.sampled_from(names), min_size=1, max_size=3, unique=True)):
        shape = data.draw(st.sampled_from([None, (), (3,), (0, 0), (4, 5, 6)]))
        if shape is None:
            stored.pop(name, None)
        else:
            stored[name] = replace(stored[name], shape=shape)
    parts = {"model.diffusion_model.": (ldm.unet_config, ldm.unet_names)}
    parts["first_stage_model."] = (ldm.vae_config, ldm.vae_names)
    for prefix, (config, rename) in parts.items():
        inner = {k.removeprefix(prefix): v for k, v in stored.items() if k.startswith(prefix)}
        shapes = {name: tensor.shape for name, tensor in inner.items()}
        with suppress(SourceError):
            assert config(shapes)["in_channels"] >= 0
            assert ldm.renamed("part", inner, rename(shapes))
    for prefix in ("cond_stage_model.model.", "conditioner.embedders.1.model."):
        inner = {k.removeprefix(prefix): v for k, v in stored.items() if k.startswith(prefix)}
        if inner:
            with suppress(SourceError):
                ldm.open_clip_config({k: v.shape for k, v in inner.items()}, 2)
                assert ldm.open_clip_tensors(inner, 2)
