"""The refiner: where it takes over, what it is told, and what does not go with it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import safelight
from engine import Bundle, BundleError, FakeBackend, Picture, Pipeline, RequestError
from engine.refiner import check_refiner, switch_step
from engine.samplers import tabulate
from engine.schedule import SPACINGS
from engine.training import Training
from tests.engine.beside_bundles import CountingBackend, refiner, xl

POCKET = Path(safelight.__file__).with_name("models") / "pocket"
BASE_UNET, REFINER_UNET = "pocket/unet/model.onnx", "finish/unet/model.onnx"


@pytest.fixture(scope="module")
def base():
    return xl(Bundle.open(POCKET, hash_cache=None))


@pytest.fixture
def finish(base, tmp_path):
    return refiner(base, tmp_path / "finish")


def table(sampler="euler", spacing="leading", steps=10):
    return tabulate(sampler, Training(), spacing, steps, 0.0)


def draw(base, beside, *, backend=None, **given):
    made = base.request(
        **{"prompt": "red apple", "seed": 7, "steps": 10, "sampler": "euler"} | given
    )
    pipeline = Pipeline(base, backend or FakeBackend(), beside=beside)
    return [event for event in pipeline.generate(made) if isinstance(event, Picture)]


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("fraction", [0.0, 0.5, 0.8, 0.83, 1.0])
def test_it_takes_over_below_its_timestep_in_every_spacing(spacing, fraction):
    found = switch_step(table(spacing=spacing), 1000, fraction)
    timesteps = table(spacing=spacing).timesteps
    bound = round(1000 - fraction * 1000)  # diffusers' discrete_timestep_cutoff
    assert (timesteps[:found] >= bound).all()
    assert (timesteps[found:] < bound).all()


def test_a_step_of_two_evaluations_is_not_divided():
    rows = table("heun")
    found = switch_step(rows, 1000, 0.8)
    inside = rows.steps < found
    first = np.flatnonzero(np.diff(rows.steps, prepend=-1))
    assert (rows.timesteps[first][:found] >= 200).all()
    assert rows.timesteps[inside].min() < 200  # the second evaluation looks ahead
    assert found == switch_step(table("euler"), 1000, 0.8)


@pytest.mark.parametrize(("switch", "runs"), [(0.0, (0, 10)), (0.8, (8, 2)), (1.0, (10, 0))])
def test_the_network_changes_inside_one_trajectory(base, finish, switch, runs):
    backend = CountingBackend(FakeBackend())
    given = {"refiner": "finish", "refiner_switch": switch, "schedule": "leading"}
    (made,) = draw(base, {"finish": finish}, backend=backend, **given)
    assert (backend.runs[BASE_UNET], backend.runs[REFINER_UNET]) == runs
    assert made.beside == (("finish", "hash of finish"),)
    # the same weights under two names: who is asked must not matter to sampler and guidance
    (alone,) = draw(base, {}, schedule="leading")
    empty = {
        "negative_prompt": "leaf",
        "schedule": "leading",
    }  # XL's empty one is zeros, the refiner's not
    (one,), (two,) = draw(base, {}, **empty), draw(base, {"finish": finish}, **(given | empty))
    assert np.array_equal(one.pixels, two.pixels)
    assert np.array_equal(alone.pixels, made.pixels) == (switch == 1.0)


def test_both_are_loaded_before_the_first_step_and_kept(base, finish):
    backend = CountingBackend(FakeBackend())
    draw(base, {"finish": finish}, backend=backend, refiner="finish", count=2)
    places = [place for place, _ in backend.loads]
    assert places == [
        "pocket/text_encoder/model.onnx",
        BASE_UNET,
        "pocket/vae_decoder/model.onnx",
        "finish/text_encoder/model.onnx",
        REFINER_UNET,
    ]


def test_its_memory_is_given_back_by_a_request_without(base, finish):
    backend = CountingBackend(FakeBackend())
    pipeline = Pipeline(base, backend, beside={"finish": finish})
    refined = base.request(prompt="x", seed=1, steps=4, refiner="finish")
    for made in (refined, replace(refined, refiner=""), refined):
        list(pipeline.generate(made))
    loads = [place for place, _ in backend.loads]
    assert (loads.count(BASE_UNET), loads.count(REFINER_UNET)) == (1, 2)


def test_an_overflow_is_repaired_with_the_refiner(base, finish):
    given = {"refiner": "finish", "schedule": "leading"}
    fake = FakeBackend(precision="bf16", nan_at_step=1)
    (made,) = draw(base, {"finish": finish}, backend=fake, **given)
    assert made.repairs == ("denoise in fp32",)
    assert np.array_equal(made.pixels, draw(base, {"finish": finish}, **given)[0].pixels)


def test_only_what_fits_is_taken(base, finish):
    plain = Bundle.open(POCKET, hash_cache=None)
    check_refiner(base, finish)
    other = replace(finish, training=replace(finish.training, beta_end=0.02))
    for one, two, match in (
        (base, plain, "'pocket' is of family sd1: it is no refiner"),
        (plain, finish, "of family sd1; a refiner goes with one of family sdxl"),
        (base, other, "trained at other noise levels"),
    ):
        with pytest.raises(BundleError, match=match):
            check_refiner(one, two)


def test_the_request_says_when_and_int8_has_none(base, finish):
    with pytest.raises(RequestError, match=r"refiner_switch is 1\.5; from 0\.0 to 1\.0"):
        draw(base, {}, refiner_switch=1.5)
    with pytest.raises(BundleError, match="of no refiner"):
        draw(base, {"finish": finish}, backend=FakeBackend(precision="int8"), refiner="finish")
