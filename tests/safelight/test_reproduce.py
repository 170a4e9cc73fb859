"""A sealed picture is made again from its record alone, and what differs is named."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import safelight
from engine import Bundle, FakeBackend, PeakMemory, Picture, Pipeline
from engine.devicenames import parse_device
from engine.inputs import Inputs
from safelight.drafts import picture_draft
from safelight.exits import ExitStatus, exit_status
from safelight.pixels import PICTURE_TYPE, encode_picture
from safelight.recipe import MEANT_THEN, RecipeError, read_recipe
from safelight.records import attempt_metadata, picture_metadata
from safelight.reproduce import (
    MissingModelError,
    compare,
    differences,
    find_bundle,
    find_choice,
    open_original,
)
from safelight.shelf import Shelf
from vault import BlobDraft, Draft, Kind, MemoryKeyStore, create

POCKET = Path(safelight.__file__).with_name("models") / "pocket"


@pytest.fixture(scope="module")
def bundle():
    return Bundle.open(POCKET, hash_cache=None)


@pytest.fixture
def vault(tmp_path):
    store = MemoryKeyStore()
    with create(tmp_path / "vault", keystore=store, confirm=lambda phrase: None) as opened:
        yield opened


def draw(bundle, request, backend=None):
    events = Pipeline(bundle, backend or FakeBackend()).generate(request)
    return [event for event in events if isinstance(event, Picture)]


def request(bundle, **given):
    return bundle.request(**{"prompt": "red apple", "seed": 5, "steps": 3} | given)


def seal(vault, picture, inputs=(), **changed):
    """Seal a picture whose settings are changed as an older or newer version would have them."""
    draft = picture_draft(picture, {}, inputs)
    draft.metadata["settings"].update(changed)
    return vault.add([draft])[0].id


@pytest.mark.parametrize(
    ("backend", "device", "asked"),
    [
        ("onnxruntime", "CPU", "onnxruntime:CPU"),
        ("onnxruntime", "cuda:1", "cuda:1"),
        ("onnxruntime-tensorrt", "cuda:0", "onnxruntime:TENSORRT.0"),
        ("tensorrt", "cuda:2", "tensorrt:2"),
        ("torch", "cuda:0", "torch:CUDA.0"),
        ("torch", "CPU", "torch:CPU"),
        ("openvino", "GPU.1", "openvino:GPU.1"),
        ("onnxruntime", "DirectML:0", "directml:0"),
    ],
)
def test_the_device_of_a_record_is_one_that_can_be_asked_for(bundle, vault, backend, device, asked):
    (picture,) = draw(bundle, request(bundle))
    made = replace(picture, backend=backend, device=device)
    recipe = open_original(vault, seal(vault, made)).recipe
    assert recipe.device == asked
    assert str(parse_device(recipe.device)) == asked


SETTINGS = [
    {},
    {"seed": 0},
    {"seed": 2**63 - 1},
    {"sampler": "euler_a", "eta": 0.25, "noise": "philox"},
    {"negative_prompt": "leaf, 'quoted'\n", "guidance_scale": 1.0},
    {"sampler": "heun", "schedule": "karras", "width": 64, "height": 96},
]


@pytest.mark.parametrize("given", SETTINGS, ids=str)
def test_the_record_gives_the_request_back_and_it_draws_the_same(bundle, vault, given):
    (picture,) = draw(bundle, request(bundle, **given))
    original = open_original(vault, seal(vault, picture))
    assert original.recipe.request == picture.request
    (again,) = draw(bundle, original.recipe.request)
    likeness = compare(original.pixels, again.pixels)
    assert (likeness.equal, likeness.psnr, likeness.largest) == (True, math.inf, 0)
    assert differences(original.record.metadata, again) == []


def test_one_of_many_is_made_again_alone(bundle, vault):
    pictures = draw(bundle, request(bundle, sampler="euler_a", count=3))
    original = open_original(vault, seal(vault, pictures[2]))
    assert (original.recipe.request.seed, original.recipe.request.count) == (7, 1)
    (again,) = draw(bundle, original.recipe.request)
    assert compare(original.pixels, again.pixels).equal


def test_a_record_without_a_newer_setting_means_what_it_meant(bundle, vault):
    (picture,) = draw(bundle, request(bundle))
    draft = picture_draft(picture, {}, ())
    for name in ("decoder", "noise", *MEANT_THEN):
        draft.metadata["settings"].pop(name, None)
    recipe = open_original(vault, vault.add([draft])[0].id).recipe
    then = {name: value for name, value in MEANT_THEN.items() if hasattr(picture.request, name)}
    assert recipe.request == replace(picture.request, **then)
    assert (recipe.request.decoder, recipe.request.noise) == ("vae", "torch")


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"fields_of_tomorrow": 1}, "a setting 'fields_of_tomorrow' that this version"),
        ({"sampler": "magic"}, "unknown sampler 'magic'"),
        ({"width": "wide"}, "width is of type str"),
        ({"guidance_scale": "much"}, "another form"),
        ({"eta": None}, "another form"),
    ],
    ids=str,
)
def test_settings_that_cannot_be_understood_are_refused(bundle, vault, changed, says):
    (picture,) = draw(bundle, request(bundle, prompt="a canary"))
    with pytest.raises(RecipeError, match=says) as raised:
        open_original(vault, seal(vault, picture, **changed))
    assert exit_status(raised.value) == ExitStatus.USAGE
    assert "canary" not in f"{raised.value!r} {raised.value.hint} {raised.value.__cause__!r}"


def test_what_is_no_picture_is_refused(bundle, vault):
    metadata = attempt_metadata(request(bundle), "pocket", "cancelled")
    (attempt,) = vault.add([Draft(kind=Kind.ATTEMPT, metadata=metadata, blobs=())])
    with pytest.raises(RecipeError, match="no picture that was drawn here"):
        open_original(vault, attempt.id)


def test_pictures_that_went_in_come_back_in_their_order(bundle, vault):
    rng = np.random.default_rng(3)
    init, *controls = rng.integers(0, 256, (3, 16, 24, 3), dtype=np.uint8)
    mask = rng.integers(0, 256, (16, 24), dtype=np.uint8)
    named = {"control-1": controls[1], "control-0": controls[0], "init": init}
    blobs = [
        BlobDraft(name=name, kind=Kind.INPUT, media_type=PICTURE_TYPE, data=encode_picture(pixels))
        for name, pixels in named.items()
    ]
    grey = encode_picture(np.repeat(mask[..., None], 3, axis=2))
    blobs.append(BlobDraft(name="mask", kind=Kind.INPUT, media_type=PICTURE_TYPE, data=grey))
    (picture,) = draw(bundle, request(bundle))
    record = vault.get(seal(vault, picture, blobs))
    got = read_recipe(record, lambda name: vault.read(record.id, name)).inputs
    assert isinstance(got, Inputs)
    assert np.array_equal(got.init, init)
    assert np.array_equal(got.mask, mask)
    assert len(got.controls) == 2
    assert all(np.array_equal(*each) for each in zip(got.controls, controls, strict=True))


@pytest.mark.parametrize(
    ("backend", "device", "asked"),
    [
        ("openvino", "CPU", "openvino:CPU"),
        ("openvino", "GPU.1", "openvino:GPU.1"),
        ("onnxruntime", "CPU", "onnxruntime:CPU"),
        ("onnxruntime", "CoreML", "coreml"),
        ("onnxruntime", "DirectML:1", "directml:1"),
    ],
)
def test_the_device_of_then_is_asked_for_by_its_name(bundle, vault, backend, device, asked):
    (picture,) = draw(bundle, request(bundle))
    picture = replace(picture, backend=backend, device=device)
    recipe = open_original(vault, seal(vault, picture)).recipe
    assert recipe.device == asked


def test_a_device_that_is_not_here_is_replaced_aloud_and_one_asked_for_is_not(bundle, vault):
    (picture,) = draw(bundle, request(bundle))
    picture = replace(picture, backend="openvino", device="GPU.7", precision="fp16")
    recipe = open_original(vault, seal(vault, picture)).recipe
    choice = find_choice(recipe, None, None, None)
    assert choice.backend.device == "CPU"
    assert "not on openvino:GPU.7 in fp16 as then: OpenVINO finds no GPU.7" in choice.reason
    same = find_choice(
        replace(recipe, device="onnxruntime:CPU", precision="fp32"), None, None, None
    )
    assert (same.backend.name, same.backend.precision) == ("onnxruntime", "fp32")
    with pytest.raises(Exception, match=r"finds no GPU\.7") as raised:
        find_choice(recipe, "openvino:GPU.7", None, None)
    assert exit_status(raised.value) == ExitStatus.DEVICE


def test_a_model_that_is_gone_or_another_one(bundle, vault, tmp_path):
    (picture,) = draw(bundle, request(bundle))
    shelf = Shelf(tmp_path / "models", tmp_path / "cache")
    recipe = open_original(vault, seal(vault, picture)).recipe
    assert find_bundle(shelf, recipe).hash == recipe.model_hash
    enlarged = replace(recipe.request, upscaler="gone")
    for changed in ({"model": "gone"}, {"request": enlarged}):
        with pytest.raises(MissingModelError, match="'gone' that drew this") as raised:
            find_bundle(shelf, replace(recipe, **changed))
        assert exit_status(raised.value) == ExitStatus.NOT_FOUND


def test_one_of_a_batch_says_that_it_is_made_again_alone(bundle, vault):
    pictures = draw(bundle, request(bundle, count=3, batch_size=3))
    original = open_original(vault, seal(vault, pictures[1]))
    (again,) = draw(bundle, original.recipe.request)
    assert compare(original.pixels, again.pixels).equal  # the fake does not round
    (each,) = differences(original.record.metadata, again)
    assert (each.what, each.then, each.now) == ("batch_size", 3, 1)


def test_what_differs_is_named_with_then_and_now(bundle):
    (picture,) = draw(bundle, request(bundle))
    then = json.loads(json.dumps(picture_metadata(picture)))
    then |= {"model_hash": "0" * 64, "precision": "bf16", "repairs": ["decode in fp32"]}
    then["libraries"] |= {"numpy": "1.0", "gone": "2.0"}
    del then["backend"]  # an older record
    found = {each.what: (each.then, each.now) for each in differences(then, picture)}
    assert found == {
        "model_hash": ("0" * 64, bundle.hash),
        "precision": ("bf16", "fp32"),
        "repairs": (["decode in fp32"], []),
        "numpy": ("1.0", np.__version__),
        "gone": ("2.0", ""),
    }


def test_a_record_of_before_peaks_were_kept_draws_the_same(bundle, vault):
    (picture,) = draw(bundle, request(bundle))
    draft = picture_draft(picture, {}, ())
    del draft.metadata["peak_memory"]
    original = open_original(vault, vault.add([draft])[0].id)
    assert original.recipe.request == picture.request
    assert differences(original.record.metadata, picture) == []
    # and how much memory it took makes no picture another one
    less = replace(picture, peak_memory=PeakMemory(of="vram", load=1))
    assert differences(picture_metadata(picture), less) == []


def test_likeness_is_the_textbooks():
    black = np.zeros((8, 8, 3), np.uint8)
    one = black.copy()
    one[0, 0, 0] = 1
    assert compare(black, one).largest == 1
    assert not compare(black, one).equal
    # mean squared error 1 / 192
    assert compare(black, one).psnr == pytest.approx(20 * math.log10(255) + 10 * math.log10(192))
    white = np.full((8, 8, 3), 255, np.uint8)
    assert (compare(black, white).psnr, compare(white, black).largest) == (0.0, 255)
    other = compare(black, white[:4])
    assert (other.equal, math.isnan(other.psnr)) == (False, True)
