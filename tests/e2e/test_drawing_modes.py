"""Each way to draw, by the real command and pocket: on a picture, twice, varied, quicker."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from tests.e2e.command import QUICK, make_home


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return make_home(tmp_path_factory.mktemp("home") / "home")


@pytest.fixture(scope="module")
def first(home):
    (made,) = home.lines("generate", "red apple", "--seed", "7", *QUICK)
    return made["id"]


def pixels(home, record_id):
    with home.opened() as vault, Image.open(BytesIO(vault.read(record_id, "picture"))) as image:
        return np.asarray(image.convert("RGB")).astype(float)


def distance(home, one, other):
    return np.abs(pixels(home, one) - pixels(home, other)).mean()


def test_a_record_s_picture_is_drawn_anew_by_its_strength(home, first):
    shown, far = {}, {}
    for strength in ("0.5", "1"):
        words = ("--init", first[:12], "--strength", strength, "--seed", "3")
        (made,) = home.lines("generate", "blue apple", *words, *QUICK)
        (shown[strength],) = home.lines("show", made["id"])
        far[strength] = distance(home, first, made["id"])
    assert [each["parent"] for each in shown.values()] == [first, first]
    assert shown["0.5"]["settings"]["strength"] == 0.5
    assert set(shown["0.5"]["blobs"]) == {"picture", "thumbnail", "init"}
    assert 1.0 < far["0.5"] < far["1"]


def test_a_mask_leaves_every_byte_around_it(home, first):
    mask = np.zeros((128, 128), np.uint8)
    mask[32:96, 32:96] = 255
    Image.fromarray(mask).save(home.path / "mask.png")
    words = ("--init", first[:12], "--mask", str(home.path / "mask.png"), "--strength", "1")
    (made,) = home.lines("generate", "blue cat face", *words, "--seed", "3", *QUICK)
    before, after = pixels(home, first), pixels(home, made["id"])
    assert np.array_equal(before[mask == 0], after[mask == 0])
    assert np.abs(before - after)[mask > 0].mean() > 5.0
    (shown,) = home.lines("show", made["id"])
    assert {"init", "mask"} < set(shown["blobs"])


def test_a_second_pass_is_larger_and_a_variation_is_near(home, first):
    words = ("--hires-scale", "2", "--hires-upscaler", "lanczos", "--hires-strength", "0.5")
    (large,) = home.lines("generate", "red apple", "--seed", "7", *words, *QUICK)
    assert pixels(home, large["id"]).shape == (256, 256, 3)
    words = ("--variation-seed", "5", "--variation-strength", "0.1", "-n", "2")
    varied = home.lines("generate", "red apple", "--seed", "7", *words, *QUICK)
    (other,) = home.lines("generate", "red apple", "--seed", "8", *QUICK)
    near = [distance(home, first, each["id"]) for each in varied]
    assert 0.0 < max(near) < distance(home, first, other["id"])


def test_a_preset_and_a_prompt_that_changes_are_in_the_record(home, first):
    (made,) = home.lines("generate", "[red:blue:0.5] (apple:1.2)", "--preset", "balanced")
    (shown,) = home.lines("show", made["id"])
    assert shown["prompt"] == "[red:blue:0.5] (apple:1.2)"
    assert (shown["settings"]["guidance_start"], shown["settings"]["steps"]) == (0.1, 12)
    assert distance(home, first, made["id"]) > 0.0


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (("--sampler", "eular"), 2, "did you mean 'euler'"),
        (("--init", "FIRST", "--mask", "SMALL"), 2, "mask"),
        (("--init", "TEXT"), 2, "TEXT"),
        (("--device", "cuda:7"), 7, "hint:"),
        (("--model", "pocke"), 6, "did you mean 'pocket'"),
    ],
)
def test_what_cannot_be_drawn_is_a_sentence_and_leaves_nothing(home, first, words, status, says):
    Image.new("L", (32, 32), 255).save(home.path / "small.png")
    (home.path / "text.png").write_text("no picture")
    places = {"FIRST": first, "SMALL": "small.png", "TEXT": "text.png"}
    before = home.lines("ls")
    done = home.run(
        "generate", "secretive", *(places.get(each, each) for each in words), status=status
    )
    assert places.get(says, says) in done.stderr
    assert len([each for each in done.stderr.splitlines() if each.startswith("safelight: ")]) == 1
    assert "secretive" not in done.stderr
    assert home.lines("ls") == before
