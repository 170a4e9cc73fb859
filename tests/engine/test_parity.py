"""A seed gives diffusers' picture: StableDiffusionPipeline in fp32 against both back ends.

The reference is rebuilt from the bundle's own weights. A picture that ignored its prompt would
agree as well, so each case also shows that a changed word and a changed guidance scale move it.
"""

import json
import shutil
import warnings
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch

import safelight
from engine import Bundle, Picture, Pipeline, choose
from export import Ingredients, export_checkpoint
from export.architectures import TINY, write_random_checkpoint
from export.reference import load_torch_pipeline
from tests import tiny as made

# Our sampler -> the scheduler class that it must equal, and how its configuration is changed.
SCHEDULERS = {
    # With linspace, diffusers' DDIM steps to t - 1000 // steps, which is not the timestep that it
    # visits next; with leading it does what the paper says, and so do we. By default it clips the
    # clean latents to -1..1, which StableDiffusionPipeline turns off when it is made.
    "ddim": (diffusers.DDIMScheduler, {"timestep_spacing": "leading", "clip_sample": False}),
    "dpmpp_2m": (diffusers.DPMSolverMultistepScheduler, {}),
    "dpmpp_2m_sde": (
        diffusers.DPMSolverMultistepScheduler,
        {"algorithm_type": "sde-dpmsolver++"},
    ),
    "euler": (diffusers.EulerDiscreteScheduler, {}),
    "euler_a": (diffusers.EulerAncestralDiscreteScheduler, {}),
    "heun": (diffusers.HeunDiscreteScheduler, {}),
    "lcm": (diffusers.LCMScheduler, {}),
    "unipc": (diffusers.UniPCMultistepScheduler, {}),
}
SAME = 45.0  # dB; what fp32 leaves is 85 and more
MOVED = 30.0  # dB; beneath it two pictures are plainly two
SEED = 7
PROMPT = "red apple"
BACK_ENDS = ("openvino", "onnxruntime")


class Case:
    """One bundle opened in torch and in both back ends."""

    def __init__(self, path: Path, cache: Path, **given):
        self.bundle = Bundle.open(path, hash_cache=None)
        self.given = {"steps": 12, "guidance_scale": 3.5} | given
        self.torch = load_torch_pipeline(path)
        # The file's own values, and the spacing written out: a class whose configuration does not
        # name one takes its own habit, so that PNDM's becomes linspace when Euler reads it.
        self.config = json.loads((path / "scheduler/scheduler_config.json").read_text())
        self.config["timestep_spacing"] = self.bundle.manifest.defaults.schedule
        self.pipelines = {
            name: Pipeline(self.bundle, choose(name, "fp32", cache)) for name in BACK_ENDS
        }

    def ours(self, back_end, sampler, **given):
        spacing = SCHEDULERS[sampler][1].get("timestep_spacing", self.config["timestep_spacing"])
        wanted = {"prompt": PROMPT, "seed": SEED, "sampler": sampler, "schedule": spacing}
        made = self.bundle.request(**(wanted | self.given | given))
        events = self.pipelines[back_end].generate(made)
        (picture,) = [event for event in events if isinstance(event, Picture)]
        return picture.pixels

    def theirs(self, sampler, **given):
        cls, changes = SCHEDULERS[sampler]
        wanted = self.given | given
        height, width = self.bundle.manifest.default_height, self.bundle.manifest.default_width
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # diffusers' own deprecations
            self.torch.scheduler = cls.from_config(self.config, **changes)
            made = self.torch(
                PROMPT,
                num_inference_steps=wanted["steps"],
                guidance_scale=wanted["guidance_scale"],
                height=wanted.get("height", height),
                width=wanted.get("width", width),
                negative_prompt=wanted.get("negative_prompt"),
                generator=torch.Generator("cpu").manual_seed(SEED),
            )
        return np.asarray(made.images[0])


def psnr(a, b):
    """Compare two pictures uint8[H, W, 3], in dB; 200 for equal ones."""
    error = np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2)
    return 200.0 if error == 0.0 else 10.0 * np.log10(255.0**2 / error)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Keep torch from waiting for threads that the back ends' own keep busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def faults(case, sampler):
    """Say what is wrong with a case's pictures beside diffusers': nothing, if they are equal.

    That words and guidance show in a picture is the network's: one sampler of a case is asked.
    """
    expected = case.theirs(sampler)
    found = [] if expected.std() > 10.0 else ["there is nothing in the picture"]
    for back_end in BACK_ENDS:
        near = psnr(case.ours(back_end, sampler), expected)
        if not near >= SAME:
            found.append(f"{back_end}: {near:.1f} dB")
    if sampler == "dpmpp_2m":
        for other in (
            {"prompt": "blue apple"},
            {"guidance_scale": case.given["guidance_scale"] / 2},
        ):
            near = psnr(case.ours("openvino", sampler, **other), expected)
            if not near < MOVED:
                found.append(f"{other} moves nothing: {near:.1f} dB")
    return found


