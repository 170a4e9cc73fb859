"""A bundle and LoRAs make a bundle: the named weights alone, by an export's own sums."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from typer.testing import CliRunner

import safelight
from engine import Bundle, BundleError
from engine.manifest import read_manifest
from export import (
    Ingredients,
    Options,
    Reweighting,
    SourceError,
    export_checkpoint,
    reweight_bundle,
)
from export.architectures import TINY, TINY_XL, write_random_checkpoint
from export.graphweights import stored_weights
from safelight.cli import app
from safelight.exits import exit_status
from tests.export.lora_files import ALPHA, RANK, draw, state, trainable, write
from tests.tiny import CREATED

POCKET = Path(safelight.__file__).with_name("models") / "pocket"
TEXT = ("text_encoder", "text_encoder_2", "unet")


def weights_of(bundle: Path) -> dict[str, dict[str, tuple[int, ...]]]:
    return {part: shapes(bundle, part) for part in TEXT if (bundle / part).is_dir()}


def shapes(bundle: Path, part: str) -> dict[str, tuple[int, ...]]:
    found = stored_weights(bundle / part / "model.onnx", bundle / part / "model.onnx_data")
    return {name: each.shape for name, each in found.items()}


def values(bundle: Path, part: str) -> dict[str, np.ndarray]:
    data = bundle / part / "model.onnx_data"
    whole = data.read_bytes()
    return {
        name: each.read(whole[each.offset : each.offset + each.length])
        for name, each in stored_weights(bundle / part / "model.onnx", data).items()
        if each.offset is not None
    }


def some_lora(folder: Path, weights, *, every: int = 9, seed: int = 3, size: float = 0.02):
    """Write a LoRA of every ninth weight, small enough that the picture is still one."""
    folder.mkdir(exist_ok=True)
    factors = {
        key: (up * np.float32(size), down)
        for key, (up, down) in draw(weights, trainable(weights)[::every], seed).items()
    }
    return write(folder, state(weights, factors, "kohya")), factors


def made(base: Path, out: Path, *loras, **given):
    return reweight_bundle(
        Reweighting(base=base, loras=loras),
        out,
        name=out.name,
        licence=None,
        progress=lambda *_: None,
        options=Options(now=lambda: CREATED),
        **given,
    )


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Give a bundle of pocket and a LoRA at 0.5, and the LoRA's file and factors."""
    folder = tmp_path_factory.mktemp("reweighted")
    file, factors = some_lora(folder / "lora", weights_of(POCKET))
    made(POCKET, folder / "inked", (file, 0.5))
    return folder / "inked", file, factors


def test_named_weights_are_the_sums_and_all_others_the_base_s(pair):
    bundle, _, factors = pair
    assert {part for part, _ in factors} == {"text_encoder", "unet"}
    for part in ("text_encoder", "unet"):
        before, after = values(POCKET, part), values(bundle, part)
        assert before.keys() == after.keys()
        for name, old in before.items():
            if (part, name) not in factors:
                np.testing.assert_array_equal(after[name], old)
                continue
            up, down = (each.astype(np.float64) for each in factors[part, name])
            product = np.tensordot(up.reshape(len(up), RANK), down, axes=1).reshape(old.shape)
            exact = old.astype(np.float64) + 0.5 * ALPHA / RANK * product
            # fp16 keeps eleven bits: half of the last one is the rounding, the rest f32's.
            np.testing.assert_allclose(after[name], exact, rtol=1.01 * 2**-11, atol=1e-7)
            assert not np.array_equal(after[name], old)


def in_the_graph(bundle: Path, layer: str) -> dict[str, np.ndarray]:
    graph = onnx.load(bundle / "unet/model.onnx", load_external_data=False).graph
    kept = [each for each in graph.initializer if each.name.startswith(f"{layer}.")]
    return {each.name.removeprefix(f"{layer}."): numpy_helper.to_array(each) for each in kept}


def test_what_is_too_small_for_the_external_data_is_added_to_as_well(tmp_path):
    layer = "down_blocks.0.resnets.0.norm1"
    before = in_the_graph(POCKET, layer)
    added = {f"{end[0]}_norm": np.linspace(-1, 1, len(before[end])) for end in ("weight", "bias")}
    tensors = {f"lora_unet_{layer.replace('.', '_')}.{role}": v for role, v in added.items()}
    file = write(tmp_path, {key: value.astype(np.float32) for key, value in tensors.items()})
    made(POCKET, tmp_path / "new", (file, 0.5))
    after = in_the_graph(tmp_path / "new", layer)
    assert before.keys() == after.keys() == {"weight", "bias"}
    for end, old in before.items():
        exact = old.astype(np.float64) + 0.5 * added[f"{end[0]}_norm"]
        np.testing.assert_allclose(after[end], exact, rtol=1.01 * 2**-11, atol=1e-7)
    assert (tmp_path / "new/unet/model.onnx_data").read_bytes() == (
        POCKET / "unet/model.onnx_data"
    ).read_bytes()


