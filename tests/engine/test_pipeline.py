"""The pipeline's order of things, on pocket's bundle with the shipped fake for its networks."""

import contextlib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import safelight
from engine import (
    Bundle,
    BundleError,
    Choice,
    DeviceError,
    FakeBackend,
    NotFiniteError,
    OutOfMemoryError,
    Picture,
    Pipeline,
    RequestError,
    Step,
)
from engine.control import Control
from engine.guard import DECODE_REPAIR, DENOISE_REPAIR
from engine.repairs import HIRES_REPAIR, TILES_REPAIR

CANARY = "a canary in 'the' coal mine"


@pytest.fixture(scope="module")
def bundle():
    return Bundle.open(Path(safelight.__file__).parent / "models" / "pocket", hash_cache=None)


class CountingBackend:
    """The fake, which also writes down what is loaded and run."""

    def __init__(self, fake):
        self.fake = fake
        self.name, self.device, self.precision = fake.name, fake.device, fake.precision
        self.libraries = fake.libraries
        self.loads = []
        self.runs = Counter()
        self.repairs = []

    def load(self, model, shapes, *, identity=""):
        self.loads.append((model.parent.name, dict(shapes), identity))
        return CountingSession(self.fake.load(model, shapes), self.runs, model.parent.name)

    def exact(self):
        self.repairs.append(CountingBackend(self.fake.exact()))
        return self.repairs[-1]


class CountingSession:
    def __init__(self, session, runs, component):
        self.session, self.runs, self.component = session, runs, component

    def run(self, inputs):
        self.runs[self.component] += 1
        return self.session.run(inputs)

    def run_all(self, inputs):
        self.runs[self.component] += 1
        return self.session.run_all(inputs)


def request(bundle, **given):
    return bundle.request(**({"prompt": "red apple", "seed": 7, "steps": 3} | given))


def draw(pipeline, made, **kw):
    events = list(pipeline.generate(made, **kw))
    return [e for e in events if isinstance(e, Picture)], [e for e in events if isinstance(e, Step)]


def pixels(bundle, *, backend=None, **given):
    (picture,), _ = draw(Pipeline(bundle, backend or FakeBackend()), request(bundle, **given))
    return picture.pixels


# -- what is yielded ---------------------------------------------------------------------------


def test_a_picture_says_how_it_was_made(bundle):
    made = request(bundle, width=64, height=128, count=2)
    choice = Choice(backend=FakeBackend(device="card 3"), reason="because")
    pictures, steps = draw(Pipeline(bundle, choice), made)
    assert [(s.picture, s.index, s.count) for s in steps] == [
        (picture, index, 3) for picture in (0, 1) for index in range(3)
    ]
    for index, picture in enumerate(pictures):
        assert picture.pixels.shape == (128, 64, 3)
        assert picture.pixels.dtype == np.uint8
        assert picture.request == replace(made, seed=7 + index, count=1)
        assert (picture.model, picture.model_hash) == ("pocket", bundle.hash)
        assert (picture.backend, picture.device, picture.precision) == ("fake", "card 3", "fp32")
        assert picture.reason == "because"
        assert picture.repairs == ()
        assert dict(picture.libraries) == {"numpy": np.__version__}


def test_a_sampler_with_two_evaluations_a_step_counts_evaluations(bundle):
    _, steps = draw(Pipeline(bundle, FakeBackend()), request(bundle, sampler="heun", steps=4))
    assert [step.index for step in steps] == list(range(7))  # the last step is Euler's
    assert {step.count for step in steps} == {7}


