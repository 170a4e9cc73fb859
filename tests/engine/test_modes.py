"""Modes on the shipped fake: what is refused, what stays, how passes and variations go."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import safelight
from engine import Bundle, BundleError, FakeBackend, Picture, Pipeline, RequestError, Step
from engine.inputs import Inputs
from engine.manifest import TensorSpec
from engine.modes import passes_of
from engine.noise import noise_source, turned
from engine.painting import latent_mask, paste
from engine.repairs import ENCODE_REPAIR, HIRES_REPAIR, TILES_REPAIR

SIDE = 64
DRAW = np.random.default_rng(5)
INIT = DRAW.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
MASK = np.zeros((SIDE, SIDE), np.uint8)
MASK[16:40, 8:48] = 255


@pytest.fixture(scope="module")
def bundle():
    return Bundle.open(Path(safelight.__file__).parent / "models" / "pocket", hash_cache=None)


@pytest.fixture(scope="module")
def painter(bundle):
    """Give pocket as an inpainting model would say it is: nine channels go in."""
    unet = bundle.manifest.components["unet"]
    spec = TensorSpec(dtype="float32", shape=("batch", 9, "height", "width"))
    unet = replace(unet, inputs=dict(unet.inputs) | {"sample": spec})
    components = dict(bundle.manifest.components) | {"unet": unet}
    return replace(bundle, manifest=replace(bundle.manifest, components=components))


def events(bundle, inputs, **given):
    wanted = {"prompt": "red apple", "seed": 9, "steps": 6, "width": SIDE, "height": SIDE}
    return list(
        Pipeline(bundle, FakeBackend()).generate(bundle.request(**(wanted | given)), inputs=inputs)
    )


def drawn(bundle, inputs=Inputs(), **given):  # noqa: B008 - frozen
    return [event.pixels for event in events(bundle, inputs, **given) if isinstance(event, Picture)]


@pytest.mark.parametrize(
    ("inputs", "given", "message"),
    [
        (Inputs(mask=MASK), {}, "no picture under it"),
        (Inputs(init=INIT[:-8]), {}, "64x56 pixels and the request says 64x64"),
        (Inputs(init=INIT, mask=MASK[:, :-8]), {}, "the mask has 56x64"),
        (Inputs(init=INIT, mask=np.zeros_like(MASK)), {}, "nothing to paint"),
        (Inputs(init=INIT), {"strength": 0.1}, "of 6 steps leaves none"),
        (Inputs(init=INIT), {"hires_scale": 2.0}, "with an init picture only 1"),
        (Inputs(), {"hires_scale": 2.0, "hires_strength": 0.05}, "hires_strength is 0.05"),
    ],
    ids=["mask-alone", "size", "mask-size", "empty-mask", "weak", "hires", "weak-hires"],
)
def test_what_does_not_fit_is_refused_before_anything_is_loaded(bundle, inputs, given, message):
    with pytest.raises(RequestError, match=message):
        events(bundle, inputs, **given)


def test_the_strength_that_a_refusal_names_leaves_a_step(bundle):
    asked = {"prompt": "red apple", "seed": 9, "width": SIDE, "height": SIDE, "sampler": "euler"}
    inputs = Inputs(init=INIT)
    for steps in range(1, 1001):
        weak = bundle.request(**asked, steps=steps, strength=1e-6)
        with pytest.raises(RequestError) as refused:
            passes_of(weak, inputs, bundle.training)
        named = re.match(r"from ([0-9.]+) on it leaves one", refused.value.hint)
        strength = float(named[1])
        (only,) = passes_of(replace(weak, strength=strength), inputs, bundle.training)
        assert len(only.table.sigmas) >= 1
        assert strength <= 1 / steps + 0.001  # and not much more than it takes


@pytest.mark.parametrize("strength", [0.34, 0.5, 1.0])
def test_img2img_takes_the_steps_that_its_strength_leaves(bundle, strength):
    steps = [e for e in events(bundle, Inputs(init=INIT), strength=strength, sampler="euler")
             if isinstance(e, Step)]  # fmt: skip
    assert [step.index for step in steps] == list(range(int(6 * strength)))
    assert {step.count for step in steps} == {len(steps)}


@pytest.mark.parametrize("which", ["bundle", "painter"])
@pytest.mark.parametrize("sampler", ["euler_a", "heun", "dpmpp_2m", "ddim"])
@pytest.mark.parametrize("blur", [0, 6])
def test_around_the_mask_every_byte_is_the_init_pictures(request, which, sampler, blur):
    inputs = Inputs(init=INIT, mask=MASK)
    given = {"sampler": sampler, "mask_blur": blur, "strength": 0.8}
    (got,) = drawn(request.getfixturevalue(which), inputs, **given)
    assert np.array_equal(got[MASK == 0], INIT[MASK == 0])
    assert (got[MASK > 0] != INIT[MASK > 0]).mean() > 0.5


def test_an_inpainting_model_is_shown_the_mask_and_what_is_around_it(painter):
    inputs = Inputs(init=INIT, mask=MASK)
    (got,) = drawn(painter, inputs, mask_blur=0)
    inverse = np.where(MASK, 0, 255).astype(np.uint8)
    (other,) = drawn(painter, Inputs(init=INIT, mask=inverse), mask_blur=0)
    (around,) = drawn(painter, Inputs(init=np.where(MASK[..., None], INIT, 0), mask=MASK))
    assert (got[MASK > 0] != other[MASK > 0]).any()
    assert (got[MASK > 0] != around[MASK > 0]).any()
    # what lies under the mask it is not shown, and begins with noise at full strength
    under = np.where(MASK[..., None], 0, INIT).astype(np.uint8)
    (unseen,) = drawn(painter, Inputs(init=under, mask=MASK), mask_blur=0, strength=1.0)
    (seen,) = drawn(painter, inputs, mask_blur=0, strength=1.0)
    assert np.array_equal(seen[MASK > 0], unseen[MASK > 0])


def test_an_inpainting_model_takes_no_refiner(painter):
    with pytest.raises(BundleError, match="do not know its inputs"):
        events(painter, Inputs(init=INIT, mask=MASK), refiner="x")


@pytest.mark.parametrize("upscaler", ["latent", "lanczos"])
def test_a_second_pass_enlarges_and_its_steps_are_counted(bundle, upscaler):
    given = {"hires_scale": 1.5, "hires_strength": 0.5, "hires_steps": 4, "sampler": "euler"}
    found = events(bundle, Inputs(), hires_upscaler=upscaler, **given)
    steps = [event for event in found if isinstance(event, Step)]
    assert [step.index for step in steps] == list(range(6 + 2))
    assert {step.count for step in steps} == {8}
    assert found[-1].pixels.shape == (96, 96, 3)
    (small,) = drawn(bundle, sampler="euler")
    # the second pass begins with the first one's picture: its colours are still there
    large = found[-1].pixels.astype(float)
    assert abs(large.mean() - small.astype(float).mean()) < 40.0


@pytest.mark.parametrize("at_run", [False, True])
def test_a_second_pass_that_does_not_fit_begins_in_tiles_and_the_picture_says_so(bundle, at_run):
    given = {"prompt": "red apple", "seed": 9, "steps": 2, "width": 640, "height": 640}
    asked = bundle.request(
        **given, hires_scale=1.1, hires_upscaler="lanczos", hires_strength=0.5, sampler="euler"
    )
    # A tile has 64x64 latents, 512x512 pixels; the fake counts what an encoder takes in as latents.
    small = FakeBackend(unet_room=512 * 512, decoder_room=64 * 64, fails_at_run=at_run)
    picture = list(Pipeline(bundle, small).generate(asked))[-1]
    assert picture.repairs == (HIRES_REPAIR, ENCODE_REPAIR, TILES_REPAIR)
    tiled = list(Pipeline(bundle, FakeBackend()).generate(replace(asked, vae_tiling="on")))[-1]
    assert tiled.repairs == ()
    assert np.array_equal(picture.pixels, tiled.pixels)


@pytest.mark.parametrize("which", ["bundle", "painter"])
def test_an_init_picture_that_does_not_fit_is_encoded_in_tiles(request, which):
    model = request.getfixturevalue(which)
    init = DRAW.integers(0, 256, (512, 640, 3), np.uint8)
    mask = np.full((512, 640), 255, np.uint8)
    inputs = Inputs(init=init, mask=mask) if which == "painter" else Inputs(init=init)
    given = {"prompt": "red apple", "seed": 9, "steps": 2, "width": 640, "height": 512, "count": 2}
    asked = model.request(**given, sampler="euler_a")
    small = Pipeline(model, FakeBackend(unet_room=512 * 512))
    made = [e for e in small.generate(asked, inputs=inputs) if isinstance(e, Picture)]
    assert [each.repairs for each in made] == [(ENCODE_REPAIR,)] * 2
    enough = Pipeline(model, FakeBackend())
    tiled = enough.generate(replace(asked, vae_tiling="on"), inputs=inputs)
    expected = [event.pixels for event in tiled if isinstance(event, Picture)]
    # decoding in tiles or as a whole is a rounding apart here
    off = [np.abs(a.pixels.astype(int) - b) for a, b in zip(made, expected, strict=True)]
    assert max(each.max() for each in off) <= 1


def test_variations_turn_the_noise_and_nothing_else(bundle):
    (plain,) = drawn(bundle)
    (none,) = drawn(bundle, variation_seed=1, variation_strength=0.0)
    assert np.array_equal(plain, none)
    little, much = (
        drawn(bundle, variation_seed=1, variation_strength=each)[0].astype(float)
        for each in (0.1, 0.9)
    )
    assert 0 < np.abs(little - plain).mean() < np.abs(much - plain).mean()
    whole = drawn(bundle, variation_seed=1, variation_strength=1.0)
    assert np.array_equal(whole[0], drawn(bundle, seed=1)[0])


def test_variations_of_a_batch_keep_the_seed_and_each_equals_the_one_made_alone(bundle):
    batch = drawn(bundle, variation_seed=20, variation_strength=0.4, count=3)
    alone = [
        drawn(bundle, variation_seed=20 + place, variation_strength=0.4)[0] for place in range(3)
    ]
    assert all(np.array_equal(a, b) for a, b in zip(batch, alone, strict=True))
    assert not np.array_equal(batch[0], batch[1])


def test_turned_noise_is_noise(bundle):
    noise, other = (noise_source("torch", seed).normal((1, 4, 32, 32)) for seed in (1, 2))
    half = turned(noise, other, 0.5)
    assert half.dtype == np.float32
    assert abs(half.std() - 1.0) < 0.05  # a straight mean of the two has 0.71
    assert np.allclose(turned(noise, other, 0.0), noise, atol=1e-6)
    assert np.allclose(turned(noise, other, 1.0), other, atol=1e-6)
    one_row = turned(noise[:, :, :1], other[:, :, :1], 0.25)
    assert np.isfinite(one_row).all()


def test_the_seam_fades_inside_the_mask():
    black, white = np.zeros((64, 64, 3), np.uint8), np.full((64, 64, 3), 255, np.uint8)
    mask = np.zeros((64, 64), np.uint8)
    mask[:, 32:] = 255
    row = paste(white, black, mask, 4.0)[32, :, 0].astype(int)
    assert not row[:32].any()
    assert (np.diff(row[32:]) >= 0).all()
    assert row[-1] == 255
    assert 0 < row[34] < 200


def test_a_mask_is_reduced_as_diffusers_reduces_it():
    torch = pytest.importorskip("torch")
    mask = DRAW.integers(0, 256, (48, 40), np.uint8)
    binary = torch.from_numpy((mask >= 128).astype(np.float32))[None, None]
    expected = torch.nn.functional.interpolate(binary, size=(6, 5))
    assert np.array_equal(latent_mask(mask, 8), expected.numpy())