def test_it_is_a_verified_bundle_that_says_what_it_is_made_of(pair):
    bundle, file, factors = pair
    opened, base = (Bundle.open(each, hash_cache=None) for each in (bundle, POCKET))
    assert opened.verified
    source = opened.manifest.source
    assert (source.kind, source.name, source.revision) == ("reweighted", "pocket", base.hash)
    note = json.loads((bundle / "reweighted.json").read_text())
    assert note["base"]["identity"] == base.hash
    assert [(each["file"], each["scale"]) for each in note["loras"]] == [(file.name, 0.5)]
    assert sum(note["weights"].values()) == len(factors)
    assert opened.manifest.parity == base.manifest.parity
    for name, entry in base.manifest.files.items():
        same = opened.manifest.files[name] == entry
        assert same is not name.endswith(("unet/model.onnx_data", "text_encoder/model.onnx_data"))
    assert (bundle / "LICENSE").read_bytes() == (POCKET / "LICENSE").read_bytes()


def test_the_base_is_left_as_it_was(pair):
    assert Bundle.open(POCKET, hash_cache=None).verified


def refused(tmp_path, base, *loras):
    with pytest.raises((SourceError, BundleError)) as caught:
        made(base, tmp_path / "new", *loras)
    assert not list(tmp_path.glob(".new*"))
    assert not (tmp_path / "new").exists()
    return str(caught.value)


def test_what_cannot_be_a_base_is_refused(tmp_path, pair):
    bundle, file, _ = pair
    assert "added already" in refused(tmp_path, bundle, (file, 1.0))
    assert "no LoRA" in refused(tmp_path, POCKET)
    assert "no file" in refused(tmp_path, POCKET, (tmp_path / "none.safetensors", 1.0))
    plain = shutil.copytree(POCKET, tmp_path / "plain")
    (plain / "safelight.json").unlink()
    assert "plain ONNX export" in refused(tmp_path, plain, (file, 1.0))
    damaged = shutil.copytree(POCKET, tmp_path / "damaged")
    with (damaged / "unet/model.onnx_data").open("rb+") as opened:
        opened.write(b"\0\0\0\0")
    assert "sha256 differs" in refused(tmp_path, damaged, (file, 1.0))


def test_what_does_not_fit_leaves_nothing_behind(tmp_path):
    weights = weights_of(POCKET)
    file, _ = some_lora(tmp_path / "huge", weights, size=1e6)
    assert "beyond fp16" in refused(tmp_path, POCKET, (file, 1.0))  # seen while it is written
    other = {"unet": dict.fromkeys(list(weights["unet"])[:3], (64, 64))}
    file, _ = some_lora(tmp_path / "other", other, every=1)
    assert "do not fit" in refused(tmp_path, POCKET, (file, 1.0))


def run(home: Path, *words: object):
    env = {"SAFELIGHT_HOME": str(home)}
    return CliRunner(env=env).invoke(app, [str(word) for word in words])


def test_the_command_takes_a_name_on_the_shelf(tmp_path, pair, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bundle, file, _ = pair
    order = ("export", "pocket", "--to", "inked", "--json", "--lora")
    done = run(tmp_path, *order, f"{file}:0.5")
    assert done.exit_code == 0, done.exception
    new = Path(json.loads(done.stdout)["path"])
    assert new == tmp_path / "models/inked"
    assert read_manifest(new).source == read_manifest(bundle).source
    again = run(tmp_path, *order, f"{file}:0.5")
    assert again.exit_code == 0
    assert "Nothing has changed" in again.stderr
    assert "Measured on its base 'pocket'" in run(tmp_path, "models", "show", "inked").stdout
    assert "Measured on" not in run(tmp_path, "models", "show", "pocket").stdout
    other = run(tmp_path, *order, f"{file}:0.6")
    assert exit_status(other.exception) == 2
    assert "not overwritten" in str(other.exception)
    for words in (("--vae", file, "--lora", file), ()):
        bad = run(tmp_path, "export", "pocket", "--to", "more", *words)
        assert exit_status(bad.exception) == 2


@pytest.mark.slow
@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_it_has_the_bits_of_an_export_with_the_same_loras(tmp_path, family):
    source = tmp_path / "source"
    write_random_checkpoint(source, {"sd1": TINY, "sdxl": TINY_XL}[family], seed=3)

    def export(out, loras=()):
        export_checkpoint(
            Ingredients(source=source, loras=loras),
            out,
            name="same",
            licence=None,
            progress=lambda *_: None,
            options=Options(now=lambda: CREATED),
        )
        return out

    base = export(tmp_path / "base")
    weights = weights_of(base)
    if family == "sdxl":  # the layer that no graph holds: LoRAs name it all the same
        layers = {n: s for n, s in weights["text_encoder"].items() if ".layers.0." in n}
        weights["text_encoder"] |= {n.replace(".0.", ".1.", 1): s for n, s in layers.items()}
    loras = tuple(
        (some_lora(tmp_path / f"lora {place}", weights, every=every, seed=place)[0], scale)
        for place, (every, scale) in enumerate([(1, 0.7), (3, -1.3)])
    )
    fresh = export(tmp_path / "fresh", loras)
    made(base, tmp_path / "swapped", *loras)
    manifests = [read_manifest(each) for each in (base, fresh, tmp_path / "swapped")]
    files = {name: entry for name, entry in manifests[2].files.items() if name != "reweighted.json"}
    assert files == manifests[1].files
    assert files != manifests[0].files
    alike = {"source": None, "files": None, "parity": None, "name": "", "latent_rgb": None}
    assert replace(manifests[1], **alike) == replace(manifests[2], **alike)
