"""A bundle opens when every byte is what its manifest says, and not otherwise."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest

from engine.bundle import Bundle
from engine.errors import BundleError, RequestError

SHIPPED = Path(__file__).parents[2] / "safelight/models/pocket"
FILES = sorted(
    path.relative_to(SHIPPED).as_posix() for path in SHIPPED.rglob("*") if path.is_file()
)


@pytest.fixture
def copy(tmp_path) -> Path:
    return Path(shutil.copytree(SHIPPED, tmp_path / "pocket"))


def edit(path: Path, change) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def test_the_shipped_bundle_is_whole():
    bundle = Bundle.open(SHIPPED, hash_cache=None)
    assert bundle.verified
    assert bundle.name == "pocket"
    assert bundle.hash == hashlib.sha256((SHIPPED / "safelight.json").read_bytes()).hexdigest()
    assert bundle.bytes == sum((SHIPPED / name).stat().st_size for name in FILES) - (
        (SHIPPED / "safelight.json").stat().st_size
    )
    assert bundle.bytes <= 20_000_000
    assert bundle.model("unet") == SHIPPED / "unet/model.onnx"
    assert bundle.training.prediction_type == bundle.manifest.prediction_type


@pytest.mark.parametrize("name", [name for name in FILES if name != "safelight.json"])
def test_one_flipped_bit_anywhere_is_refused_by_name(copy, name):
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(BundleError, match=name):
        Bundle.open(copy, hash_cache=None)


@pytest.mark.parametrize("name", ["unet/model.onnx_data", "tokenizer/vocab.json"])
def test_a_missing_and_a_cut_file_are_refused(copy, name):
    data = (copy / name).read_bytes()
    (copy / name).write_bytes(data[:-1])
    with pytest.raises(BundleError, match=f"{name} has {len(data) - 1} bytes"):
        Bundle.open(copy, hash_cache=None)
    (copy / name).unlink()
    with pytest.raises(BundleError, match=f"lacks {name}"):
        Bundle.open(copy, hash_cache=None)


def test_a_stray_file_is_refused_since_readers_might_take_it(copy):
    (copy / "tokenizer/special_tokens_map.json").write_text("{}")
    with pytest.raises(BundleError, match=r"special_tokens_map\.json is in the bundle and not"):
        Bundle.open(copy, hash_cache=None)


def test_what_the_desktop_leaves_behind_is_not_part_of_it(copy):
    (copy / ".DS_Store").write_text("x")
    assert Bundle.open(copy, hash_cache=None).verified


@pytest.mark.parametrize(
    ("port", "value"),
    [("shape", ["batch", 4, 64, 64]), ("dtype", "float16"), ("shape", ["batch", 9, "h", "w"])],
)
def test_shapes_that_are_not_the_graphs_are_refused(copy, port, value):
    def change(manifest: dict) -> None:
        manifest["components"]["unet"]["inputs"]["sample"][port] = value

    edit(copy / "safelight.json", change)
    with pytest.raises(BundleError, match="other inputs"):
        Bundle.open(copy, hash_cache=None)


def test_a_wrong_size_in_the_manifest_is_refused(copy):
    edit(copy / "safelight.json", lambda m: m["files"]["unet/model.onnx"].update(bytes=7))
    with pytest.raises(BundleError, match="its manifest says 7"):
        Bundle.open(copy, hash_cache=None)


def test_a_bundle_that_was_opened_before_is_verified_again(copy, tmp_path):
    cache = tmp_path / "cache/hashes.json"
    assert Bundle.open(copy, hash_cache=cache).verified
    data = bytearray((copy / "unet/model.onnx_data").read_bytes())
    data[0] ^= 1
    (copy / "unet/model.onnx_data").write_bytes(data)
    with pytest.raises(BundleError, match="sha256 differs"):
        Bundle.open(copy, hash_cache=cache)


def test_a_plain_optimum_folder_is_accepted_and_said_to_be_unverified(copy):
    verified = Bundle.open(copy, hash_cache=None)
    (copy / "safelight.json").unlink()
    plain = Bundle.open(copy, hash_cache=None)
    assert not plain.verified
    assert plain.manifest.licence == "unknown"
    for same in ("prediction_type", "scaling_factor", "token_limit", "embed_dim", "default_width"):
        assert getattr(plain.manifest, same) == getattr(verified.manifest, same)
    assert plain.manifest.components["unet"].inputs == verified.manifest.components["unet"].inputs
    before = plain.hash
    with (copy / "unet/model.onnx_data").open("ab") as data:
        data.write(b"\0")
    assert Bundle.open(copy, hash_cache=None).hash != before


def test_a_folder_that_is_no_bundle_is_refused(tmp_path):
    with pytest.raises(BundleError, match="lacks text_encoder"):
        Bundle.open(tmp_path, hash_cache=None)
    with pytest.raises(BundleError, match="no bundle 'nothing'"):
        Bundle.open(tmp_path / "nothing", hash_cache=None)


def test_a_crowd_of_files_is_refused(tmp_path):
    for number in range(1100):
        (tmp_path / f"{number}").touch()
    with pytest.raises(BundleError, match="more than 1024 files"):
        Bundle.open(tmp_path, hash_cache=None)


def test_a_pipe_in_place_of_a_file_does_not_block(copy):
    (copy / "unet/model.onnx_data").unlink()
    os.mkfifo(copy / "unet/model.onnx_data")
    with pytest.raises(BundleError, match="no ordinary file"):
        Bundle.open(copy, hash_cache=None)


def test_an_unknown_component_names_those_there_are():
    with pytest.raises(BundleError, match="no controlnet") as caught:
        Bundle.open(SHIPPED, hash_cache=None).model("controlnet")
    assert "unet" in caught.value.hint


def test_a_request_takes_what_is_given_and_the_rest_from_the_bundle():
    bundle = Bundle.open(SHIPPED, hash_cache=None)
    request = bundle.request(prompt="red apple", seed=7, steps=3)
    assert (request.steps, request.sampler, request.guidance_scale) == (3, "dpmpp_2m", 3.5)
    assert (request.width, request.height, request.seed) == (128, 128, 7)
    with pytest.raises(RequestError, match="steps"):
        bundle.request(prompt="", seed=0, steps=-1)


def test_a_sampler_that_needs_another_spacing_brings_it_along():
    bundle = Bundle.open(SHIPPED, hash_cache=None)
    own = bundle.manifest.defaults.schedule
    chosen = bundle.request(prompt="", seed=0, sampler="dpmpp_3m_sde")
    assert chosen.schedule == "exponential"
    assert own != "exponential"
    given = bundle.request(prompt="", seed=0, sampler="dpmpp_3m_sde", schedule=own)
    assert given.schedule == own


@pytest.mark.parametrize(
    ("family", "said", "zeroes"),
    [("sd1", None, False), ("sdxl", None, True), ("sdxl", True, True), ("sdxl", False, False)],
)
def test_xl_zeroes_an_empty_negative_prompt_unless_its_index_says_no(copy, family, said, zeroes):
    if said is not None:
        edit(copy / "model_index.json", lambda it: it.update(force_zeros_for_empty_prompt=said))
    index = (copy / "model_index.json").read_bytes()
    entry = {"bytes": len(index), "sha256": hashlib.sha256(index).hexdigest()}

    def change(manifest):
        manifest["family"] = family
        manifest["files"]["model_index.json"] = entry

    edit(copy / "safelight.json", change)
    assert Bundle.open(copy, hash_cache=None).zero_empty is zeroes
