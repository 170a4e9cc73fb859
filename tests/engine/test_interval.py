"""The guidance interval: which steps are guided, by what, and what the pipeline makes of it."""

from pathlib import Path

import numpy as np
import pytest

import safelight
from engine import Bundle, FakeBackend, Picture, Pipeline
from engine.conditioning import Conditioning
from engine.denoiser import Denoiser
from engine.interval import GuidanceInterval, each_text
from engine.loop import integrate
from engine.moment import Moment
from engine.noise import noise_source
from engine.samplers import tabulate


class Answer:
    """A network that answers with a number, and counts."""

    def __init__(self, value):
        self.value, self.rows = value, []

    def __call__(self, x, moment):
        self.rows.append(moment.row)
        return np.full_like(x, self.value)


def asked(start, end, steps=10, evaluations=1, weights=(1.0,)):
    """Run an interval through a trajectory; give its networks and answers."""
    networks = [Answer(float(place)) for place in range(len(weights) + 1)]
    interval = GuidanceInterval(networks, start, end, weights)
    x = np.zeros((1, 4, 2, 3), dtype=np.float32)
    answers = [
        interval(x, Moment(row, row // evaluations, steps, 1.0, 1.0)).copy()
        for row in range(steps * evaluations)
    ]
    return networks, answers


@pytest.mark.parametrize(
    ("start", "end", "guided"),
    [(0.0, 1.0, range(10)), (0.2, 0.7, range(2, 7)), (0.25, 1.0, range(3, 10)), (0.0, 0.05, [0])],
)
def test_a_step_is_guided_when_what_is_done_before_it_lies_in_the_interval(start, end, guided):
    (unconditional, conditional), answers = asked(start, end)
    assert unconditional.rows == list(guided)
    assert conditional.rows == list(range(10))
    for row, answer in enumerate(answers):
        assert answer[:, 0, 0, 0].tolist() == ([0.0, 1.0] if row in guided else [1.0])


def test_both_evaluations_of_a_step_are_guided_or_none_is():
    (unconditional, _), _ = asked(0.5, 0.75, steps=4, evaluations=2)
    assert unconditional.rows == [4, 5]


def test_several_weighted_prompts_outside_are_what_a_scale_of_one_makes_of_them():
    _, answers = asked(0.5, 1.0, steps=2, weights=(0.5, -0.25))
    outside, inside = answers
    # Liu et al.: the unconditional 0, and 1 and 2 pulling with their weights
    assert outside[:, 0, 0, 0].tolist() == [0.5 * 1.0 - 0.25 * 2.0]
    assert inside[:, 0, 0, 0].tolist() == [0.0, 1.0, 2.0]


def test_texts_are_told_apart_with_their_pooled_forms():
    embeds = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    pooled = np.arange(8, dtype=np.float32).reshape(2, 4)
    for place, each in enumerate(each_text(Conditioning(embeds, pooled))):
        assert np.array_equal(each.embeds, embeds[place : place + 1])
        assert np.array_equal(each.pooled, pooled[place : place + 1])
    assert [each.pooled for each in each_text(Conditioning(embeds, None))] == [None, None]


# -- in the pipeline ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bundle():
    return Bundle.open(Path(safelight.__file__).parent / "models" / "pocket", hash_cache=None)


class Counted:
    """The fake, which counts the texts that its unets are shown, and keeps what is loaded."""

    def __init__(self, fake):
        self.fake, self.texts, self.loaded = fake, [], []
        self.name, self.device, self.precision = fake.name, fake.device, fake.precision
        self.libraries = fake.libraries

    def load(self, model, shapes, *, identity=""):
        session = self.fake.load(model, shapes, identity=identity)
        if "timestep" in shapes:
            self.loaded.append(shapes["sample"][0])
            return CountedUnet(session, self.texts)
        return session

    def exact(self):
        return Counted(self.fake.exact())


class CountedUnet:
    def __init__(self, session, texts):
        self.session, self.texts = session, texts

    def run(self, inputs):
        self.texts.append(len(inputs["sample"]))
        return self.session.run(inputs)


def draw(bundle, backend=None, **given):
    request = bundle.request(**({"prompt": "red apple", "seed": 7, "steps": 10} | given))
    *_, picture = Pipeline(bundle, backend or FakeBackend()).generate(request)
    assert isinstance(picture, Picture)
    return picture


def test_one_session_of_one_text_serves_guided_and_unguided_steps(bundle):
    backend = Counted(FakeBackend())
    picture = draw(bundle, backend, guidance_start=0.2, guidance_end=0.6)
    assert backend.loaded == [1]
    assert backend.texts == [1] * (10 + 4)
    assert (picture.request.guidance_start, picture.request.guidance_end) == (0.2, 0.6)


def test_the_whole_trajectory_is_guided_as_ever_by_one_run_of_two_texts(bundle):
    backend = Counted(FakeBackend())
    draw(bundle, backend, guidance_start=0.0, guidance_end=1.0)
    assert (backend.loaded, backend.texts) == ([2], [2] * 10)


def test_an_interval_that_leaves_nothing_out_changes_nothing(bundle):
    # 0.95 of ten steps leaves none out, but the texts go one by one; the fake adds in no order.
    almost = draw(bundle, guidance_end=0.95)
    assert np.array_equal(almost.pixels, draw(bundle).pixels)


@pytest.mark.parametrize(
    "prompt", ["[red:blue:0.5] apple", "[red|blue] apple", "red apple AND blue cat :0.5"]
)
def test_texts_that_change_or_join_do_so_one_by_one_as_well(bundle, prompt):
    almost = draw(bundle, prompt=prompt, guidance_end=0.95)
    assert np.array_equal(almost.pixels, draw(bundle, prompt=prompt).pixels)
    assert not np.array_equal(almost.pixels, draw(bundle).pixels)


def test_outside_the_interval_a_changed_prompt_is_the_changed_one(bundle):
    given = {"guidance_start": 0.0, "guidance_end": 0.1}
    late = draw(bundle, prompt="[red:blue:0.5] apple", **given)
    for prompt in ("red apple", "blue apple"):
        assert not np.array_equal(late.pixels, draw(bundle, prompt=prompt, **given).pixels)


def test_without_guidance_there_is_nothing_to_limit(bundle):
    backend = Counted(FakeBackend())
    picture = draw(bundle, backend, guidance_scale=1.0, guidance_end=0.5)
    assert (backend.loaded, backend.texts) == ([1], [1] * 10)
    assert np.array_equal(picture.pixels, draw(bundle, guidance_scale=1.0).pixels)


@pytest.mark.parametrize("interval", [(0.0, 0.5), (0.3, 1.0)])
def test_latents_are_those_of_a_loop_that_changes_the_scale_by_hand(bundle, interval):
    steps, scale = 10, 3.5
    table = tabulate("dpmpp_2m", bundle.training, "linspace", steps, 0.0)
    x0 = np.zeros((1, 4, 4, 4), dtype=np.float32)

    def predict(x, moment):
        both = np.concatenate([0.3 * x, np.tanh(x) + moment.sigma / 50])
        return both.astype(np.float32)

    def by_hand(x, moment):
        low, high = interval[0] * steps, interval[1] * steps
        now = scale if low <= moment.step < high else 1.0
        return Denoiser(predict, "v_prediction", now)(x, moment)

    halves = [lambda x, m, place=place: predict(x, m)[place : place + 1] for place in (0, 1)]
    ours = Denoiser(GuidanceInterval(halves, *interval), "v_prediction", scale)
    found, wanted = (
        [x.copy() for _, x, _ in integrate(table, noise_source("torch", 3), x0, each)][-1]
        for each in (ours, by_hand)
    )
    # u + 1 * (c - u) is c but for float32's rounding of the difference.
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    plain = Denoiser(predict, "v_prediction", scale)
    whole = [x.copy() for _, x, _ in integrate(table, noise_source("torch", 3), x0, plain)][-1]
    assert np.abs(whole - found).max() > 0.01


def test_a_repair_begins_with_the_same_interval(bundle):
    backend = FakeBackend(precision="bf16", nan_at_step=3)
    repaired = draw(bundle, backend, guidance_end=0.5)
    assert repaired.repairs
    assert np.array_equal(repaired.pixels, draw(bundle, guidance_end=0.5).pixels)
