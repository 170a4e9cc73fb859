"""Guidance interval and reused features beside ControlNets and a refiner."""

from pathlib import Path

import numpy as np
import pytest

import safelight
from engine import Bundle, FakeBackend, Picture, Pipeline, RequestError
from engine.control import Control
from engine.inputs import Inputs
from engine.presets import preset
from tests.engine.beside_bundles import CountingBackend, controlled, controlnet, refiner, xl
from tests.engine.test_reuse import with_pair

POCKET = Path(safelight.__file__).with_name("models") / "pocket"
CONTROLS = (Control(model="edges"),)
STEPS = 10


@pytest.fixture(scope="module")
def plain():
    return Bundle.open(POCKET, hash_cache=None)


@pytest.fixture(scope="module")
def base(plain):
    return controlled(with_pair(plain))


def draw(bundle, beside, backend=None, inputs=None, **given):
    request = bundle.request(**({"prompt": "red apple", "seed": 7, "steps": STEPS} | given))
    pipeline = Pipeline(bundle, backend or FakeBackend(), beside=beside)
    *_, picture = pipeline.generate(request, inputs=inputs or Inputs())
    assert isinstance(picture, Picture)
    return picture


def steered(plain, base, backend=None, **given):
    picture = np.random.default_rng(1).integers(0, 256, (128, 128, 3), np.uint8)
    inputs = Inputs(controls=(picture,))
    beside = {"edges": controlnet(plain, "edges")}
    return draw(base, beside, backend, inputs, controls=CONTROLS, **given)


def test_a_controlnet_steers_each_text_alone_as_it_steers_both(plain, base):
    # No step lies behind 0.95 of ten, so all are guided, but by texts that are asked in turn.
    almost = steered(plain, base, guidance_end=0.95)
    assert np.array_equal(almost.pixels, steered(plain, base).pixels)
    assert not np.array_equal(almost.pixels, draw(base, {}, guidance_end=0.95).pixels)


def test_outside_the_interval_it_is_run_for_the_prompt_alone(plain, base):
    backend = CountingBackend(FakeBackend())
    steered(plain, base, backend, guidance_end=0.5)
    assert set(backend.runs.values()) >= {STEPS + STEPS // 2}
    assert backend.runs["edges/controlnet/model.onnx"] == STEPS + STEPS // 2
    assert backend.runs["pocket/unet/model_control.onnx"] == STEPS + STEPS // 2
    loads = [place for place, _ in backend.loads]
    assert len(loads) == len(set(loads))  # one shape of each is enough


def test_reused_features_do_not_go_with_it_and_no_preset_asks_for_that(plain, base):
    with pytest.raises(RequestError, match="takes no ControlNet's residuals"):
        steered(plain, base, reuse_every=2)
    fields = preset("draft", base.manifest, {"controls": CONTROLS})
    assert "reuse_every" in preset("draft", base.manifest)
    assert steered(plain, base, **(fields | {"steps": 4})).request.reuse_every == 1


def test_a_refiner_without_the_pair_is_whole_each_time(plain, tmp_path):
    base = xl(with_pair(plain))
    finish = refiner(xl(plain), tmp_path / "finish")
    backend = CountingBackend(FakeBackend())
    given = {"refiner": "finish", "refiner_switch": 0.5, "schedule": "leading", "sampler": "euler"}
    draw(base, {"finish": finish}, backend, reuse_every=2, guidance_end=0.8, **given)
    by_graph = {place.rpartition("/")[2]: n for place, n in backend.runs.items() if "unet" in place}
    # Base: 5 steps of two texts, whole in steps 0, 2 and 4. Refiner: 3 guided steps and 2 without.
    assert by_graph == {"model_deep.onnx": 6, "model_shallow.onnx": 4, "model.onnx": 3 * 2 + 2}
