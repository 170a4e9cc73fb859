"""Deep features reused between evaluations: when, of which text, and what is refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import safelight
from engine import Bundle, FakeBackend, Picture, Pipeline, RequestError, Step
from engine.errors import BundleError
from engine.manifest import TensorSpec
from engine.reuse import DEEP_FEATURE, UNET_DEEP, UNET_SHALLOW, FeatureSession

FEATURE = TensorSpec(dtype="float32", shape=("batch", 8, "height", "width"))  # the fake's


def with_pair(bundle):
    """Give the bundle as its manifest would be with the pair of graphs; the fake needs no files."""
    unet = bundle.manifest.components["unet"]
    pair = {
        UNET_DEEP: replace(unet, file="unet/model_deep.onnx"),
        UNET_SHALLOW: replace(
            unet, file="unet/model_shallow.onnx", inputs={**unet.inputs, DEEP_FEATURE: FEATURE}
        ),
    }
    components = {**bundle.manifest.components, **pair}
    return replace(bundle, manifest=replace(bundle.manifest, components=components))


@pytest.fixture(scope="module")
def plain():
    return Bundle.open(Path(safelight.__file__).parent / "models" / "pocket", hash_cache=None)


@pytest.fixture(scope="module")
def bundle(plain):
    return with_pair(plain)


class Written:
    """The fake, which writes down what its unets are asked: name, timestep, texts."""

    def __init__(self, fake=None):
        self.fake, self.runs, self.loaded = fake or FakeBackend(), [], []
        self.name, self.device, self.precision = "fake", "CPU", self.fake.precision
        self.libraries = ()

    def load(self, model, shapes, *, identity=""):
        session = self.fake.load(model, shapes, identity=identity)
        if "timestep" not in shapes:
            return session
        component = identity.rpartition("/")[2]
        self.loaded.append((component, shapes["sample"][0]))
        return WrittenUnet(session, component, self.runs)

    def exact(self):
        return Written(self.fake.exact())


class WrittenUnet:
    def __init__(self, session, component, runs):
        self.session, self.component, self.runs = session, component, runs

    def run(self, inputs):
        self.runs.append((self.component, float(inputs["timestep"]), len(inputs["sample"])))
        return self.session.run(inputs)

    def run_all(self, inputs):
        self.runs.append((self.component, float(inputs["timestep"]), len(inputs["sample"])))
        return self.session.run_all(inputs)


def draw(bundle, backend=None, **given):
    request = bundle.request(**({"prompt": "red apple", "seed": 7, "steps": 7} | given))
    *_, picture = Pipeline(bundle, backend or FakeBackend()).generate(request)
    assert isinstance(picture, Picture)
    return picture


def asked(bundle, **given):
    backend = Written()
    draw(bundle, backend, **given)
    return backend


@pytest.mark.parametrize("every", [2, 3, 20])
def test_every_nth_evaluation_is_whole_beginning_with_the_first(bundle, every):
    backend = asked(bundle, reuse_every=every)
    assert backend.loaded == [(UNET_DEEP, 2), (UNET_SHALLOW, 2)]
    names = [name for name, _, _ in backend.runs]
    assert names == [UNET_SHALLOW if row % every else UNET_DEEP for row in range(7)]


def test_of_two_evaluations_a_step_each_counts(bundle):
    steps = 3
    backend = asked(bundle, sampler="heun", steps=steps, reuse_every=2)
    names = [name for name, _, _ in backend.runs]
    assert names == [UNET_DEEP, UNET_SHALLOW] * (steps - 1) + [UNET_DEEP]
    times = [time for _, time, _ in backend.runs]
    assert times[1] == times[2]  # the same level, computed anew where the next step begins


def test_each_text_keeps_a_feature_and_all_are_whole_in_the_same_evaluations(bundle):
    backend = asked(bundle, steps=7, reuse_every=3, guidance_start=0.2, guidance_end=0.8)
    rows = {time: [] for _, time, _ in backend.runs}
    for name, time, texts in backend.runs:
        assert texts == 1
        rows[time].append(name)
    alone, both = [[UNET_SHALLOW]], [[UNET_SHALLOW] * 2]
    # Steps 2 to 5 of 0 to 6 are guided: in step 2 the unconditional text, which has no feature of
    # its own yet, is whole beside the prompt, which is not.
    first = [[UNET_DEEP, UNET_SHALLOW]]
    assert list(rows.values()) == [
        [UNET_DEEP],
        *alone,
        *first,
        [UNET_DEEP] * 2,
        *both,
        *both,
        [UNET_DEEP],
    ]


def test_a_picture_begins_whole_whatever_was_drawn_before(bundle):
    pipeline = Pipeline(bundle, FakeBackend())
    request = bundle.request(prompt="red apple", seed=7, steps=3, reuse_every=2, count=2)
    *_, first, second = (e for e in pipeline.generate(request) if isinstance(e, Picture))
    for picture in (first, second):
        alone = draw(bundle, seed=picture.request.seed, steps=3, reuse_every=2)
        assert np.array_equal(picture.pixels, alone.pixels)


def test_the_picture_is_another_and_says_so(bundle):
    exact = draw(bundle)
    reused = draw(bundle, reuse_every=2)
    assert reused.request.reuse_every == 2
    assert not np.array_equal(reused.pixels, exact.pixels)
    assert np.array_equal(draw(bundle, reuse_every=1).pixels, exact.pixels)


def test_one_way_to_hold_the_weights_at_a_time(bundle):
    backend = Written()
    pipeline = Pipeline(bundle, backend)
    for every in (1, 2, 2, 1):
        list(pipeline.generate(bundle.request(prompt="a", seed=1, steps=2, reuse_every=every)))
    pair = [(UNET_DEEP, 2), (UNET_SHALLOW, 2)]
    assert backend.loaded == [("unet", 2), *pair, ("unet", 2)]


def test_a_prompt_that_changes_is_not_answered_with_the_feature_of_another(bundle):
    names = [name for name, _, _ in asked(bundle, prompt="[red:blue:3] apple", reuse_every=20).runs]
    assert names == [UNET_DEEP, *[UNET_SHALLOW] * 2, UNET_DEEP, *[UNET_SHALLOW] * 3]
    # The prompt alternates: nothing is left to reuse.
    alternating = asked(bundle, prompt="[red|blue] apple", reuse_every=3)
    assert {name for name, _, _ in alternating.runs} == {UNET_DEEP}


def test_the_networks_are_loaded_before_the_first_step(bundle):
    backend = Written()
    request = bundle.request(prompt="a", seed=1, reuse_every=2, guidance_end=0.5)
    events = Pipeline(bundle, backend).generate(request)
    assert isinstance(next(events), Step)
    assert backend.loaded == [(UNET_DEEP, 1), (UNET_SHALLOW, 1)]


def test_without_the_pair_it_is_refused_at_once_with_what_to_do(plain):
    with pytest.raises(RequestError, match="has no second graphs") as raised:
        Pipeline(plain, FakeBackend()).generate(plain.request(prompt="a", seed=1, reuse_every=2))
    assert "--with shallow" in raised.value.hint


def test_int8_is_not_said_of_what_computes_in_another_precision(bundle):
    pipeline = Pipeline(bundle, FakeBackend(precision="int8"))
    with pytest.raises(RequestError, match="int8"):
        pipeline.generate(bundle.request(prompt="a", seed=1, reuse_every=2))


# -- the pair as one session -------------------------------------------------------------------


class Deep:
    """A unet of 10 and a feature of its own number, or what it is told to give."""

    def __init__(self, *names):
        self.names, self.runs = names or ("out_sample", DEEP_FEATURE), 0

    def run_all(self, inputs):
        self.runs += 1
        return {name: np.full((1, 4, 2, 2), self.runs, np.float32) for name in self.names}


class Shallow:
    """Answers with the feature."""

    def run(self, inputs):
        return inputs[DEEP_FEATURE]


def test_a_text_that_changed_is_computed_whole():
    session = FeatureSession(Deep(), Shallow())
    texts = [np.zeros((1, 3, 5), np.float32), np.zeros((1, 3, 5), np.float32)]
    answers = []
    for row, place in enumerate((0, 0, 1, 1, 0)):
        session.whole = row == 0
        answers.append(float(session.run({"encoder_hidden_states": texts[place]}).flat[0]))
    assert answers == [1.0, 1.0, 2.0, 2.0, 3.0]


@pytest.mark.parametrize(
    "names", [("out_sample",), (DEEP_FEATURE,), ("out_sample", "other", DEEP_FEATURE)]
)
def test_a_graph_that_gives_other_outputs_is_the_bundles_fault(names):
    session = FeatureSession(Deep(*names), Shallow())
    with pytest.raises(BundleError, match="unet_deep gives"):
        session.run({"encoder_hidden_states": np.zeros((1, 3, 5), np.float32)})


def test_a_feature_of_unknown_width_is_the_bundles_fault(bundle):
    shallow = bundle.manifest.components[UNET_SHALLOW]
    free = TensorSpec(dtype="float32", shape=("batch", "channels", "height", "width"))
    components = {
        **bundle.manifest.components,
        UNET_SHALLOW: replace(shallow, inputs={**shallow.inputs, DEEP_FEATURE: free}),
    }
    other = replace(bundle, manifest=replace(bundle.manifest, components=components))
    with pytest.raises(BundleError, match="no known shape"):
        draw(other, reuse_every=2)
