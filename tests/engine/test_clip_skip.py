"""Clip skip draws diffusers' picture: SD 1 and XL, random weights, text encoders of four layers.

Without guidance: diffusers skips layers for the prompt alone, we and A1111 for both prompts.
"""

import warnings

import numpy as np
import pytest
import torch
from diffusers import (
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)

from engine import Bundle, Picture, Pipeline, choose
from export import Ingredients, export_checkpoint
from export.architectures import TINY, TINY_XL, write_random_checkpoint

SAME = 45.0  # dB, as in test_parity.py; what fp32 leaves is 80 and more
MOVED = 30.0  # dB; beneath it two pictures are plainly two
SEED = 7
PROMPT = "red apple"


def deeper(architecture):
    """Give every text encoder four layers."""
    return {
        name: dict(part) | {"num_hidden_layers": 4} if name.startswith("text") else part
        for name, part in architecture.items()
    }


def psnr(one, other):
    error = np.mean((one.astype(np.float64) - other.astype(np.float64)) ** 2)
    return 200.0 if error == 0.0 else 10.0 * np.log10(255.0**2 / error)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "kind"),
    [(TINY, StableDiffusionPipeline), (TINY_XL, StableDiffusionXLPipeline)],
    ids=["sd1", "xl"],
)
def test_clip_skip_equals_diffusers_which_counts_one_less(tmp_path, architecture, kind):
    write_random_checkpoint(tmp_path / "checkpoint", deeper(architecture), seed=3)
    export_checkpoint(
        Ingredients(source=tmp_path / "checkpoint"),
        tmp_path / "tiny",
        name="tiny",
        licence=None,
        progress=lambda *_: None,
    )
    bundle = Bundle.open(tmp_path / "tiny", hash_cache=None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # diffusers' own deprecations
        reference = kind.from_pretrained(
            tmp_path / "checkpoint",
            torch_dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
        )
        scheduler = EulerDiscreteScheduler.from_config(
            reference.scheduler.config, timestep_spacing="leading"
        )
    reference.scheduler = scheduler
    if architecture is TINY:  # diffusers asks for this name, which transformers 5 no longer has
        reference.text_encoder.__dict__["text_model"] = reference.text_encoder
    reference.set_progress_bar_config(disable=True)
    side = {"width": bundle.manifest.default_width, "height": bundle.manifest.default_height}
    pipelines = [
        Pipeline(bundle, choose(name, "fp32", tmp_path / "cache"))
        for name in ("openvino", "onnxruntime")
    ]

    def theirs(skip):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # diffusers' own deprecations
            made = reference(
                PROMPT,
                num_inference_steps=6,
                guidance_scale=1.0,
                clip_skip=skip - 1 if skip > 1 else None,
                generator=torch.Generator("cpu").manual_seed(SEED),
                **side,
            )
        return np.asarray(made.images[0])

    def ours(pipeline, skip):
        settings = {"steps": 6, "guidance_scale": 1.0, "sampler": "euler", "schedule": "leading"}
        made = bundle.request(prompt=PROMPT, seed=SEED, clip_skip=skip, **settings)
        (picture,) = (e for e in pipeline.generate(made) if isinstance(e, Picture))
        return picture.pixels

    for skip in (1, 2, 3):
        expected = theirs(skip)
        assert expected.std() > 10.0  # there is something in the picture
        for pipeline in pipelines:
            got = ours(pipeline, skip)
            assert psnr(got, expected) >= SAME, f"{skip}: {psnr(got, expected):.1f} dB"
            assert psnr(ours(pipeline, skip + 1), expected) < MOVED
