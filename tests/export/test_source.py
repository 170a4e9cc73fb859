"""What is no good checkpoint is refused in one sentence, before torch is even imported."""

import json
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from export import MissingError, SourceError
from export.checkpoint import fingerprint
from export.originals import load_original
from export.source import open_checkpoint

UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture
def source(tmp_path, tiny_checkpoint) -> Path:
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "source"))


def edit(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_good_one_is_recognised_with_its_sizes(source):
    checkpoint = open_checkpoint(source)
    assert checkpoint.recipe.family == "sd1"
    assert checkpoint.sizes == {
        "token_limit": 20,
        "embed_dim": 32,
        "text_dim": 32,
        "latent_side": 8,
        "unet_channels": 4,
        "unet_factor": 2,
    }
    assert {tensor.dtype for tensor in checkpoint.tensors["unet"].values()} == {"F16"}
    assert "LICENSE.md" in checkpoint.pieces.files
    assert "README.md" not in checkpoint.pieces.files


def test_reading_it_does_not_import_torch(source):
    program = (
        "import sys; from pathlib import Path; from export.source import open_checkpoint;"
        "open_checkpoint(Path(sys.argv[1])); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program, str(source)], check=True)


@pytest.mark.parametrize("name", ["model.ckpt", "MODEL.PT", "pytorch_model.bin"])
def test_a_pickle_is_refused_with_the_reason_and_the_way_out(tmp_path, name):
    (tmp_path / name).write_bytes(b"\x80\x04")
    with pytest.raises(SourceError, match="runs whatever code") as caught:
        open_checkpoint(tmp_path / name)
    assert "safetensors" in caught.value.hint


def test_pickled_weights_in_a_folder_are_refused(source):
    (source / UNET).rename(source / "unet/diffusion_pytorch_model.bin")
    with pytest.raises(SourceError, match=r"unet/diffusion_pytorch_model\.bin is a pickle"):
        open_checkpoint(source)


def test_a_foreign_file_and_a_foreign_folder_are_refused(tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"x")
    with pytest.raises(SourceError, match=r"'model\.gguf' is no checkpoint"):
        open_checkpoint(tmp_path / "model.gguf")
    with pytest.raises(SourceError, match=r"no model_index\.json"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("cut", [1, 1000, 0.5])
def test_cut_weights_are_refused(source, cut):
    data = (source / UNET).read_bytes()
    (source / UNET).write_bytes(data[: int(len(data) * cut) if cut < 1 else -cut])
    with pytest.raises(SourceError, match="damaged or cut short"):
        open_checkpoint(source)


@pytest.mark.parametrize(
    ("head", "match"),
    [
        (b"", "cut short"),
        (b"\x01\x02", "cut short"),
        (struct.pack("<Q", 0), "no safetensors"),
        (struct.pack("<Q", 1 << 62), "cut short"),
        (struct.pack("<Q", 5) + b"{nope", "damaged"),
    ],
)
def test_a_header_that_is_none_is_refused(source, head, match):
    (source / UNET).write_bytes(head)
    with pytest.raises(SourceError, match=match):
        open_checkpoint(source)


def test_a_huge_header_is_not_read(source):
    with (source / UNET).open("wb") as file:
        file.write(struct.pack("<Q", 20 << 20))
        file.truncate(40 << 20)
    with pytest.raises(SourceError, match="header of"):
        open_checkpoint(source)


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"_class_name": "StableDiffusion3Pipeline"}, "'StableDiffusion3Pipeline' cannot"),
        ({"_class_name": "StableDiffusionXLPipeline"}, "text_encoder_2 is missing"),
        ({"_class_name": None}, "'None' cannot"),
        ({"unet": ["diffusers", "UNet3DConditionModel"]}, "UNet2DConditionModel is needed"),
        ({"text_encoder": None}, "text_encoder is missing"),
    ],
)
def test_another_family_is_refused(source, values, match):
    edit(source / "model_index.json", **values)
    with pytest.raises(SourceError, match=match) as caught:
        open_checkpoint(source)
    if "cannot" in match:
        assert "StableDiffusionPipeline" in caught.value.hint


