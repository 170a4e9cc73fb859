"""A request is checked once, at the border, and never shows its prompt."""

import dataclasses
import math

import pytest

from engine.errors import RequestError
from engine.request import (
    DEFAULT_ETA,
    MAX_PROMPT,
    MAX_SEED,
    NOISES,
    SAMPLERS,
    SCHEDULES,
    GenerationRequest,
)
from engine.samplers import METHODS

GOOD = {
    "prompt": "a canary",
    "width": 128,
    "height": 64,
    "steps": 20,
    "sampler": "dpmpp_2m",
    "schedule": "linspace",
    "guidance_scale": 3.5,
    "seed": 0,
}


def test_limits_are_inclusive():
    for given in (
        {"width": 8, "height": 8192},
        {"steps": 1},
        {"steps": 1000},
        {"seed": MAX_SEED},
        {"seed": MAX_SEED - 9_999, "count": 10_000},
        {"guidance_scale": 0.0},
        {"guidance_scale": 100.0},
        {"eta": 0.0},
        {"eta": 1.0},
        {"guidance_start": 0.0, "guidance_end": 1.0},
        {"reuse_every": 20},
        {"prompt": "x" * MAX_PROMPT},
    ):
        GenerationRequest(**(GOOD | given))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"width": 0}, "width is 0"),
        ({"width": 8200}, "width is 8200"),
        ({"height": 100}, "height is 100"),
        ({"height": -8}, "height is -8"),
        ({"steps": 0}, "steps is 0"),
        ({"steps": 1001}, "steps is 1001"),
        ({"steps": 2.5}, "steps is of type float"),
        ({"steps": True}, "steps is of type bool"),
        ({"clip_skip": 0}, "clip_skip is 0; from 1 to 12"),
        ({"clip_skip": 13}, "clip_skip is 13"),
        ({"clip_skip": 1.5}, "clip_skip is of type float"),
        ({"prompt_syntax": "a1112"}, "unknown prompt syntax 'a1112'; did you mean 'a1111'"),
        ({"prompt": "a AND " * 20}, "joins 21 texts by AND"),
        ({"negative_prompt": "a BREAK " * 300}, "has 300 BREAKs"),
        ({"width": "128"}, "width is of type str"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**63}, "seed is"),
        ({"seed": MAX_SEED, "count": 2}, "seed is"),  # the second picture's seed would not fit
        ({"count": 0}, "count is 0"),
        ({"count": 10_001}, "count is 10001"),
        ({"guidance_scale": -0.1}, "guidance_scale is -0.1"),
        ({"guidance_scale": math.nan}, "guidance_scale is nan"),
        ({"guidance_scale": math.inf}, "guidance_scale is inf"),
        ({"eta": 1.1}, "eta is 1.1"),
        ({"eta": -0.1}, "eta is -0.1"),
        ({"guidance_start": -0.1}, "guidance_start is -0.1"),
        ({"guidance_end": 1.5}, "guidance_end is 1.5"),
        ({"guidance_end": math.nan}, "guidance_end is nan"),
        ({"guidance_start": 0.5, "guidance_end": 0.5}, "must be below guidance_end, which is 0.5"),
        ({"reuse_every": 0}, "reuse_every is 0; from 1 to 20"),
        ({"reuse_every": 21}, "reuse_every is 21"),
        ({"reuse_every": 2.0}, "reuse_every is of type float"),
        ({"strength": 1.5}, "strength is 1.5; from 0.0 to 1.0"),
        ({"strength": -0.1}, "strength is -0.1"),
        ({"strength": math.nan}, "strength is nan"),
        ({"hires_strength": 1.1}, "hires_strength is 1.1"),
        ({"variation_strength": -0.5}, "variation_strength is -0.5"),
        ({"variation_seed": -1}, "variation_seed is -1"),
        ({"mask_blur": -1}, "mask_blur is -1"),
        ({"hires_scale": 0.5}, "hires_scale is 0.5"),
        ({"hires_scale": math.nan}, "hires_scale is nan"),
        ({"width": 4096, "hires_scale": 2.5}, "makes 10240x"),
        ({"hires_steps": 1001}, "hires_steps is 1001"),
        ({"hires_upscaler": "lanzos"}, "did you mean 'lanczos'"),
        ({"refiner_switch": 1.1}, "refiner_switch is 1.1"),
        ({"vae_tiling": "onn"}, "did you mean 'on'"),
        ({"sampler": "eular"}, "unknown sampler 'eular'; did you mean 'euler'"),
        ({"schedule": "karas"}, "did you mean 'karras'"),
        ({"noise": "cuda"}, "unknown noise 'cuda'"),
        ({"prompt": "x" * (MAX_PROMPT + 1)}, "prompt has 65537 characters"),
        ({"negative_prompt": "x" * (MAX_PROMPT + 1)}, "negative_prompt has 65537"),
        ({"prompt": "a \ud83d wish"}, "the prompt holds half of a surrogate pair"),
        ({"negative_prompt": "\udcff", "guidance_scale": 1.0}, "the negative prompt holds half"),
    ],
)
def test_each_bad_value_is_named(given, says):
    with pytest.raises(RequestError, match=says.replace("(", r"\(")) as raised:
        GenerationRequest(**(GOOD | given))
    assert "canary" not in f"{raised.value} {raised.value.hint}"


def test_a_size_off_the_grid_hints_at_the_nearest():
    with pytest.raises(RequestError) as raised:
        GenerationRequest(**(GOOD | {"width": 509}))
    assert raised.value.hint == "512 is the nearest"


def test_an_eta_left_out_is_the_samplers_own():
    for sampler in SAMPLERS:
        request = GenerationRequest(**(GOOD | {"sampler": sampler}))
        assert request.eta == DEFAULT_ETA.get(sampler, 0.0)
    assert set(DEFAULT_ETA) < set(SAMPLERS)
    assert "ddim" not in DEFAULT_ETA  # diffusers' pipeline runs it with 0
    assert GenerationRequest(**(GOOD | {"sampler": "ddim", "eta": 0.3})).eta == 0.3


def test_it_is_frozen_and_keeps_its_prompt_out_of_its_repr():
    request = GenerationRequest(**GOOD, negative_prompt="another canary")
    assert "canary" not in repr(request)
    with pytest.raises(dataclasses.FrozenInstanceError):
        request.seed = 1


def test_the_names_are_sorted_and_all_samplers_have_a_table():
    for names in (SAMPLERS, SCHEDULES, NOISES):
        assert list(names) == sorted(names)
    assert set(SAMPLERS) == set(METHODS)
