import json

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from export.errors import ExportError
from export.pocket import (
    autoencoder,
    bundle,
    denoiser,
    finish,
    grid,
    latents,
    measures,
    polish,
    precisions,
)
from export.pocket.sampling import Painter

pytestmark = [
    # The scheduler of diffusers 0.42 reads a tensor in the way that numpy 2 deprecates.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.slow,  # a whole training, which no other part of the program needs
]
PROMPTS = ["bell", "orange teddy bear"]


@pytest.fixture(scope="module")
def finished(work, settings):
    for stage in (autoencoder, latents, denoiser, polish):
        assert stage.build(work, settings, 9.0, lambda _: None)
    finish.build(work, settings, lambda _: None)
    return work


def test_the_folder_is_whole_and_says_nothing_of_this_machine(finished):
    folder = finished / "pocket"
    for part in ("text_encoder", "unet", "vae"):
        assert list((folder / part).glob("*.safetensors"))
    for path in folder.rglob("*.json"):
        assert str(finished) not in path.read_text()
        assert "_name_or_path" not in json.loads(path.read_text())
    licence = (folder / "LICENSE").read_text()
    assert all(f"Copyright (c) {who}" in licence for who in ("Microsoft", "2017 Miles Johnson"))
    assert "What it cannot do" in (folder / "README.md").read_text()
    assert not list(folder.rglob("*.bin"))


@pytest.mark.filterwarnings("ignore")  # diffusers' own, from a pipeline without a safety checker
def test_our_painter_draws_what_diffusers_draws(finished):
    folder = finished / "pocket-fp32"
    pipeline = StableDiffusionPipeline.from_pretrained(folder, low_cpu_mem_usage=False)
    pipeline.set_progress_bar_config(disable=True)
    noise = [torch.Generator().manual_seed(seed) for seed in (5, 6)]
    theirs = pipeline(
        PROMPTS, num_inference_steps=20, guidance_scale=3.5, generator=noise, output_type="np"
    ).images
    ours = Painter.open(folder).draw(PROMPTS, [5, 6])
    assert np.abs(ours - np.rint(theirs * 255)).max() <= 1


def test_the_shipped_weights_are_the_trained_ones_rounded(finished):
    half, full = (Painter.open(finished / name) for name in ("pocket", "pocket-fp32"))
    for (name, a), (_, b) in zip(
        half.unet.named_parameters(), full.unet.named_parameters(), strict=True
    ):
        assert torch.equal(a, b.half().float()), name


def test_a_bundle_needs_its_sheets(finished):
    with pytest.raises(ExportError, match="grid-pocket"):
        bundle.build(finished, lambda _: None)
    assert not (finished / "models").exists()


@pytest.mark.parametrize(
    ("state", "said"),
    [("unet-state", "not trained to its end"), ("polish-state", "not at its end")],
)
def test_an_unfinished_course_is_not_shipped(finished, settings, state, said):
    path = finished / f"{state}.safetensors"
    path.rename(finished / "kept")
    try:
        with pytest.raises(ExportError, match=said):
            finish.build(finished, settings, lambda _: None)
    finally:
        (finished / "kept").rename(path)


def test_the_examination_reports_every_measure(finished, settings):
    report = measures.build(finished, settings, finished / "pocket", limit=0, say=lambda _: None)
    assert report["concepts"] == 4
    assert report["in_set"]["of"] == 8
    assert report["held_out"]["combinations"] == 1
    assert report["vae"]["of"] == 2
    assert report["space_accuracy"]["full"] == 1.0
    assert json.loads((finished / "evaluation-pocket.json").read_text()) == report


def test_the_grid_is_drawn(finished, settings, monkeypatch):
    monkeypatch.setattr(grid, "PROMPTS", ("bell", "teddy") * 4)
    grid.build(finished, settings, finished / "pocket", lambda _: None)
    with Image.open(finished / "grid-pocket.png") as image:
        assert image.size == (8 * 134 + 6, 2 * 150 + 6)
    assert (finished / "nearest-pocket.png").exists()


def test_no_folder_is_named(tmp_path):
    with pytest.raises(ExportError, match="no diffusers folder"):
        Painter.open(tmp_path)


def test_rounding_is_measured_against_the_trained_weights(finished, settings):
    report = precisions.build(finished, settings, 0, lambda _: None)
    assert report["trained fp32"]["psnr_mean"] > 70
    assert 70 > report["shipped fp32"]["psnr_mean"] > report["shipped bf16"]["psnr_mean"] > 10
    assert report["shipped fp16"]["psnr_mean"] > report["shipped bf16"]["psnr_mean"]
    assert json.loads((finished / "precisions.json").read_text()) == report