@pytest.mark.parametrize(
    ("part", "values", "match"),
    [
        ("unet", {"in_channels": 8}, "8 channels; 4 latent channels"),
        ("unet", {"addition_embed_type": "text_time"}, "another family"),
        ("unet", {"encoder_hid_dim_type": "text_proj"}, "another family"),
        ("unet", {"cross_attention_dim": 64}, "do not fit"),
        ("unet", {"cross_attention_dim": [64, 64]}, "whole number"),
        ("unet", {"sample_size": 0}, "from 1 to"),
        ("vae", {"scaling_factor": "big"}, "a number is needed"),
        ("vae", {"latent_channels": 16}, "4 latent channels"),
        ("vae", {"block_out_channels": [8, 8]}, "2 resolutions"),
        ("text_encoder", {"vocab_size": 600}, "ids up to 699"),
        ("text_encoder", {"max_position_embeddings": 0}, "from 3 to"),
    ],
)
def test_parts_that_do_not_fit_are_refused(source, part, values, match):
    edit(source / part / "config.json", **values)
    with pytest.raises(SourceError, match=match):
        open_checkpoint(source)


@pytest.mark.parametrize(
    "name",
    ["unet/config.json", "scheduler/scheduler_config.json", UNET, "tokenizer/merges.txt"],
)
def test_a_missing_file_is_named(source, name):
    (source / name).unlink()
    with pytest.raises(MissingError, match=name.split("/")[0]):
        open_checkpoint(source)


@pytest.mark.parametrize("text", ["{", "[]", '{"a": 1, "a": 2}'])
def test_a_damaged_configuration_is_refused(source, text):
    (source / "vae/config.json").write_text(text)
    with pytest.raises(SourceError, match=r"config\.json"):
        open_checkpoint(source)


def shard(source: Path, names: dict[str, str]) -> None:
    (source / UNET).rename(source / "unet/whole")
    index = {"metadata": {}, "weight_map": names}
    (source / f"{UNET}.index.json").write_text(json.dumps(index))


def test_shards_are_read_as_one(source):
    weights = load_file(source / UNET)
    whole = open_checkpoint(source)
    keys = sorted(weights)
    shard(source, {key: f"part-{number % 2}.safetensors" for number, key in enumerate(keys)})
    for half in (0, 1):
        save_file(
            {key: weights[key] for key in keys[half::2]},
            source / f"unet/part-{half}.safetensors",
        )
    parts = open_checkpoint(source)
    assert set(parts.tensors["unet"]) == set(whole.tensors["unet"])


def test_shards_in_half_precision_are_found_and_loaded(source):
    """As `diffusion_pytorch_model.safetensors.index.fp16.json` names them in large repositories."""
    weights = load_file(source / UNET)
    keys = sorted(weights)
    stem = "diffusion_pytorch_model"
    names = [f"{stem}.fp16-0000{n}-of-00002.safetensors" for n in (1, 2)]
    shard(source, {key: names[number % 2] for number, key in enumerate(keys)})
    (source / f"{UNET}.index.json").rename(source / f"unet/{stem}.safetensors.index.fp16.json")
    for half, name in enumerate(names):
        save_file(
            {key: weights[key] for key in keys[half::2]},
            source / "unet" / name,
            metadata={"format": "pt"},
        )
    checkpoint = open_checkpoint(source)
    assert set(checkpoint.tensors["unet"]) == set(weights)
    loaded = load_original(checkpoint, "unet").state_dict()
    assert np.array_equal(loaded[keys[0]].numpy(), weights[keys[0]].astype(np.float32))


@pytest.mark.parametrize("name", ["../vae/x.safetensors", "/etc/passwd", "x.bin"])
def test_a_shard_from_elsewhere_is_refused(source, name):
    shard(source, {"conv_in.weight": name})
    with pytest.raises(SourceError, match="no shard beside it"):
        open_checkpoint(source)


def test_a_missing_shard_is_named(source):
    shard(source, {"conv_in.weight": "part-1.safetensors"})
    with pytest.raises(MissingError, match=r"part-1\.safetensors"):
        open_checkpoint(source)


def test_the_fingerprint_follows_contents_and_not_places(source, tiny_checkpoint):
    before = fingerprint(open_checkpoint(tiny_checkpoint))
    assert fingerprint(open_checkpoint(source)) == before
    weights = load_file(source / UNET)
    weights["conv_in.bias"] = weights["conv_in.bias"] + np.float16(1)
    save_file(weights, source / UNET)
    assert fingerprint(open_checkpoint(source)) != before