def test_seconds_come_from_the_clock_that_was_given(bundle):
    ticks = iter(range(1000))
    pipeline = Pipeline(bundle, FakeBackend(), clock=lambda: float(next(ticks)))
    pictures, steps = draw(pipeline, request(bundle, steps=5))
    assert {step.seconds for step in steps} == {1.0}
    # one reading at the start and at the end of a stage, and two in each evaluation
    assert pictures[0].seconds.denoise == 11.0
    assert (pictures[0].seconds.load, pictures[0].seconds.text) == (1.0, 1.0)
    assert pictures[0].seconds.decode == 1.0


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"guidance_scale": 1.0, "width": 64},
        {"prompt": "red apple, " * 60, "hires_scale": 1.5, "hires_strength": 0.6},
    ],
    ids=["plain", "unguided", "long and enlarged"],
)
def test_what_is_prepared_is_all_that_the_picture_takes(bundle, given):
    backend = CountingBackend(FakeBackend())
    ticks = iter(range(1000))
    pipeline = Pipeline(bundle, backend, clock=lambda: float(next(ticks)))
    made = request(bundle, **given)
    assert pipeline.prepare(made) == 1.0
    loads = list(backend.loads)
    assert {place for place, _, _ in loads} == {"text_encoder", "unet", "vae_decoder"}
    (first, second), _ = draw(pipeline, replace(made, count=2))
    if "hires_scale" not in given:  # the second pass has another size
        assert backend.loads == loads
    assert (first.seconds.load, second.seconds.load) == (2.0, 1.0)  # the first counts both
    assert np.array_equal(first.pixels, pixels(bundle, **given))


def test_what_cannot_be_prepared_says_so_as_drawing_it_does(bundle):
    pipeline = Pipeline(bundle, FakeBackend())
    made = replace(request(bundle), controls=(Control(model="edges"),))
    with pytest.raises((BundleError, RequestError)) as drawing:
        pipeline.generate(made)
    with pytest.raises(drawing.type) as preparing:
        pipeline.prepare(made)
    assert str(preparing.value) == str(drawing.value)


def test_a_preview_shows_the_latents_of_its_step(bundle):
    pipeline = Pipeline(bundle, FakeBackend())
    events = pipeline.generate(request(bundle, width=64, height=32))
    previews = [event.preview() for event in events if isinstance(event, Step)]
    assert [p.shape for p in previews] == [(4, 8, 3)] * 3
    assert previews[0].dtype == np.uint8
    assert not np.array_equal(previews[0], previews[-1])


# -- what a picture depends on -----------------------------------------------------------------


def test_each_picture_of_many_equals_the_one_made_alone(bundle):
    many, _ = draw(Pipeline(bundle, FakeBackend()), request(bundle, sampler="euler_a", count=3))
    for index, picture in enumerate(many):
        alone = pixels(bundle, sampler="euler_a", seed=7 + index)
        assert np.array_equal(picture.pixels, alone)
    assert not np.array_equal(many[0].pixels, many[1].pixels)


def test_a_picture_does_not_depend_on_what_was_drawn_before(bundle):
    pipeline = Pipeline(bundle, FakeBackend())
    draw(pipeline, request(bundle, prompt="blue cat", width=64, guidance_scale=1.0))
    (picture,), _ = draw(pipeline, request(bundle))
    assert np.array_equal(picture.pixels, pixels(bundle))


@pytest.mark.parametrize(
    "other",
    [
        {"prompt": "blue apple"},
        {"negative_prompt": "leaf"},
        {"guidance_scale": 5.0},
        {"guidance_scale": 1.0},
        {"seed": 8},
        {"seed": 0},
        {"noise": "philox"},
        {"steps": 4},
        {"sampler": "euler"},
        {"schedule": "karras"},
    ],
)
def test_it_depends_on_every_part_of_the_request(bundle, other):
    base = pixels(bundle)
    assert np.array_equal(base, pixels(bundle))
    assert not np.array_equal(base, pixels(bundle, **other))


def test_eta_changes_the_samplers_that_add_noise_alone(bundle):
    for sampler, changes in (("ddim", True), ("euler_a", True), ("euler", False)):
        pair = [pixels(bundle, sampler=sampler, eta=eta) for eta in (0.2, 0.7)]
        assert np.array_equal(*pair) != changes


def test_without_guidance_one_half_is_computed_and_the_negative_prompt_is_idle(bundle):
    counting = CountingBackend(FakeBackend())
    with_negative = pixels(bundle, backend=counting, guidance_scale=1.0, negative_prompt="anything")
    assert np.array_equal(with_negative, pixels(bundle, guidance_scale=1.0))
    shapes = {component: shapes for component, shapes, _ in counting.loads}
    assert shapes["unet"]["sample"] == (1, 4, 16, 16)
    assert counting.runs["text_encoder"] == 1


