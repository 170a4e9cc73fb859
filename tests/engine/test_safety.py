"""The safety checker decides as diffusers' does, and what it flags comes out black and says so."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

import safelight
from engine import Bundle, BundleError, FakeBackend, NotFiniteError, Pipeline
from engine.safety import Preparation, SafetyChecker, Thresholds, is_flagged
from tests.engine.companion_bundle import with_companions
from tests.engine.test_pipeline import CountingBackend, draw, request
from tests.export.companion_files import tiny_checker

POCKET = Path(safelight.__file__).with_name("models") / "pocket"


@pytest.fixture(scope="module")
def bundle():
    return Bundle.open(POCKET, hash_cache=None)


COUNT = 400  # pictures; enough that special care's 0.01 decides for some


def picture(height, width, seed):
    draw = np.random.default_rng(seed)
    coarse = draw.integers(0, 256, (4, 4, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


# -- preparation -------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(512, 512), (64, 64), (96, 200), (333, 101), (8, 120)])
@pytest.mark.parametrize("config", [{}, {"size": 40, "crop_size": {"height": 33, "width": 33}}])
def test_a_picture_is_prepared_as_transformers_does_it(size, config):
    pixels = picture(*size, seed=sum(size))
    (wanted,) = CLIPImageProcessorPil(**config)(Image.fromarray(pixels)).pixel_values
    got = Preparation.from_config(config).apply(pixels)
    assert got.dtype == np.float32
    # Theirs scales in float64 before it rounds to float32.
    np.testing.assert_allclose(got[0], wanted, atol=1e-5)


def test_every_form_of_the_file_is_read():
    for size in (224, {"shortest_edge": 224}):
        for crop in (224, {"height": 224, "width": 224}):
            found = Preparation.from_config({"size": size, "crop_size": crop, "resample": 3})
            assert found == Preparation.from_config({})


@pytest.mark.parametrize(
    "config",
    [
        {"resample": 2},
        {"rescale_factor": 1.0},
        {"do_center_crop": False},
        {"size": {"height": 224, "width": 224}},
        {"crop_size": {"height": 224, "width": 200}},
        {"crop_size": 300},
        {"size": 0},
        {"size": 10**6, "crop_size": 10**6},
        {"image_mean": [0.5, 0.5]},
        {"image_std": [0.5, 0.0, 0.5]},
    ],
    ids=str,
)
def test_what_is_prepared_otherwise_is_refused(config):
    with pytest.raises(BundleError):
        Preparation.from_config(config)


# -- decision ----------------------------------------------------------------------------------


def test_the_decision_is_the_reference_s_on_both_sides_of_its_thresholds():
    checker = tiny_checker(seed=3)
    draw = torch.Generator().manual_seed(4)
    inputs = torch.randn((COUNT, 3, 32, 32), generator=draw)
    cosines = cosines_of(checker, inputs)
    # Each concept flags a few pictures, and special care (which lowers the others) more of them.
    checker.concept_embeds_weights.data = torch.quantile(cosines[0], 0.98, dim=0)
    checker.special_care_embeds_weights.data = torch.quantile(cosines[1], 0.8, dim=0)
    thresholds = Thresholds(
        concepts=tuple(checker.concept_embeds_weights.tolist()),
        special_care=tuple(checker.special_care_embeds_weights.tolist()),
    )
    with torch.inference_mode():
        _, wanted = checker(clip_input=inputs, images=np.ones((COUNT, 2, 2, 3)))
    got = [is_flagged(*(each[k].numpy() for each in cosines), thresholds) for k in range(COUNT)]
    assert got == wanted
    assert COUNT / 10 < sum(got) < COUNT * 9 / 10
    alone = Thresholds(concepts=thresholds.concepts, special_care=())
    careless = [is_flagged(each.numpy(), np.float32([]), alone) for each in cosines[0]]
    assert sum(careless) < sum(got)  # so special care took part


def cosines_of(checker, inputs):
    from export.companion_modules import CALLS

    with torch.inference_mode():
        return CALLS["safety_checker"](checker, {"clip_input": inputs})


@pytest.mark.parametrize(
    ("special", "concept", "flagged"),
    [
        (0.0, 0.5004, False),  # 0.0004 rounds to 0, which is not more than 0
        (0.0, 0.5006, True),
        (0.9, 0.4906, True),  # near special care: 0.01 stricter
        (0.9, 0.4894, False),
    ],
)
def test_rounding_and_special_care_are_the_reference_s(special, concept, flagged):
    thresholds = Thresholds(concepts=(0.5,), special_care=(0.8,))
    found = is_flagged(np.float32([concept]), np.float32([special]), thresholds)
    assert found is flagged


# -- in the pipeline ---------------------------------------------------------------------------


@pytest.fixture
def companions(bundle, tmp_path):
    return with_companions(bundle, tmp_path, threshold=0.5)


def test_a_flagged_picture_is_black_and_says_so(companions):
    near = FakeBackend(concept_cosine=0.6)
    ((flagged,), _) = draw(Pipeline(companions, near), request(companions))
    assert flagged.flagged
    assert flagged.pixels.shape == (128, 128, 3)
    assert not flagged.pixels.any()
    ((plain,), _) = draw(Pipeline(companions, FakeBackend(concept_cosine=0.4)), request(companions))
    assert not plain.flagged
    assert plain.pixels.any()


def test_the_checker_can_be_left_out(companions):
    backend = CountingBackend(FakeBackend(concept_cosine=0.6))
    ((picture,), _) = draw(Pipeline(companions, backend, check_safety=False), request(companions))
    assert not picture.flagged
    assert picture.pixels.any()
    assert backend.runs["safety_checker"] == 0


def test_the_checker_runs_in_fp32_whatever_draws(companions):
    backend = CountingBackend(FakeBackend(precision="bf16"))
    draw(Pipeline(companions, backend), request(companions, count=2))
    assert backend.runs["safety_checker"] == 0
    (exact,) = backend.repairs
    assert (exact.precision, exact.runs) == ("fp32", {"safety_checker": 2})


def test_a_checker_that_gives_nan_lets_nothing_pass(companions):
    broken = FakeBackend(concept_cosine=float("nan"))
    with pytest.raises(NotFiniteError, match="not judged"):
        draw(Pipeline(companions, broken), request(companions))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("feature_extractor/preprocessor_config.json", {}, "224x224"),
        ("safety_checker/config.json", {"concept_embeds_weights": [0.5] * 17}, "lacks"),
        (
            "safety_checker/config.json",
            {"concept_embeds_weights": [0.5], "special_care_embeds_weights": [0.5] * 3},
            "17 needed",
        ),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused_when_it_is_opened(companions, name, value, said):
    (companions.path / name).write_text(json.dumps(value))
    with pytest.raises(BundleError, match=said):
        SafetyChecker(companions)
