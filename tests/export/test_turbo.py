"""An adversarially distilled model with the published noise schedule draws what diffusers draws."""

import warnings

import numpy as np
import pytest
import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionPipeline

from engine import Bundle, Picture, Pipeline, choose
from export import Ingredients, export_checkpoint
from export.architectures import write_random_checkpoint
from tests.export.originals import TINY_SD2

# stabilityai/sd-turbo, scheduler/scheduler_config.json; the model has the parts of SD 2.1.
SCHEDULER = {
    "_class_name": "EulerDiscreteScheduler",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "interpolation_type": "linear",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "sample_max_value": 1.0,
    "set_alpha_to_one": False,
    "sigma_max": None,
    "sigma_min": None,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "timestep_spacing": "trailing",
    "timestep_type": "discrete",
    "trained_betas": None,
    "use_karras_sigmas": False,
}
SAME = 45.0  # dB; what fp32 leaves is 85 and more
MOVED = 40.0
SIZE = {"width": 72, "height": 64}

pytestmark = pytest.mark.slow


def psnr(a, b):
    error = np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2)
    return 200.0 if error == 0.0 else 10.0 * np.log10(255.0**2 / error)


def draw(bundle, back_end, **given):
    made = bundle.request(**({"prompt": "red apple", "seed": 7, **SIZE} | given))
    events = Pipeline(bundle, choose(back_end, "fp32")).generate(made)
    return next(event.pixels for event in events if isinstance(event, Picture))


def test_its_own_defaults_draw_diffusers_picture(tmp_path):
    source = tmp_path / "source"
    write_random_checkpoint(source, dict(TINY_SD2) | {"scheduler": SCHEDULER}, seed=3)
    export_checkpoint(
        Ingredients(source=source),
        tmp_path / "turbo",
        name="turbo",
        licence=None,
        progress=lambda *_: None,
    )
    bundle = Bundle.open(tmp_path / "turbo", hash_cache=None)
    defaults = bundle.manifest.defaults
    assert (defaults.sampler, defaults.schedule) == ("euler", "trailing")
    assert (defaults.steps, defaults.guidance_scale) == (4, 1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = StableDiffusionPipeline.from_pretrained(
            source, torch_dtype=torch.float32, use_safetensors=True, local_files_only=True
        )
    assert isinstance(theirs.scheduler, EulerDiscreteScheduler)
    theirs.set_progress_bar_config(disable=True)
    for steps in (1, 4):
        noise = torch.Generator("cpu").manual_seed(7)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = theirs(
                "red apple",
                num_inference_steps=steps,
                guidance_scale=0.0,  # off, as its authors write it
                generator=noise,
                **SIZE,
            )
        expected = np.asarray(made.images[0])
        assert expected.std() > 10.0
        given = {} if steps == defaults.steps else {"steps": steps}
        for back_end in ("openvino", "onnxruntime"):
            assert psnr(draw(bundle, back_end, **given), expected) >= SAME
        assert psnr(draw(bundle, "openvino", **given, prompt="pear"), expected) < MOVED
