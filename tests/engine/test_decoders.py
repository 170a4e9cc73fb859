"""Which decoder a request gets, how its latents are scaled, and what previews are made by."""

from pathlib import Path

import numpy as np
import pytest

import safelight
from engine import Bundle, BundleError, FakeBackend, Pipeline, RequestError
from engine.decoders import find_decoder
from tests.engine.companion_bundle import with_companions
from tests.engine.test_pipeline import CountingBackend, draw, request

POCKET = Path(safelight.__file__).with_name("models") / "pocket"


@pytest.fixture(scope="module")
def bundle():
    return Bundle.open(POCKET, hash_cache=None)


@pytest.fixture
def companions(bundle, tmp_path):
    return with_companions(bundle, tmp_path, scaling_factor=2.0)


def test_each_decoder_has_its_own_scaling(companions):
    found = [find_decoder(n, companions.manifest, companions.path) for n in ("tiny", "vae")]
    assert [each.component for each in found] == ["tiny_vae_decoder", "vae_decoder"]
    assert [each.scaling_factor for each in found] == [2.0, companions.manifest.scaling_factor]


def test_taesd_s_own_scaling_is_one(bundle, tmp_path):
    made = with_companions(bundle, tmp_path)
    assert find_decoder("tiny", made.manifest, made.path).scaling_factor == 1.0


@pytest.mark.parametrize("factor", [0, -1.0, "1", 1e9])
def test_a_bad_scaling_is_refused(bundle, tmp_path, factor):
    made = with_companions(bundle, tmp_path, scaling_factor=factor)
    with pytest.raises(BundleError, match="scaling_factor"):
        find_decoder("tiny", made.manifest, made.path)


def test_a_request_is_decoded_by_the_one_it_names_alone(companions):
    pictures = {}
    for decoder in ("vae", "tiny"):
        backend = CountingBackend(FakeBackend())
        ((picture,), _) = draw(
            Pipeline(companions, backend, check_safety=False),
            request(companions, decoder=decoder),
        )
        loaded = {name for name, _, _ in backend.loads}
        assert loaded >= {{"tiny": "tiny_vae_decoder", "vae": "vae_decoder"}[decoder]}
        assert loaded.isdisjoint({{"vae": "tiny_vae_decoder", "tiny": "vae_decoder"}[decoder]})
        assert picture.request.decoder == decoder
        pictures[decoder] = picture.pixels
    # The fake decodes alike, so what differs is the scaling of what goes in.
    assert (pictures["tiny"] != pictures["vae"]).any()


def test_without_a_tiny_decoder_the_request_is_refused_at_once(bundle):
    pipeline = Pipeline(bundle, FakeBackend())
    for given, kw in (({"decoder": "tiny"}, {}), ({}, {"previews": "tiny"})):
        with pytest.raises(RequestError, match="has no tiny decoder") as caught:
            pipeline.generate(request(bundle, **given), **kw)
        assert "--tiny-vae" in caught.value.hint
    with pytest.raises(RequestError, match="unknown decoder 'tinny'; did you mean 'tiny'"):
        request(bundle, decoder="tinny")
    with pytest.raises(RequestError, match="unknown preview 'fine'"):
        pipeline.generate(request(bundle), previews="fine")


def test_previews_by_the_tiny_decoder_have_the_picture_s_size(companions):
    backend = CountingBackend(FakeBackend())
    pipeline = Pipeline(companions, backend, check_safety=False)
    made = request(companions, width=64, height=128, steps=2)
    looks = []
    for event in pipeline.generate(made, previews="tiny"):
        if hasattr(event, "preview"):
            looks.append(event.preview())
            assert backend.runs["tiny_vae_decoder"] == len(looks)
    assert [each.shape for each in looks] == [(128, 64, 3)] * 2
    assert (looks[0] != looks[1]).any()


def test_a_preview_that_nobody_looks_at_costs_nothing(companions):
    backend = CountingBackend(FakeBackend())
    pipeline = Pipeline(companions, backend, check_safety=False)
    list(pipeline.generate(request(companions), previews="tiny"))
    assert backend.runs["tiny_vae_decoder"] == 0


def test_a_preview_of_what_overflowed_is_no_error(companions):
    pipeline = Pipeline(
        companions, FakeBackend(precision="bf16", nan_at_step=0), check_safety=False
    )
    event = next(iter(pipeline.generate(request(companions), previews="tiny")))
    assert event.preview().dtype == np.uint8