def test_a_long_prompt_takes_chunks_and_the_other_one_is_filled_up(bundle):
    counting = CountingBackend(FakeBackend())
    long = "red apple and " * 30  # 90 tokens: three chunks of 30
    made = pixels(bundle, backend=counting, prompt=long)
    shapes = {component: shapes for component, shapes, _ in counting.loads}
    assert shapes["text_encoder"]["input_ids"] == (1, 32)
    assert shapes["unet"]["encoder_hidden_states"] == (2, 3 * 32, 128)
    assert counting.runs["text_encoder"] == 2  # the same chunk thrice, and the empty one
    assert not np.array_equal(made, pixels(bundle, prompt=long + "pear"))
    assert not np.array_equal(made, pixels(bundle, prompt=long, negative_prompt=long))


def test_ten_thousand_words_are_drawn_to_the_last(bundle):
    counting = CountingBackend(FakeBackend())
    words = "apple " * 10_000
    made = pixels(bundle, backend=counting, prompt=words)
    ((_, tokens, _),) = {
        shapes["encoder_hidden_states"] for name, shapes, _ in counting.loads if name == "unet"
    }
    assert tokens >= 10_000
    assert not np.array_equal(made, pixels(bundle, prompt=words + "pear"))


# -- what is loaded and when -------------------------------------------------------------------


def test_networks_are_loaded_once_and_again_only_for_other_shapes(bundle):
    counting = CountingBackend(FakeBackend())
    pipeline = Pipeline(bundle, counting)
    assert not counting.loads
    pipeline.load(128, 128)
    everything = ["text_encoder", "unet", "vae_decoder"]
    assert [component for component, _, _ in counting.loads] == everything
    assert {identity for _, _, identity in counting.loads} == {
        f"{bundle.hash}/{component}" for component in everything
    }
    draw(pipeline, request(bundle, count=2))
    draw(pipeline, request(bundle, seed=1))
    assert len(counting.loads) == 3
    assert counting.runs["text_encoder"] == 2  # prompt and empty negative, once each
    draw(pipeline, request(bundle, width=64))
    assert [component for component, _, _ in counting.loads[3:]] == ["unet", "vae_decoder"]
    assert counting.loads[3][1]["sample"] == (2, 4, 16, 8)
    draw(pipeline, request(bundle, width=64, guidance_scale=1.0))
    assert [component for component, _, _ in counting.loads[5:]] == ["unet"]


@pytest.mark.parametrize("fails_on", ["input_ids", "timestep", "latent_sample"])
def test_a_failing_load_ends_it_before_any_step(bundle, fails_on):
    pipeline = Pipeline(bundle, FakeBackend(fails_on=fails_on))
    with pytest.raises(DeviceError, match="told not to load"):
        next(iter(pipeline.generate(request(bundle))))


def test_a_request_without_meaning_is_refused_at_once(bundle):
    pipeline = Pipeline(bundle, FakeBackend())
    made = request(bundle)
    object.__setattr__(made, "sampler", "eular")  # a request that came past the border
    with pytest.raises(RequestError, match="eular"):
        pipeline.generate(made)


def test_a_network_that_does_not_fit_its_manifest_is_the_bundles_fault(bundle):
    with pytest.raises(BundleError, match=r"the text encoders give \(1, 32, 64\)"):
        pixels(bundle, backend=FakeBackend(embed_dim=64))


def test_a_component_with_other_inputs_is_refused(bundle):
    unet = bundle.manifest.components["unet"]
    more = replace(unet, inputs={**unet.inputs, "text_embeds": unet.inputs["sample"]})
    components = {**bundle.manifest.components, "unet": more}
    other = replace(bundle, manifest=replace(bundle.manifest, components=components))
    with pytest.raises(BundleError, match="text_embeds"):
        pixels(other)


def test_the_networks_of_a_repair_are_loaded_once(bundle):
    counting = CountingBackend(FakeBackend(precision="bf16", nan_in_picture=True))
    pictures, _ = draw(Pipeline(bundle, counting), request(bundle, count=2))
    assert [picture.repairs for picture in pictures] == [(DECODE_REPAIR,)] * 2
    (exact,) = counting.repairs
    assert [component for component, _, _ in exact.loads] == ["vae_decoder"]


# -- cancelling --------------------------------------------------------------------------------


