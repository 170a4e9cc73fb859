"""`generate --device torch` with a checkpoint that was never exported, by the real command."""

import shutil

import numpy as np
import pytest
from PIL import Image

from engine import Picture, Pipeline, choose
from export import Unexported
from export.architectures import TINY, write_random_checkpoint
from tests.e2e.command import QUICK, make_home

SAME, MOVED = 45.0, 30.0  # dB, as in tests/export/test_unexported.py
WORDS = ("--device", "torch", "--seed", "7", *QUICK)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = make_home(tmp_path_factory.mktemp("home") / "home")
    shutil.rmtree(home.path / "cache")  # what is in it is counted below
    return home


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny source"
    write_random_checkpoint(folder, TINY, seed=1)
    return folder


def psnr(a, b):
    error = np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2)
    return 200.0 if error == 0.0 else 10.0 * np.log10(255.0**2 / error)


def test_it_draws_seals_and_says_what_it_was(home, checkpoint, tmp_path):
    (made,) = home.lines("generate", "red apple", "--model", str(checkpoint), *WORDS)
    assert (made["model"], made["backend"], made["device"]) == ("tiny-source", "torch", "CPU")
    (shown,) = home.lines("show", made["id"])
    model = Unexported.open(checkpoint, cache=tmp_path / "cache")
    assert shown["model_hash"] == model.bundle.hash
    assert shown["reason"].endswith("never exported: there is no parity report")
    assert {"torch", "diffusers", "transformers"} <= set(shown["libraries"])
    home.run("reveal", made["id"], "--to", str(tmp_path / "picture.png"))
    with Image.open(tmp_path / "picture.png") as image:
        pixels = np.asarray(image.convert("RGB"))
    for prompt, same in (("red apple", True), ("blue apple", False)):
        request = model.bundle.request(prompt=prompt, seed=7, steps=4)
        *_, picture = Pipeline(model.bundle, model.on(choose("torch:CPU"))).generate(request)
        assert isinstance(picture, Picture)
        apart = psnr(picture.pixels, pixels)
        assert apart >= SAME if same else apart < MOVED
    again = home.run("reproduce", made["id"], status=5)
    assert "the model 'tiny-source' that drew this picture is not on the shelf" in again.stderr


def test_no_weight_is_copied_into_the_home(home, checkpoint):
    whole = sum(path.stat().st_size for path in checkpoint.rglob("*.safetensors"))
    kept = sum(path.stat().st_size for path in (home.path / "cache").rglob("*") if path.is_file())
    assert 0 < kept < whole / 10


@pytest.mark.parametrize("device", ["auto", "cpu", "onnxruntime"])
def test_another_device_is_one_sentence_and_a_hint(home, checkpoint, device):
    before = home.lines("ls")
    words = ("--model", str(checkpoint), "--device", device, *QUICK)
    done = home.run("generate", "red apple", *words, status=7)
    assert done.stdout == ""
    said, hint = done.stderr.splitlines()
    assert said.startswith("safelight: 'tiny source' is a checkpoint that was never exported")
    assert hint.startswith("hint: --device torch; or `safelight export ")
    assert home.lines("ls") == before


def test_pickles_are_refused(home, checkpoint, tmp_path):
    source = shutil.copytree(checkpoint, tmp_path / "source")
    weights = source / "unet/diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    done = home.run("generate", "red apple", "--model", str(source), *WORDS, status=6)
    assert "is a pickle: loading it runs whatever code is inside" in done.stderr


def test_a_missing_library_is_named_with_the_line_that_installs_it(home, checkpoint, tmp_path):
    # Read by Python as it starts: the library is as if it were not installed.
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['diffusers'] = None\n")
    path = home.env().get("PYTHONPATH", "")
    home.environ["PYTHONPATH"] = f"{tmp_path}:{path}" if path else str(tmp_path)
    try:
        done = home.run("generate", "red apple", "--model", str(checkpoint), *WORDS, status=7)
    finally:
        del home.environ["PYTHONPATH"]
    assert "never exported needs diffusers" in done.stderr
    assert "hint: pip install 'safelight[export]'" in done.stderr
