"""The finished picture goes through an upscaler, and any picture to a size that is needed."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import safelight
from engine import Bundle, BundleError, FakeBackend, Picture, Pipeline, RequestError, Step
from engine.backends.onnxruntime import OnnxRuntimeBackend
from engine.enlarging import Cancelled, enlarge, enlarge_to
from engine.upscale import Upscaler
from safelight.upscalers import take_in_upscaler
from tests.engine.companion_bundle import with_companions
from tests.engine.upscaler_graph import write_upscaler

POCKET = Path(safelight.__file__).with_name("models") / "pocket"


class Both:
    """The fake for what draws, ONNX Runtime for the upscaler."""

    def __init__(self, fake):
        self.fake, self.real = fake, OnnxRuntimeBackend()
        self.name, self.device, self.precision = fake.name, fake.device, fake.precision
        self.libraries = fake.libraries

    def load(self, model, shapes, *, identity=""):
        one = self.real if model.parent.name == "upscaler" else self.fake
        return one.load(model, shapes, identity=identity)

    def exact(self):
        return self


@pytest.fixture(scope="module")
def base():
    return Bundle.open(POCKET, hash_cache=None)


@pytest.fixture(scope="module")
def double(tmp_path_factory):
    folder = tmp_path_factory.mktemp("up")
    file = write_upscaler(folder / "double.onnx")
    return take_in_upscaler(file, folder / "shelf/double", OnnxRuntimeBackend(), lambda *_: None)


def draw(base, beside, *, backend=None, cancelled=lambda: False, **given):
    made = base.request(**{"prompt": "red apple", "seed": 7, "steps": 3} | given)
    pipeline = Pipeline(base, backend or Both(FakeBackend()), beside=beside)
    return list(pipeline.generate(made, cancelled))


def pictures(events):
    return [event for event in events if isinstance(event, Picture)]


def test_the_finished_picture_is_enlarged_and_says_by_what(base, double):
    plain, made = (
        pictures(draw(base, {"double": double}, width=64, upscaler=name))[0]
        for name in ("", "double")
    )
    assert (plain.beside, made.beside) == ((), (("double", double.hash),))
    assert made.request == replace(plain.request, upscaler="double")
    assert made.pixels.shape == (256, 128, 3)
    assert np.array_equal(made.pixels, Upscaler(double, OnnxRuntimeBackend()).upscale(plain.pixels))


@pytest.mark.parametrize(("cosine", "flagged"), [(0.4, False), (0.6, True)])
def test_the_safety_checker_sees_the_picture_before(base, double, tmp_path, cosine, flagged):
    bundle = with_companions(base, tmp_path / "b", threshold=0.5)
    backend = Both(FakeBackend(concept_cosine=cosine))
    (made,) = pictures(draw(bundle, {"double": double}, backend=backend, upscaler="double"))
    assert made.flagged == flagged
    assert made.pixels.shape == (256, 256, 3)
    assert made.pixels.any() != flagged


def test_it_ends_between_tiles_and_keeps_what_was_finished(base, double):
    asked, steps = [], 6  # of two pictures

    def cancelled():
        asked.append(True)
        return len(asked) > stop

    # 512 pixels are 3 x 3 tiles: many questions beside those between the steps
    wanted = {"width": 512, "height": 512, "upscaler": "double", "count": 2}
    stop = 10**6
    whole = len(asked) if draw(base, {"double": double}, cancelled=cancelled, **wanted) else 0
    assert whole == 2 * (1 + 3 + 1 + 9)
    asked.clear()
    stop = whole - 3
    events = draw(base, {"double": double}, cancelled=cancelled, **wanted)
    assert len(pictures(events)) == 1
    assert sum(isinstance(event, Step) for event in events) == steps
    assert len(asked) == stop + 1  # and nothing was done after the answer


def test_what_is_no_upscaler_or_makes_too_much_is_refused_at_once(base, double):
    with pytest.raises(BundleError, match="an upscaler is needed"):
        draw(base, {"pocket": base}, upscaler="pocket")
    with pytest.raises(BundleError, match="'gone', which was not opened"):
        draw(base, {}, upscaler="gone")
    made = base.request(prompt="x", seed=1, upscaler="double")
    object.__setattr__(made, "width", 8200)  # beyond what a request takes, so beyond the bound
    pipeline = Pipeline(base, FakeBackend(), beside={"double": double})
    with pytest.raises(RequestError, match="8200 pixels made 2 times as large are 16400; at most"):
        pipeline.generate(made)


def picture(height, width):
    return np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("size", [(32, 48), (30, 40), (64, 90), (16, 24), (8, 100)])
def test_any_size_is_reached_and_only_reduced_by_a_filter(double, size):
    pixels = picture(16, 24)
    upscaler = Upscaler(double, OnnxRuntimeBackend())
    found = enlarge_to(pixels, upscaler, size)
    assert found.shape == (*size, 3)
    once = upscaler.upscale(pixels)
    twice = upscaler.upscale(once)
    large = (once, twice, upscaler.upscale(twice))
    needed = next(each for each in large if (np.array(each.shape[:2]) >= size).all())
    wanted = Image.fromarray(needed).resize(size[::-1], Image.Resampling.LANCZOS)
    assert np.array_equal(found, np.asarray(wanted))


def test_both_end_when_asked(double):
    upscaler = Upscaler(double, OnnxRuntimeBackend())
    with pytest.raises(Cancelled):
        enlarge(picture(16, 16), upscaler, lambda: True)
    with pytest.raises(Cancelled):
        enlarge_to(picture(16, 16), upscaler, (64, 64), lambda: True)