@pytest.mark.parametrize("after", range(9))
def test_it_stops_between_evaluations_and_keeps_what_was_finished(bundle, after):
    counting = CountingBackend(FakeBackend())
    steps, pictures = [], []
    stop = lambda: len(steps) >= after  # noqa: E731
    for event in Pipeline(bundle, counting).generate(request(bundle, count=3), cancelled=stop):
        (steps if isinstance(event, Step) else pictures).append(event)
    assert len(steps) == after == counting.runs["unet"]
    # a picture's third step is followed by its decoding only if nobody said stop meanwhile
    assert len(pictures) == max(0, (after - 1) // 3)
    for index, picture in enumerate(pictures):
        assert np.array_equal(picture.pixels, pixels(bundle, seed=7 + index))


def test_a_cancelled_pipeline_goes_on_with_the_next_request(bundle):
    pipeline = Pipeline(bundle, FakeBackend())
    events = pipeline.generate(request(bundle, seed=3))
    next(events)
    events.close()
    (picture,), _ = draw(pipeline, request(bundle))
    assert np.array_equal(picture.pixels, pixels(bundle))


# -- the guard ---------------------------------------------------------------------------------


def test_an_overflow_while_denoising_is_repaired_in_fp32_and_recorded(bundle):
    counting = CountingBackend(FakeBackend(precision="bf16", nan_at_step=1))
    (picture,), steps = draw(Pipeline(bundle, counting), request(bundle))
    assert picture.repairs == (DENOISE_REPAIR,) == ("denoise in fp32",)
    assert picture.precision == "bf16"
    assert [step.index for step in steps] == [0, 1, 2, 0, 1, 2]
    (exact,) = counting.repairs
    assert exact.runs == {"text_encoder": 2, "unet": 3}  # the text may have been what overflowed
    assert np.array_equal(picture.pixels, pixels(bundle))
    steps[1].preview()  # of latents that are not finite: still a picture, and no warning


def test_an_overflow_while_decoding_repeats_the_decoding_alone(bundle):
    counting = CountingBackend(FakeBackend(precision="bf16", nan_in_picture=True))
    (picture,), steps = draw(Pipeline(bundle, counting), request(bundle))
    assert picture.repairs == (DECODE_REPAIR,) == ("decode in fp32",)
    assert counting.repairs[0].runs == {"vae_decoder": 1}
    assert len(steps) == 3
    assert np.array_equal(picture.pixels, pixels(bundle))


def test_the_pictures_after_a_repaired_one_start_fast_again(bundle):
    fake = FakeBackend(precision="bf16", nan_at_step=1)  # of the session: the first picture only
    pictures, _ = draw(Pipeline(bundle, fake), request(bundle, count=3))
    assert [picture.repairs for picture in pictures] == [(DENOISE_REPAIR,), (), ()]


@pytest.mark.parametrize(
    ("where", "what"), [({"nan_at_step": 0}, "latents"), ({"nan_in_picture": True}, "picture")]
)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_fp32_cannot_repair_is_an_error_without_the_prompt(bundle, where, what, precision):
    fake = FakeBackend(precision=precision, nan_in_exact=True, **where)
    with pytest.raises(
        NotFiniteError, match=f"the {what} came out as .* in fp32 as well"
    ) as raised:
        draw(Pipeline(bundle, fake), request(bundle, prompt=CANARY, negative_prompt=CANARY))
    error = raised.value
    assert "canary" not in f"{error!r} {error.hint} {error.__cause__!r}"


def test_finished_pictures_come_before_the_error_of_a_later_one(bundle):
    fake = FakeBackend(nan_at_step=4)  # the second picture's second evaluation
    events = []
    with pytest.raises(NotFiniteError):
        events.extend(Pipeline(bundle, fake).generate(request(bundle, count=2)))
    # extend keeps what came before the error
    assert [type(event) for event in events].count(Picture) == 1


def test_a_repair_can_be_cancelled(bundle):
    seen = []
    fake = FakeBackend(precision="bf16", nan_at_step=0)
    pipeline = Pipeline(bundle, fake)
    for event in pipeline.generate(request(bundle), cancelled=lambda: len(seen) == 4):
        seen.append(event)  # noqa: PERF402 - cancelled reads it meanwhile
    assert all(isinstance(event, Step) for event in seen)
    assert len(seen) == 4


def test_nothing_it_holds_shows_a_prompt(bundle):
    pipeline = Pipeline(bundle, FakeBackend())
    events = pipeline.generate(request(bundle, prompt=CANARY))
    with contextlib.closing(events):
        step = next(events)
        assert "canary" not in f"{step!r} {events!r} {pipeline!r} {vars(pipeline)!r}"


# -- out of memory -----------------------------------------------------------------------------


@pytest.mark.parametrize("at_run", [False, True])
def test_a_denoiser_that_does_not_fit_is_one_sentence_with_a_smaller_size(bundle, at_run):
    fake = FakeBackend(unet_room=16 * 16, fails_at_run=at_run)
    draw(Pipeline(bundle, fake), request(bundle))  # 128x128 pixels are 16x16 latents
    with pytest.raises(
        OutOfMemoryError, match=r"no memory for a picture of 256x192 pixels: .* 24x32 latents"
    ) as raised:
        draw(Pipeline(bundle, fake), request(bundle, width=256, height=192, prompt=CANARY))
    assert isinstance(raised.value, DeviceError)
    assert raised.value.hint == "128x128 takes at most half as much"
    assert raised.value.requested == 24 * 32 << 20
    assert "canary" not in f"{raised.value!r} {raised.value.__cause__!r}"
    draw(Pipeline(bundle, fake), request(bundle, width=128, height=128))  # and that one fits


def test_of_two_passes_the_size_that_they_end_with_is_named(bundle):
    fake = FakeBackend(unet_room=16 * 16)
    with pytest.raises(OutOfMemoryError, match=r"a picture of 256x256 pixels: .* 32x") as raised:
        draw(Pipeline(bundle, fake), request(bundle, width=128, height=128, hires_scale=2.0))
    assert raised.value.hint == "128x128 after hires_scale takes at most half as much"


def test_a_pipeline_that_ran_out_of_memory_draws_the_next_picture(bundle):
    pipeline = Pipeline(bundle, FakeBackend(unet_room=16 * 16))
    with pytest.raises(OutOfMemoryError):
        draw(pipeline, request(bundle, width=256))
    (picture,), _ = draw(pipeline, request(bundle))
    assert np.array_equal(picture.pixels, pixels(bundle))


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OutOfMemoryError("the card is full"), "the card is full"),
        (MemoryError("Unable to allocate 1 GiB"), "Unable to allocate 1 GiB"),
        (MemoryError(), "none is left"),
    ],
    ids=["card", "numpy", "python"],
)
def test_pictures_that_were_finished_before_memory_ended_are_kept(bundle, error, says):
    """The memory that is there may change while many are drawn."""
    made = []
    backend = Shrinking(FakeBackend(), error)
    with pytest.raises(OutOfMemoryError, match=f"128x128 pixels: {says}"):
        made.extend(Pipeline(bundle, backend).generate(request(bundle, count=3)))
    assert [type(event) for event in made].count(Picture) == 1


