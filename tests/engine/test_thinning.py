"""Thinner attention: which graph draws, beside what, and what is refused."""

from dataclasses import replace
from pathlib import Path

import pytest

import safelight
from engine import Bundle, FakeBackend, Picture, Pipeline, RequestError
from engine.courses import why_row_by_row
from engine.inputs import NO_INPUTS
from engine.texts import Texts
from engine.thinning import UNET_THIN


class Loading:
    """The fake, which writes down the components that it loads."""

    def __init__(self):
        self.fake, self.loaded = FakeBackend(), []
        self.name, self.device, self.precision = "fake", "CPU", self.fake.precision
        self.libraries = ()

    def load(self, model, shapes, *, identity=""):
        self.loaded.append(identity.rpartition("/")[2])
        return self.fake.load(model, shapes, identity=identity)

    def exact(self):
        return self.fake.exact()


@pytest.fixture(scope="module")
def plain():
    return Bundle.open(Path(safelight.__file__).parent / "models" / "pocket", hash_cache=None)


@pytest.fixture(scope="module")
def bundle(plain):
    """Give the bundle as its manifest is with the graph; the fake needs no files."""
    unet = plain.manifest.components["unet"]
    components = plain.manifest.components | {UNET_THIN: replace(unet, file="unet/model_thin.onnx")}
    return replace(plain, manifest=replace(plain.manifest, components=components))


def draw(bundle, backend, **given):
    request = bundle.request(**({"prompt": "red apple", "seed": 1, "steps": 3} | given))
    *_, picture = Pipeline(bundle, backend).generate(request)
    assert isinstance(picture, Picture)
    return picture


def test_the_thin_graph_draws_alone_and_the_record_says_so(bundle):
    backend = Loading()
    picture = draw(bundle, backend, kv_downsampling=2)
    assert [name for name in backend.loaded if "unet" in name] == [UNET_THIN]
    assert picture.request.kv_downsampling == 2
    usual = Loading()
    assert draw(bundle, usual).request.kv_downsampling == 1
    assert [name for name in usual.loaded if "unet" in name] == ["unet"]


def test_it_goes_with_a_guidance_interval(bundle):
    backend = Loading()
    draw(bundle, backend, kv_downsampling=2, guidance_start=0.5)
    assert [name for name in backend.loaded if "unet" in name] == [UNET_THIN]


def test_the_host_runs_its_loop_since_step_graphs_are_whole(bundle):
    texts = Texts(different=(), shown=((0, 1),), weights=(1.0,), clip_skip=1)
    thin, whole = (bundle.request(prompt="x", seed=1, kv_downsampling=k) for k in (2, 1))
    assert why_row_by_row(thin, texts, NO_INPUTS, bundle.manifest) == "keys and values are thinned"
    assert why_row_by_row(whole, texts, NO_INPUTS, bundle.manifest) == ""


@pytest.mark.parametrize(
    ("given", "precision", "said"),
    [
        ({"reuse_every": 2}, "fp32", "goes with no reuse_every"),
        ({}, "int8", "int8 has a form of the unet itself"),
    ],
)
def test_what_it_does_not_go_with_is_named(bundle, given, precision, said):
    request = bundle.request(prompt="x", seed=1, kv_downsampling=2, **given)
    pipeline = Pipeline(bundle, FakeBackend(precision=precision))
    with pytest.raises(RequestError, match=said):
        pipeline.generate(request)


def test_a_bundle_without_the_graph_says_how_to_get_it(plain):
    request = plain.request(prompt="x", seed=1, kv_downsampling=2)
    with pytest.raises(RequestError, match="has no thin graph") as caught:
        Pipeline(plain, FakeBackend()).generate(request)
    assert "--with thin" in caught.value.hint


@pytest.mark.parametrize("value", [0, 3, -1])
def test_the_factor_is_one_or_two(plain, value):
    with pytest.raises(RequestError, match="kv_downsampling"):
        plain.request(prompt="x", seed=1, kv_downsampling=value)