# -- pocket, the model in the box --------------------------------------------------------------


@pytest.fixture(scope="module")
def pocket(tmp_path_factory):
    path = Path(safelight.__file__).parent / "models" / "pocket"
    return Case(path, tmp_path_factory.mktemp("cache"))


@pytest.mark.parametrize("sampler", SCHEDULERS)
def test_pocket_equals_diffusers(pocket, sampler):
    assert faults(pocket, sampler) == []


@pytest.mark.parametrize(
    "given",
    [
        {"steps": 20},  # what the bundle asks for
        {"guidance_scale": 1.0},
        {"negative_prompt": "leaf, green"},
        {"width": 192, "height": 64},
        {"width": 72, "height": 104},  # 9 x 13 latents do not halve evenly
    ],
    ids=str,
)
def test_pocket_equals_diffusers_in_other_requests(pocket, given):
    expected = pocket.theirs("dpmpp_2m", **given)
    for back_end in BACK_ENDS:
        assert psnr(pocket.ours(back_end, "dpmpp_2m", **given), expected) >= SAME


def test_pockets_default_request_is_its_own_scheduler(pocket):
    made = pocket.bundle.request(prompt=PROMPT, seed=SEED)
    events = pocket.pipelines["openvino"].generate(made)
    (picture,) = [event for event in events if isinstance(event, Picture)]
    assert pocket.config["_class_name"] == "DPMSolverMultistepScheduler"
    expected = pocket.theirs("dpmpp_2m", steps=made.steps, guidance_scale=made.guidance_scale)
    assert psnr(picture.pixels, expected) >= SAME


# -- random weights, other sizes, both predictions ---------------------------------------------


def export_tiny(folder, architecture, seed):
    """Export a random checkpoint: gives the bundle's folder."""
    write_random_checkpoint(folder / "checkpoint", architecture, seed=seed)
    export_checkpoint(
        Ingredients(source=folder / "checkpoint"),
        folder / "tiny",
        name="tiny",
        licence=None,
        progress=lambda *_: None,
    )
    return folder / "tiny"


def as_plain_export(bundle, out, prediction_type):
    """Copy a bundle as optimum would have left it, with another prediction type."""
    shutil.copytree(bundle, out)
    (out / "safelight.json").unlink()
    path = out / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"prediction_type": prediction_type}))
    return out


@pytest.fixture(scope="module")
def tiny_bundle(tmp_path_factory):
    return made.tiny_bundle(tmp_path_factory)


@pytest.fixture(scope="module", params=["epsilon", "v_prediction"])
def tiny(request, tiny_bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    plain = as_plain_export(tiny_bundle, folder / "plain", request.param)
    return Case(plain, folder / "cache", guidance_scale=7.5)


@pytest.mark.parametrize("sampler", SCHEDULERS)
def test_random_weights_equal_diffusers(tiny, sampler):
    assert not tiny.bundle.verified
    assert faults(tiny, sampler) == []


def test_a_verified_bundle_and_a_plain_export_draw_the_same(tiny_bundle, tmp_path):
    plain = Bundle.open(
        as_plain_export(tiny_bundle, tmp_path / "plain", "epsilon"), hash_cache=None
    )
    bundle = Bundle.open(tiny_bundle, hash_cache=None)
    assert (bundle.verified, plain.verified) == (True, False)
    made = bundle.request(prompt=PROMPT, seed=SEED, steps=4, sampler="euler")
    pictures = [
        event.pixels
        for opened in (bundle, plain)
        for event in Pipeline(opened, choose("onnxruntime", "fp32")).generate(made)
        if isinstance(event, Picture)
    ]
    assert np.array_equal(*pictures)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [11, 12])
def test_other_architectures_equal_diffusers(tmp_path, seed):
    draw = np.random.default_rng(seed)
    width = int(draw.choice([24, 48]))
    architecture = dict(TINY) | {
        "text_encoder": dict(TINY["text_encoder"])
        | {"hidden_size": width, "max_position_embeddings": int(draw.integers(12, 40))},
        "unet": dict(TINY["unet"])
        | {
            "cross_attention_dim": width,
            "block_out_channels": [int(c) for c in draw.choice([16, 24, 40], 2)],
            "layers_per_block": 2,
        },
    }
    bundle = export_tiny(tmp_path, architecture, seed)
    for prediction_type in ("epsilon", "v_prediction"):
        plain = as_plain_export(bundle, tmp_path / prediction_type, prediction_type)
        case = Case(plain, tmp_path / "cache", guidance_scale=7.5)
        for sampler in ("euler", "dpmpp_2m"):
            assert faults(case, sampler) == [], (prediction_type, sampler)