class Shrinking(CountingBackend):
    """Memory ends in the second picture."""

    def __init__(self, fake, error):
        super().__init__(fake)
        self.error = error

    def load(self, model, shapes, *, identity=""):
        session = super().load(model, shapes, identity=identity)
        if "timestep" not in shapes:
            return session
        return ShrinkingSession(session, self.runs, self.error)


class ShrinkingSession:
    def __init__(self, session, runs, error):
        self.session, self.runs, self.error = session, runs, error

    def run(self, inputs):
        if self.runs["unet"] == 4:
            raise self.error
        return self.session.run(inputs)


@pytest.mark.parametrize("at_run", [False, True])
def test_a_decoder_that_does_not_fit_decodes_in_tiles_and_the_picture_says_so(bundle, at_run):
    made = request(bundle, width=1024, height=640)
    counting = CountingBackend(FakeBackend(decoder_room=64 * 64, fails_at_run=at_run))
    (picture,), steps = draw(Pipeline(bundle, counting), made)
    assert picture.repairs == (TILES_REPAIR,) == ("decode in tiles",)
    assert len(steps) == 3  # nothing was drawn again
    tiles = [shapes for name, shapes, _ in counting.loads if name == "vae_decoder"]
    assert tiles[-1] == {"latent_sample": (1, 4, 64, 64)}
    (whole,), _ = draw(Pipeline(bundle, FakeBackend()), made)
    assert whole.repairs == ()
    # the fake's decoder looks at one latent at a time: what is left is the fading, a rounding
    off = np.abs(picture.pixels.astype(int) - whole.pixels.astype(int))
    assert off.max() <= 1


