"""Pictures that begin with a picture are diffusers': img2img and inpainting by pocket, in fp32."""

import warnings
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

import safelight
from engine import Bundle, Picture, Pipeline, choose
from engine.inputs import Inputs
from export.reference import load_torch_pipeline
from tests.engine.test_parity import SCHEDULERS, psnr

SAME = 45.0  # dB; what fp32 leaves is 60 and more
SEED, STEPS, SCALE = 11, 12, 3.5
PROMPT, BEFORE = "blue apple", "red apple"


class Case:
    """Pocket in torch and in both back ends, and a picture to begin with."""

    def __init__(self, cache):
        path = Path(safelight.__file__).parent / "models" / "pocket"
        self.bundle = Bundle.open(path, hash_cache=None)
        self.torch = load_torch_pipeline(path)
        self.config = dict(self.torch.scheduler.config)
        self.config["timestep_spacing"] = self.bundle.manifest.defaults.schedule
        self.pipelines = {
            name: Pipeline(self.bundle, choose(name, "fp32", cache))
            for name in ("openvino", "onnxruntime")
        }
        self.init = self.ours("openvino", Inputs(), prompt=BEFORE, seed=3)
        height, width, _ = self.init.shape
        self.mask = np.zeros((height, width), np.uint8)
        self.mask[height // 4 : height // 2 + 8, width // 4 : -32] = 255

    def ours(self, back_end, inputs, sampler="dpmpp_2m", **given):
        spacing = SCHEDULERS[sampler][1].get("timestep_spacing", self.config["timestep_spacing"])
        wanted = {"prompt": PROMPT, "seed": SEED, "steps": STEPS, "guidance_scale": SCALE}
        made = self.bundle.request(**(wanted | {"sampler": sampler, "schedule": spacing} | given))
        events = self.pipelines[back_end].generate(made, inputs=inputs)
        (picture,) = [event for event in events if isinstance(event, Picture)]
        return picture.pixels

    def theirs(self, kind, sampler, strength, **more):
        cls, changes = SCHEDULERS[sampler]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # diffusers' own deprecations
            pipe = kind(**(self.torch.components | {"scheduler": cls.from_config(self.config)}))
            pipe.scheduler = cls.from_config(self.config, **changes)
            pipe.set_progress_bar_config(disable=True)
            made = pipe(
                PROMPT,
                image=Image.fromarray(self.init),
                strength=strength,
                num_inference_steps=STEPS,
                guidance_scale=SCALE,
                generator=torch.Generator("cpu").manual_seed(SEED),
                **more,
            )
        return np.asarray(made.images[0])


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    return Case(tmp_path_factory.mktemp("cache"))


@pytest.mark.parametrize(
    "sampler", ["ddim", "dpmpp_2m", "dpmpp_2m_sde", "euler_a", "heun", "unipc"]
)
@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_img2img_equals_diffusers(case, sampler, strength):
    expected = case.theirs(diffusers.StableDiffusionImg2ImgPipeline, sampler, strength)
    inputs = Inputs(init=case.init)
    got = case.ours("onnxruntime", inputs, sampler, strength=strength)
    assert psnr(got, expected) >= SAME
    other = case.ours("onnxruntime", inputs, sampler, strength=strength, prompt="rocket")
    assert psnr(other, expected) < 35.0  # the prompt has its say


@pytest.mark.parametrize("sampler", ["dpmpp_2m", "euler_a", "heun"])
@pytest.mark.parametrize("strength", [0.7, 1.0])
def test_inpainting_under_a_mask_equals_diffusers_within_it(case, sampler, strength):
    """Around the mask diffusers leaves what its decoder made; here the picture is put back."""
    expected = case.theirs(
        diffusers.StableDiffusionInpaintPipeline,
        sampler,
        strength,
        mask_image=Image.fromarray(case.mask),
    )
    inputs = Inputs(init=case.init, mask=case.mask)
    got = case.ours("openvino", inputs, sampler, strength=strength, mask_blur=0)
    painted = case.mask > 0
    assert psnr(got[painted], expected[painted]) >= SAME
    assert np.array_equal(got[~painted], case.init[~painted])
    assert psnr(got[painted], case.init[painted]) < 35.0  # something was painted


def test_a_strength_of_little_keeps_the_picture_and_of_much_does_not(case):
    inputs = Inputs(init=case.init)
    weak, strong = (case.ours("openvino", inputs, strength=each) for each in (0.1, 0.9))
    assert psnr(weak, case.init) > psnr(strong, case.init) + 3.0
