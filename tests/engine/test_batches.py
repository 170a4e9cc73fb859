"""Several pictures at once: each is the one made alone, and what goes wrong costs no others."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import safelight
from engine import (
    Bundle,
    FakeBackend,
    NotFiniteError,
    OutOfMemoryError,
    Picture,
    Pipeline,
    RequestError,
    Step,
    choose,
    conditioning,
)
from engine.control import Control
from engine.guard import DENOISE_REPAIR
from engine.inputs import Inputs
from engine.repairs import BATCH_REPAIR
from engine.replicas import draw_all
from tests.engine.test_pipeline import CountingBackend

PIXELS = np.random.default_rng(3).integers(0, 256, (64, 64, 3)).astype(np.uint8)
MASK = np.where(np.arange(64) < 40, 255, 0).astype(np.uint8).repeat(64).reshape(64, 64)


@pytest.fixture(scope="module")
def bundle():
    return Bundle.open(Path(safelight.__file__).parent / "models" / "pocket", hash_cache=None)


def request(bundle, **given):
    fixed = {"prompt": "red apple", "seed": 7, "steps": 3, "width": 64, "height": 64}
    return bundle.request(**(fixed | given))


def draw(bundle, backend, made, **more):
    events = list(Pipeline(bundle, backend).generate(made, **more))
    return [e for e in events if isinstance(e, Picture)], [e for e in events if isinstance(e, Step)]


def unet_rows(counting):
    """Give the rows of pictures of each unet that was loaded."""
    return [shapes["sample"][0] for name, shapes, _ in counting.loads if name == "unet"]


# -- the same pictures -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"guidance_scale": 1.0},
        {"prompt": "a red apple AND a blue car :0.7"},
        {"prompt": "a [red:blue:0.5] apple"},
        {"sampler": "euler_a"},
        {"sampler": "dpmpp_2m_sde", "noise": "philox"},
        {"sampler": "heun"},
        {"variation_strength": 0.4, "variation_seed": 3},
        {"hires_scale": 2.0, "hires_steps": 2},
        {"hires_scale": 1.5, "hires_upscaler": "lanczos"},
        {"decoder": "vae", "vae_tiling": "on", "width": 256},
    ],
    ids=lambda given: "-".join(given) or "plain",
)
def test_each_picture_is_the_one_made_alone(bundle, given):
    asked = request(bundle, count=5, **given)
    alone, _ = draw(bundle, FakeBackend(), asked)
    together, _ = draw(bundle, FakeBackend(), replace(asked, batch_size=3))
    assert [each.request.batch_size for each in together] == [3, 3, 3, 2, 2]
    for one, other in zip(alone, together, strict=True):
        assert np.array_equal(one.pixels, other.pixels)
        assert replace(other.request, batch_size=1) == one.request
    assert not np.array_equal(together[0].pixels, together[1].pixels)


@pytest.mark.parametrize("mask", [False, True])
def test_what_goes_in_goes_into_each(bundle, mask):
    asked = request(bundle, count=3, strength=0.7, sampler="euler_a")
    given = Inputs(init=PIXELS, mask=MASK) if mask else Inputs(init=PIXELS)
    alone, _ = draw(bundle, FakeBackend(), asked, inputs=given)
    together, _ = draw(bundle, FakeBackend(), replace(asked, batch_size=3), inputs=given)
    for one, other in zip(alone, together, strict=True):
        assert np.array_equal(one.pixels, other.pixels)


@pytest.mark.parametrize("device", ["openvino", "onnxruntime"])
def test_a_real_network_draws_the_same_up_to_rounding(bundle, device, tmp_path):
    asked = request(bundle, count=3, width=128, height=128, steps=4)
    choice = choose(device, "fp32", tmp_path)
    alone, _ = draw(bundle, choice, asked)
    together, _ = draw(bundle, choice, replace(asked, batch_size=3))
    for one, other in zip(alone, together, strict=True):
        off = np.abs(one.pixels.astype(int) - other.pixels.astype(int))
        assert off.max() <= 1  # of 255: float32 added in another order, and then rounded
    assert np.abs(together[0].pixels.astype(int) - together[1].pixels.astype(int)).max() > 60


@pytest.mark.parametrize("prompt", ["red apple", "a red apple AND a cat AND a car"])
def test_as_many_rows_of_other_pictures_and_texts_are_another_network(bundle, prompt, tmp_path):
    """One picture with two or four texts, and then two pictures: rows alone do not tell."""
    guided = request(bundle, prompt=prompt, width=128, height=128)
    few = {"guidance_scale": 1.0} if prompt == "red apple" else {}
    asked = replace(guided, prompt="blue bird", count=2, batch_size=2, **few)
    pipeline = Pipeline(bundle, choose("openvino", "fp32", tmp_path))
    drawn = [
        [event.pixels for event in pipeline.generate(each) if isinstance(event, Picture)]
        for each in (guided, asked, guided)
    ]
    alone, _ = draw(bundle, choose("onnxruntime", "fp32", None), replace(asked, batch_size=1))
    for one, pixels in zip(alone, drawn[1], strict=True):
        assert np.abs(one.pixels.astype(int) - pixels.astype(int)).max() <= 1
    assert np.array_equal(drawn[0][0], drawn[2][0])


# -- one network for all -----------------------------------------------------------------------


def test_a_batch_is_one_run_a_step(bundle):
    counting = CountingBackend(FakeBackend())
    pictures, steps = draw(bundle, counting, request(bundle, count=4, batch_size=4))
    assert unet_rows(counting) == [8]
    assert counting.runs["unet"] == 3
    assert counting.runs["vae_decoder"] == 4
    assert [(step.picture, step.index) for step in steps] == [
        (picture, index) for index in range(3) for picture in range(4)
    ]
    assert [each.request.seed for each in pictures] == [7, 8, 9, 10]


def test_more_than_there_are_is_all_there_are(bundle):
    counting = CountingBackend(FakeBackend())
    (picture,), _ = draw(bundle, counting, request(bundle, batch_size=8))
    assert unet_rows(counting) == [2]
    assert picture.request.batch_size == 1


@pytest.mark.parametrize("given", [{"guidance_end": 0.5}, {"guidance_start": 0.5}])
def test_what_cannot_be_drawn_at_once_is_drawn_alone(bundle, given):
    asked = request(bundle, count=2, steps=4, **given)
    alone, _ = draw(bundle, FakeBackend(), asked)
    together, _ = draw(bundle, FakeBackend(), replace(asked, batch_size=2))
    assert [each.request.batch_size for each in together] == [1, 1]
    assert (
        together[0].reason == f"{alone[0].reason}; one picture at a time: guidance ends within it"
    )
    for one, other in zip(alone, together, strict=True):
        assert np.array_equal(one.pixels, other.pixels)


def test_steered_pictures_are_drawn_alone(bundle):
    from engine.batches import why_alone

    steered = replace(request(bundle), controls=(Control(model="edges"),))
    assert why_alone(steered) == "ControlNets steer it"
    assert why_alone(replace(request(bundle), refiner="finish")) == "a refiner takes part"
    assert why_alone(replace(request(bundle), reuse_every=2)) == "deep features are reused"
    assert not why_alone(request(bundle))


@pytest.mark.parametrize("size", [0, -1, 65, 2.0, True])
def test_a_size_that_is_none_is_refused(bundle, size):
    with pytest.raises(RequestError, match="batch_size"):
        request(bundle, batch_size=size)


# -- several requests --------------------------------------------------------------------------


def outcomes_of(bundle, backend, requests, **more):
    return list(draw_all(Pipeline(bundle, backend), requests, **more))


def pictures_of(outcomes):
    return [each.event for each in outcomes if isinstance(each.event, Picture)]


def test_requests_that_differ_in_words_and_seeds_are_drawn_together(bundle):
    asked = [
        request(bundle, prompt="red apple", seed=7, batch_size=4),
        request(bundle, prompt="a [snail:rocket:0.5]", seed=1, count=2, batch_size=4),
        request(bundle, prompt="blue bird", negative_prompt="leaf", seed=9, batch_size=4),
        request(bundle, prompt="octopus", seed=3, batch_size=4),
    ]
    counting = CountingBackend(FakeBackend())
    together = outcomes_of(bundle, counting, asked)
    assert unet_rows(counting) == [8, 2]
    assert counting.runs["unet"] == 3 + 3
    alone = outcomes_of(bundle, FakeBackend(), [replace(each, batch_size=1) for each in asked])
    for one, other in zip(pictures_of(alone), pictures_of(together), strict=True):
        assert np.array_equal(one.pixels, other.pixels)
        assert replace(other.request, batch_size=1) == one.request
    places = [each.place for each in together if isinstance(each.event, Picture)]
    assert [(each.number, each.request, each.picture) for each in places] == [
        (0, 0, 0),
        (1, 1, 0),
        (2, 1, 1),
        (3, 2, 0),
        (4, 3, 0),
    ]
    steps = [each.place.number for each in together if isinstance(each.event, Step)]
    assert steps == [0, 1, 2, 3] * 3 + [4] * 3


@pytest.mark.parametrize(
    "other",
    [
        {"steps": 4},
        {"width": 128},
        {"guidance_scale": 2.0},
        {"prompt": "word " * 100},  # more chunks
        {"prompt": "a red apple AND a blue car"},  # more texts
        {"batch_size": 1},
    ],
    ids=lambda other: next(iter(other)) + str(next(iter(other.values())))[:12],
)
def test_requests_that_differ_in_more_are_drawn_apart(bundle, other):
    fixed = {"guidance_scale": 3.0, "batch_size": 2}
    asked = [request(bundle, **fixed), request(bundle, **(fixed | other))]
    pictures = pictures_of(outcomes_of(bundle, FakeBackend(), asked))
    assert [each.request.batch_size for each in pictures] == [1, 1]
    alike = pictures_of(outcomes_of(bundle, FakeBackend(), [asked[0], asked[0]]))
    assert [each.request.batch_size for each in alike] == [2, 2]


def test_one_that_is_refused_costs_the_others_nothing(bundle, monkeypatch):
    """It is found while they are gathered."""
    monkeypatch.setattr(conditioning, "MAX_BYTES", 2 * 77 * 128 * 4)  # two texts of a chunk
    words = ("apple", "snail " * 100, "bird")
    asked = [request(bundle, prompt=prompt, batch_size=3) for prompt in words]
    outcomes = outcomes_of(bundle, FakeBackend(), asked, goes_on=lambda _: True)
    ends = [each for each in outcomes if not isinstance(each.event, Step)]
    assert [type(each.event) for each in ends] == [Picture, RequestError, Picture]
    assert [each.place.request for each in ends] == [0, 1, 2]


class Spoiling(CountingBackend):
    """Gives NaN for the second picture that is decoded."""

    def load(self, model, shapes, *, identity=""):
        session = super().load(model, shapes, identity=identity)
        return SpoilingSession(session, self.runs) if "latent_sample" in shapes else session


class SpoilingSession:
    def __init__(self, session, runs):
        self.session, self.runs = session, runs

    def run(self, inputs):
        decoded = self.session.run(inputs)
        return decoded * np.nan if self.runs["vae_decoder"] == 2 else decoded


@pytest.mark.parametrize("goes_on", [False, True])
def test_one_that_overflows_for_good_is_the_only_one_that_fails(bundle, goes_on):
    asked = [request(bundle, prompt=words, batch_size=3) for words in ("apple", "snail", "bird")]
    outcomes = outcomes_of(bundle, Spoiling(FakeBackend()), asked, goes_on=lambda _: goes_on)
    ends = [each for each in outcomes if not isinstance(each.event, Step)]
    wanted = [Picture, NotFiniteError, Picture] if goes_on else [Picture, NotFiniteError]
    assert [type(each.event) for each in ends] == wanted
    assert [each.place.request for each in ends] == list(range(len(wanted)))


def test_cancelling_ends_all_of_them(bundle):
    asked = [request(bundle, seed=seed, batch_size=2) for seed in range(4)]
    answers = iter([False] * 8 + [True] * 100)
    outcomes = outcomes_of(bundle, FakeBackend(), asked, cancelled=lambda: next(answers))
    assert [each.request.seed for each in pictures_of(outcomes)] == [0, 1]


# -- what is told meanwhile --------------------------------------------------------------------


def test_each_step_shows_its_own_picture(bundle):
    asked = request(bundle, count=3, batch_size=3)
    events = Pipeline(bundle, FakeBackend()).generate(asked)
    looks = [event.preview() for event in events if isinstance(event, Step)]
    alone = Pipeline(bundle, FakeBackend()).generate(replace(asked, batch_size=1))
    wanted = [event.preview() for event in alone if isinstance(event, Step)]
    order = [picture * 3 + index for index in range(3) for picture in range(3)]
    for look, place in zip(looks, order, strict=True):
        assert np.array_equal(look, wanted[place])


def test_a_picture_takes_its_share_of_the_seconds(bundle):
    ticks = iter(range(1000))
    pipeline = Pipeline(bundle, FakeBackend(), clock=lambda: float(next(ticks)))
    events = list(pipeline.generate(request(bundle, count=2, steps=5, batch_size=2)))
    for event in events:
        if isinstance(event, Step):
            assert event.seconds == 0.5
        else:  # eleven readings of the clock while both were drawn, one while each was decoded
            assert (event.seconds.denoise, event.seconds.decode) == (5.5, 1.0)


def test_outcomes_name_the_picture_that_a_step_is_of(bundle):
    asked = request(bundle, count=2, batch_size=2, steps=2)
    outcomes = list(draw_all(Pipeline(bundle, FakeBackend()), [asked, asked]))
    assert [(each.place.number, each.place.request, each.place.picture) for each in outcomes] == [
        (2 * index + picture, index, picture)
        for index in range(2)
        for picture in (0, 1, 0, 1, 0, 1)
    ]


# -- what goes wrong ---------------------------------------------------------------------------


def test_cancelling_keeps_batches_that_are_finished(bundle):
    answers = iter([False] * 8 + [True] * 100)
    asked = request(bundle, count=4, batch_size=2)
    pictures, _ = draw(bundle, FakeBackend(), asked, cancelled=lambda: next(answers))
    assert [each.request.seed for each in pictures] == [7, 8]


@pytest.mark.parametrize("at_run", [False, True])
@pytest.mark.parametrize(
    ("room", "sizes"), [(8, [3, 3, 3, 2, 2]), (4, [2, 2, 2, 2, 1]), (2, [1, 1, 1, 1, 1])]
)
def test_a_batch_that_does_not_fit_is_halved_and_says_so(bundle, room, sizes, at_run):
    asked = request(bundle, count=5, batch_size=5)
    counting = CountingBackend(FakeBackend(rows_room=room, fails_at_run=at_run))
    alone, _ = draw(bundle, FakeBackend(), replace(asked, batch_size=1))
    pictures, _ = draw(bundle, counting, asked)
    assert unet_rows(counting).count(10) == 1  # what did not fit is not tried again
    assert [each.request.batch_size for each in pictures] == sizes
    assert all(BATCH_REPAIR in each.repairs for each in pictures)
    for one, other in zip(alone, pictures, strict=True):
        assert np.array_equal(one.pixels, other.pixels)


def test_what_is_prepared_is_what_is_drawn_with(bundle):
    counting = CountingBackend(FakeBackend())
    pipeline, asked = Pipeline(bundle, counting), request(bundle, count=4, batch_size=3)
    pipeline.prepare(asked)
    assert unet_rows(counting) == [6]
    events = pipeline.generate(asked)
    assert next(event for event in events if isinstance(event, Picture)).request.batch_size == 3
    assert unet_rows(counting) == [6]


def test_preparing_for_more_than_fit_leaves_it_to_the_drawing(bundle):
    pipeline = Pipeline(bundle, FakeBackend(rows_room=2))
    asked = request(bundle, count=2, batch_size=2)
    pipeline.prepare(asked)
    pictures = [event for event in pipeline.generate(asked) if isinstance(event, Picture)]
    assert [each.repairs for each in pictures] == [(BATCH_REPAIR,)] * 2
    with pytest.raises(OutOfMemoryError):
        Pipeline(bundle, FakeBackend(rows_room=1)).prepare(replace(asked, batch_size=1))


def test_one_that_does_not_fit_alone_is_an_error(bundle):
    with pytest.raises(OutOfMemoryError, match="64x64 pixels"):
        draw(bundle, FakeBackend(rows_room=1), request(bundle, count=2, batch_size=2))


def test_pictures_that_overflow_are_redrawn_one_by_one(bundle):
    asked = request(bundle, count=3, batch_size=3)
    counting = CountingBackend(FakeBackend(precision="bf16", nan_at_step=1))
    pictures, _ = draw(bundle, counting, asked)
    right, _ = draw(bundle, FakeBackend(), replace(asked, batch_size=1))
    assert [each.repairs for each in pictures] == [(DENOISE_REPAIR,)] * 3
    assert unet_rows(counting) == [6]
    assert unet_rows(counting.repairs[0]) == [2]
    for one, other in zip(right, pictures, strict=True):
        assert np.array_equal(one.pixels, other.pixels)
