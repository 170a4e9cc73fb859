"""Guidance interval and deep-feature reuse draw what diffusers draws when it is made to do so."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, HeunDiscreteScheduler

import safelight
from engine import Bundle, Picture, Pipeline, choose
from export import Ingredients, export_checkpoint
from export.reference import load_torch_pipeline

POCKET = Path(safelight.__file__).parent / "models/pocket"
SAME = 45.0  # dB, as in the engine's parity tests; what fp32 leaves is 85 and more
MOVED = 35.0  # dB; what each lever changes is at least as much
STEPS, GUIDANCE, SEED = 9, 3.5, 7


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Keep torch from waiting for threads that the back ends' own keep busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def reference():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # diffusers' own deprecations
        return load_torch_pipeline(POCKET)


class Diffusers:
    """The reference with guidance that ends and with features kept by a hook."""

    def __init__(self, pipe, scheduler=DPMSolverMultistepScheduler):
        self.pipe, self.calls, self.kept = pipe, 0, None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # diffusers' own deprecations
            pipe.scheduler = scheduler.from_config(pipe.scheduler.config)

    def draw(self, *, end=1.0, every=1):
        def keep(_module, _args, given):
            if self.calls % every == 0:
                self.kept = given["hidden_states"]
            self.calls += 1
            # Guidance that has ended leaves the prompt's own half, which is the second.
            return (), given | {"hidden_states": self.kept[-len(given["hidden_states"]) :]}

        def stop(pipe, step, _timestep, given):
            # diffusers' own recipe for dynamic guidance; of Heun it counts the evaluations
            if end < 1.0 and step + 1 == end * STEPS:
                pipe._guidance_scale = 0.0  # its documented way; there is no setter
                given["prompt_embeds"] = given["prompt_embeds"].chunk(2)[-1]
            return given

        hook = self.pipe.unet.up_blocks[-1].register_forward_pre_hook(keep, with_kwargs=True)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                made = self.pipe(
                    "red apple",
                    num_inference_steps=STEPS,
                    guidance_scale=GUIDANCE,
                    generator=torch.Generator("cpu").manual_seed(SEED),
                    height=128,
                    width=128,
                    callback_on_step_end=stop,
                    callback_on_step_end_tensor_inputs=["prompt_embeds"],
                )
        finally:
            hook.remove()
        return np.asarray(made.images[0])


def ours(path, cache, back_end="openvino", **given):
    bundle = Bundle.open(path, hash_cache=None)
    pipeline = Pipeline(bundle, choose(back_end, "fp32", cache))
    fields = {"steps": STEPS, "guidance_scale": GUIDANCE, "schedule": "linspace"} | given
    *_, picture = pipeline.generate(bundle.request(prompt="red apple", seed=SEED, **fields))
    assert isinstance(picture, Picture)
    return picture.pixels


def psnr(a, b):
    error = np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2)
    return 200.0 if error == 0.0 else 10.0 * np.log10(255.0**2 / error)


def test_guidance_that_ends_is_diffusers_dynamic_guidance(reference, tmp_path):
    end = 1 / 3
    expected = Diffusers(reference).draw(end=end)
    got = ours(POCKET, tmp_path, guidance_end=end)
    assert psnr(got, expected) >= SAME
    assert psnr(ours(POCKET, tmp_path), expected) < MOVED


@pytest.fixture(scope="module")
def with_pair(reference, tmp_path_factory):
    work = tmp_path_factory.mktemp("pair")
    reference.save_pretrained(work / "source")
    export_checkpoint(
        Ingredients(source=work / "source", variants=("shallow",)),
        work / "made",
        name="made",
        licence=None,
        progress=lambda _stage, _fraction: None,
    )
    return work / "made"


@pytest.mark.slow
@pytest.mark.parametrize("back_end", ["openvino", "onnxruntime"])
@pytest.mark.parametrize(
    ("every", "end", "sampler"),
    [(2, 1.0, "dpmpp_2m"), (3, 1.0, "dpmpp_2m"), (3, 2 / 3, "dpmpp_2m"), (2, 1.0, "heun")],
)
def test_reuse_is_the_last_up_block_on_kept_features(
    reference, with_pair, tmp_path, back_end, every, end, sampler
):
    scheduler = {"dpmpp_2m": DPMSolverMultistepScheduler, "heun": HeunDiscreteScheduler}[sampler]
    expected = Diffusers(reference, scheduler).draw(every=every, end=end)
    given = {"sampler": sampler, "guidance_end": end}
    got = ours(with_pair, tmp_path, back_end, reuse_every=every, **given)
    assert psnr(got, expected) >= SAME
    if back_end == "openvino":
        # The levers come one on top of the other: each is seen beside the rest.
        assert psnr(ours(with_pair, tmp_path, **given), expected) < SAME


@pytest.mark.slow
def test_a_bundle_with_the_pair_draws_exactly_what_it_drew_without(with_pair, tmp_path):
    pictures = [ours(path, tmp_path) for path in (POCKET, with_pair)]
    assert psnr(*pictures) >= SAME
    pair = ours(with_pair, tmp_path, reuse_every=1)
    assert np.array_equal(pair, pictures[1])