class Processor(CountingBackend):
    """Computes as the fake does, and says that it is ONNX Runtime on the processor."""

    def __init__(self, fake):
        super().__init__(fake)
        self.name, self.device = "onnxruntime", "CPU"


def test_what_the_system_would_kill_for_is_decoded_in_tiles_before(bundle, monkeypatch):
    free = [5300 * 1024 * 640]
    monkeypatch.setattr("engine.stages.free_memory", lambda: free[0])
    made = request(bundle, width=1024, height=640)
    (whole,), _ = draw(Pipeline(bundle, Processor(FakeBackend())), made)
    free[0] -= 1
    backend = Processor(FakeBackend())
    (picture,), _ = draw(Pipeline(bundle, backend), made)
    assert (whole.repairs, picture.repairs) == ((), (TILES_REPAIR,))
    tiles = [shapes for name, shapes, _ in backend.loads if name == "vae_decoder"]
    assert tiles[-1] == {"latent_sample": (1, 4, 64, 64)}
    (other,), _ = draw(Pipeline(bundle, FakeBackend()), made)
    assert other.repairs == ()  # another back end takes its memory when it loads


def test_a_first_pass_that_the_system_would_kill_for_is_decoded_in_tiles_too(bundle, monkeypatch):
    monkeypatch.setattr("engine.stages.free_memory", lambda: 0.0)
    made = request(bundle, width=640, height=640, hires_scale=1.1, hires_upscaler="lanczos")
    backend = Processor(FakeBackend())
    (picture,), _ = draw(Pipeline(bundle, backend), made)
    assert picture.repairs == (HIRES_REPAIR, TILES_REPAIR)
    assert backend.runs["vae_decoder"] == 4 + picture.tiles


def test_what_fitted_once_fits_again(bundle, monkeypatch):
    free = [float("inf")]
    monkeypatch.setattr("engine.stages.free_memory", lambda: free[0])
    pipeline = Pipeline(bundle, Processor(FakeBackend()))
    made = request(bundle, width=1024, height=640)
    draw(pipeline, made)
    free[0] = 0.0  # the decoder holds it now
    (second,), _ = draw(pipeline, made)
    assert second.repairs == ()
    (other,), _ = draw(pipeline, request(bundle, width=640, height=1024))
    assert other.repairs == (TILES_REPAIR,)  # that decoder is another one


def test_tiles_that_overflow_are_decoded_again_in_fp32_and_still_in_tiles(bundle):
    fake = FakeBackend(precision="bf16", decoder_room=16 * 64, nan_in_picture=True)
    made = request(bundle, width=1024)  # 16x128 latents
    (picture,), _ = draw(Pipeline(bundle, fake), made)
    assert picture.repairs == (TILES_REPAIR, DECODE_REPAIR)
    (whole,), _ = draw(Pipeline(bundle, FakeBackend()), made)
    assert np.abs(picture.pixels.astype(int) - whole.pixels.astype(int)).max() <= 1


def test_the_next_picture_is_tried_whole_again(bundle):
    pipeline = Pipeline(bundle, FakeBackend(decoder_room=16 * 64))
    (large,), _ = draw(pipeline, request(bundle, width=1024))
    (small,), _ = draw(pipeline, request(bundle))
    assert (large.repairs, small.repairs) == ((TILES_REPAIR,), ())
    assert np.array_equal(small.pixels, pixels(bundle))


def test_a_tile_that_does_not_fit_either_is_the_sentence(bundle):
    pipeline = Pipeline(bundle, FakeBackend(decoder_room=32 * 32))
    with pytest.raises(OutOfMemoryError, match=r"1024x1024 pixels: .* 64x64 latents") as raised:
        draw(pipeline, request(bundle, width=1024, height=1024))
    assert raised.value.hint == "704x704 takes at most half as much"
