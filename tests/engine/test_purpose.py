"""A bundle that draws nothing from text alone is refused in one sentence, before it is loaded."""

from dataclasses import replace
from pathlib import Path

import pytest

import safelight
from engine import Bundle, BundleError, FakeBackend, Pipeline
from engine.manifest import TensorSpec
from engine.purpose import check_draws


@pytest.fixture(scope="module")
def bundle():
    return Bundle.open(Path(safelight.__file__).parent / "models" / "pocket", hash_cache=None)


def with_input(manifest, name, *shape):
    unet = manifest.components["unet"]
    spec = TensorSpec(dtype="float32", shape=shape)
    unet = replace(unet, inputs=dict(unet.inputs) | {name: spec})
    return replace(manifest, components=dict(manifest.components) | {"unet": unet})


def test_text_to_picture_is_let_pass(bundle):
    check_draws(bundle.manifest)


def test_an_inpainting_model_is_refused_without_a_mask(bundle):
    manifest = with_input(bundle.manifest, "sample", "batch", 9, "height", "width")
    pipeline = Pipeline(replace(bundle, manifest=manifest), FakeBackend())
    with pytest.raises(BundleError, match="'pocket' is an inpainting model") as caught:
        pipeline.generate(bundle.request(prompt="red apple", seed=1))
    assert caught.value.hint


def test_a_refiner_is_refused(bundle):
    with pytest.raises(BundleError, match="'pocket' is a refiner"):
        check_draws(replace(bundle.manifest, family="sdxl-refiner"))


@pytest.mark.parametrize("dim", [3, 1 << 20])
def test_an_embedding_that_cannot_be_made_is_refused(bundle, dim):
    with pytest.raises(BundleError, match="guidance scale in"):
        check_draws(with_input(bundle.manifest, "timestep_cond", "batch", dim))


def test_a_consistency_model_runs_one_half_and_is_told_the_scale(bundle):
    manifest = with_input(bundle.manifest, "timestep_cond", "batch", 8)
    told = []

    class Watching(FakeBackend):
        def load(self, model, shapes, *, identity=""):
            session = super().load(model, shapes, identity=identity)
            if "timestep_cond" in shapes:
                told.append(shapes["sample"][0])
                run = session.run
                session.run = lambda inputs: told.append(inputs["timestep_cond"]) or run(inputs)
            return session

    pipeline = Pipeline(replace(bundle, manifest=manifest), Watching())
    list(pipeline.generate(bundle.request(prompt="a", seed=1, steps=1, guidance_scale=5.0)))
    list(pipeline.generate(bundle.request(prompt="a", seed=1, steps=1, guidance_scale=2.0)))
    halves, first, second = told
    assert halves == 1
    assert first.shape == (1, 8)
    assert abs(first - second).max() > 0.1
