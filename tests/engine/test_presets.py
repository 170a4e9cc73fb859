"""Presets: plain fields, none that the user gave, none that the bundle cannot take."""

from dataclasses import replace
from pathlib import Path

import pytest

import safelight
from engine import Bundle, FakeBackend, Pipeline, RequestError
from engine.presets import PRESETS, preset
from safelight.orders import requests
from tests.engine.test_reuse import with_pair

SPEED = ("balanced", "draft")


@pytest.fixture(scope="module")
def plain():
    return Bundle.open(Path(safelight.__file__).parent / "models" / "pocket", hash_cache=None)


@pytest.fixture(scope="module")
def pair(plain):
    return with_pair(plain)


def evaluations(fields, defaults):
    """Count what the fields cost in runs of the network on one text, a shallow one as a half."""
    steps = fields.get("steps", defaults.steps)
    start, every = fields.get("guidance_start", 0.0), fields.get("reuse_every", 1)
    texts = sum(1 + (step / steps >= start) for step in range(steps))
    return texts * (1 + (every - 1) * 0.5) / every


@pytest.mark.parametrize("name", ["plain", "pair"])
def test_each_is_quicker_than_the_one_before(name, request):
    manifest = request.getfixturevalue(name).manifest
    costs = [
        evaluations(preset(each, manifest), manifest.defaults)
        for each in ("exact", "balanced", "draft")
    ]
    assert costs[0] == 2 * manifest.defaults.steps
    assert costs[0] / costs[1] >= 1.6  # what is promised of them, but for the decoder
    assert costs[0] / costs[2] >= 3.0


@pytest.mark.parametrize("name", PRESETS)
def test_its_fields_make_a_picture_with_each_bundle(name, plain, pair):
    for bundle in (plain, pair):
        made = bundle.request(prompt="red apple", seed=1, **preset(name, bundle.manifest))
        *_, picture = Pipeline(bundle, FakeBackend()).generate(made)
        assert picture.request == made
        assert (made.reuse_every > 1) == (bundle is pair and name != "exact")


def test_exact_is_what_it_is_without_a_preset(plain):
    assert preset("exact", plain.manifest) == {}


@pytest.mark.parametrize("name", SPEED)
@pytest.mark.parametrize(
    ("given", "absent"),
    [
        ({"steps": 30}, {"steps"}),
        ({"guidance_start": 0.0}, {"guidance_start", "guidance_end"}),
        # A start of the preset's could lie behind the user's end.
        ({"guidance_end": 0.05}, {"guidance_start", "guidance_end"}),
        ({"guidance_scale": 1.0}, {"guidance_start", "guidance_end"}),
        ({"reuse_every": 1}, {"reuse_every"}),
        ({"decoder": "vae"}, {"decoder"}),
        ({"sampler": "euler"}, {"steps", "sampler"}),  # of first order: it needs its steps
    ],
    ids=str,
)
def test_what_the_user_gave_stays_and_nothing_contradicts_it(pair, name, given, absent):
    fields = preset(name, pair.manifest, given)
    assert not absent & set(fields)
    assert fields
    pair.request(prompt="a", seed=1, **(fields | given))


def test_few_steps_come_with_a_sampler_that_bears_them(plain):
    defaults = replace(plain.manifest.defaults, sampler="euler")
    fields = preset("draft", replace(plain.manifest, defaults=defaults))
    assert (fields["sampler"], fields["steps"] < defaults.steps) == ("dpmpp_2m", True)
    assert "sampler" not in preset("draft", plain.manifest, {"sampler": "unipc"})
    assert "steps" in preset("draft", plain.manifest, {"sampler": "unipc"})


def test_of_a_model_made_for_few_steps_none_are_left_out(plain):
    defaults = replace(plain.manifest.defaults, steps=4, guidance_scale=1.0)
    assert preset("draft", replace(plain.manifest, defaults=defaults)) == {}


def test_draft_takes_the_tiny_decoder_where_there_is_one(plain):
    components = dict(plain.manifest.components)
    components["tiny_vae_decoder"] = components["vae_decoder"]
    manifest = replace(plain.manifest, components=components)
    assert preset("draft", manifest)["decoder"] == "tiny"
    assert "decoder" not in preset("balanced", manifest)


def test_an_order_may_name_another_preset_than_the_command(plain):
    orders = [{"prompt": "a", "seed": 1}, {"prompt": "a", "seed": 1, "preset": "exact"}]
    draft, exact = requests(plain, orders, {"preset": "draft", "steps": None, "width": 64})
    assert draft.steps < exact.steps == plain.manifest.defaults.steps
    assert (draft.guidance_start > 0.0, exact.guidance_start) == (True, 0.0)
    assert draft.width == exact.width == 64


def test_an_unknown_one_is_named_with_the_nearest(plain):
    with pytest.raises(RequestError, match="unknown preset 'drafd'; did you mean 'draft'"):
        list(requests(plain, [{"prompt": "a"}], {"preset": "drafd"}))
