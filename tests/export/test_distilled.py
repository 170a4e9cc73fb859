"""Latent consistency models draw what diffusers draws of them, in few steps and one half."""

import json
import warnings

import numpy as np
import pytest
import torch
from diffusers import LatentConsistencyModelPipeline, LCMScheduler, StableDiffusionXLPipeline

from engine import Bundle, Picture, Pipeline, choose
from export import Ingredients, SourceError, export_checkpoint
from export.architectures import TINY, TINY_XL, write_random_checkpoint
from export.recheck import recheck_bundle
from export.source import open_checkpoint

SAME = 45.0  # dB; what fp32 leaves is 85 and more
MOVED = 40.0
PROMPT, SEED, DIM = "red apple", 7, 32
LCM = {"_class_name": "LCMScheduler", "original_inference_steps": 50, "timestep_scaling": 10.0}


def consistency(architecture):
    return dict(architecture) | {
        "unet": dict(architecture["unet"]) | {"time_cond_proj_dim": DIM},
        "scheduler": dict(architecture["scheduler"]) | LCM | {"timestep_spacing": "leading"},
    }


ARCHITECTURES = {"sd1": consistency(TINY), "sdxl": consistency(TINY_XL)}
PIPELINES = {"sd1": LatentConsistencyModelPipeline, "sdxl": StableDiffusionXLPipeline}


def psnr(a, b):
    error = np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2)
    return 200.0 if error == 0.0 else 10.0 * np.log10(255.0**2 / error)


def edit(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def draw(bundle, back_end, **given):
    made = bundle.request(**({"prompt": PROMPT, "seed": SEED} | given))
    events = Pipeline(bundle, choose(back_end, "fp32")).generate(made)
    return next(event.pixels for event in events if isinstance(event, Picture))


def written(folder, family):
    write_random_checkpoint(folder, ARCHITECTURES[family], seed=3)
    if family == "sd1":
        edit(folder / "model_index.json", _class_name="LatentConsistencyModelPipeline")
    return folder


@pytest.fixture(scope="module", params=["sd1", "sdxl"])
def both(request, tmp_path_factory):
    """Give our bundle and their pipeline of the same checkpoint."""
    folder = tmp_path_factory.mktemp(request.param)
    source = written(folder / "source", request.param)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        more = {"safety_checker": None, "feature_extractor": None} if request.param == "sd1" else {}
        theirs = PIPELINES[request.param].from_pretrained(
            source, torch_dtype=torch.float32, use_safetensors=True, local_files_only=True, **more
        )
    assert isinstance(theirs.scheduler, LCMScheduler)
    theirs.set_progress_bar_config(disable=True)
    export_checkpoint(
        Ingredients(source=source),
        folder / "bundle",
        name="lcm",
        licence=None,
        progress=lambda *_: None,
    )
    return Bundle.open(folder / "bundle", hash_cache=None), theirs


@pytest.mark.slow
def test_it_draws_what_diffusers_does(both):
    bundle, theirs = both
    spec = bundle.manifest.components["unet"].inputs["timestep_cond"]
    assert spec.shape == ("batch", DIM)
    defaults = bundle.manifest.defaults
    assert (defaults.sampler, defaults.steps, defaults.guidance_scale) == ("lcm", 4, 8.0)
    for guidance in (8.0, 1.0):
        given = {"guidance_scale": guidance, "width": 64, "height": 72}
        noise = torch.Generator("cpu").manual_seed(SEED)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = theirs(PROMPT, num_inference_steps=4, generator=noise, **given)
        expected = np.asarray(made.images[0])
        assert expected.std() > 10.0
        for back_end in ("openvino", "onnxruntime"):
            assert psnr(draw(bundle, back_end, **given), expected) >= SAME
    other = {"guidance_scale": 2.0, "width": 64, "height": 72}
    assert psnr(draw(bundle, "openvino", **other), expected) < MOVED
    negative = given | {"negative_prompt": "blue"}  # which it has no place for
    assert psnr(draw(bundle, "openvino", **negative), expected) >= SAME


@pytest.mark.slow
def test_the_gate_can_be_repeated_on_its_bundle(both):
    measures = recheck_bundle(both[0].path, lambda *_: None)
    assert "unet" in {measure.subject for measure in measures}


def test_its_recipe_has_the_input_of_optimum_s_name(tmp_path):
    for family in ARCHITECTURES:
        checkpoint = open_checkpoint(written(tmp_path / family, family))
        assert checkpoint.family == family
        unet = next(part for part in checkpoint.recipe.components if part.name == "unet")
        assert [port.name for port in unet.inputs][-1] == "timestep_cond"
        assert checkpoint.sizes["guidance_dim"] == DIM


@pytest.mark.parametrize("dim", [3, "many", 1 << 20])
def test_a_width_that_no_embedding_has_is_refused(tmp_path, dim):
    source = written(tmp_path / "source", "sd1")
    edit(source / "unet/config.json", time_cond_proj_dim=dim)
    with pytest.raises(SourceError, match="time_cond_proj_dim"):
        open_checkpoint(source)
