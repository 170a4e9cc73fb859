"""The drop-in APIs by their own clients: openai's package, and webuiapi for AUTOMATIC1111's."""

import base64
import io
import threading
import time
from urllib.parse import urlsplit

import numpy as np
import openai
import pytest
import webuiapi
from PIL import Image

from engine import Choice, FakeBackend
from safelight.gallery.making import making_of
from safelight.shelf import Shelf
from safelight.workshop import Pipelines
from tests.gallery.conftest import PASSPHRASE
from vault import PassphraseUnlock, open_vault, passphrase_secret

TOKEN = "a-token-of-a-test-that-is-long"
SMALL = {"width": 64, "height": 64, "steps": 2}


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    home = tmp_path_factory.mktemp("shelf")
    return Shelf(home / "models", home / "cache")


@pytest.fixture
def backend():
    return FakeBackend()


@pytest.fixture
def origin(served, state, shelf, backend):
    """Give the address of a served, open gallery that answers programs."""
    state.making.open_pipelines = lambda: Pipelines(shelf, lambda: backend)
    state.api_token = TOKEN
    state.adopt(open_vault(state.settings.vault, PassphraseUnlock(passphrase_secret(PASSPHRASE))))
    return state.origin


@pytest.fixture
def openai_client(origin):
    with openai.OpenAI(api_key=TOKEN, base_url=f"{origin}/v1", max_retries=0) as client:
        yield client


@pytest.fixture
def webui(origin):
    api = webuiapi.WebUIApi(
        baseurl=f"{origin}/sdapi/v1", sampler="Euler", steps=2, username="me", password=TOKEN
    )
    yield api
    api.session.close()


def pixels_of(data):
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image)


def newest(state):
    return next(state.vault.list(limit=1))


def test_openai_generates(openai_client, state):
    extra = {"seed": 7, "steps": 2, "negative_prompt": "blurry"}
    made = openai_client.images.generate(
        model="gpt-image-1", prompt="red apple", n=2, size="64x64", extra_body=extra
    )
    assert len(made.data) == 2
    record = newest(state)
    assert record.metadata["model"] == "pocket"
    assert record.metadata["prompt"] == "red apple"
    assert record.metadata["negative_prompt"] == "blurry"
    assert record.metadata["settings"]["seed"] == 8
    assert [note["way"] for note in record.metadata["disclosed"]] == ["api"]
    sealed = bytes(state.vault.read(record.id, "picture"))
    assert base64.b64decode(made.data[1].b64_json) == sealed
    webp = openai_client.images.generate(
        prompt="x", model="pocket", output_format="webp", size="64x64", extra_body={"steps": 2}
    )
    assert base64.b64decode(webp.data[0].b64_json)[:4] == b"RIFF"
    assert "pocket" in [model.id for model in openai_client.models.list()]


def test_openai_edits_what_is_transparent_and_leaves_the_rest(openai_client, state):
    picture = np.full((64, 64, 4), (200, 40, 90, 255), np.uint8)
    mask = picture.copy()
    mask[16:48, 16:48, 3] = 0
    files = []
    for pixels in (picture, mask):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        files.append(("picture.png", buffer.getvalue(), "image/png"))
    sized = {"prompt": "a star", "model": "pocket", "size": "64x64"}
    made = openai_client.images.edit(
        image=files[0], mask=files[1], extra_body={"steps": 2}, **sized
    )
    after = pixels_of(base64.b64decode(made.data[0].b64_json))
    assert after.shape == (64, 64, 3)
    assert (after[:8] == picture[:8, :, :3]).all()
    assert not (after[24:40, 24:40] == picture[24:40, 24:40, :3]).all()
    assert sorted(newest(state).blobs) == ["init", "mask", "picture", "thumbnail"]
    whole = openai_client.images.edit(
        image=files[0], extra_body={"steps": 2, "strength": 0.5}, **sized
    )
    assert pixels_of(base64.b64decode(whole.data[0].b64_json)).shape == (64, 64, 3)
    assert newest(state).metadata["settings"]["strength"] == 0.5


def test_openai_is_told_what_does_not_go(openai_client, state):
    before = newest(state).id
    for wrong, words in (
        ({"size": "63x64"}, "multiple of 8"),
        ({"model": "no-such"}, "no such model"),
        ({"response_format": "url"}, "b64_json"),
        ({"n": 17}, "at most 16"),
    ):
        asked = {"model": "pocket", "prompt": "canary", "size": "64x64"} | wrong
        with pytest.raises(openai.APIStatusError, match=words) as said:
            openai_client.images.generate(**asked)
        assert said.value.status_code == (404 if "model" in wrong else 400)
        assert "canary" not in str(said.value)
    assert newest(state).id == before


def test_nobody_without_the_token_and_nothing_while_locked(openai_client, origin, state):
    stranger = openai_client.with_options(api_key="another-token-of-a-test")
    with pytest.raises(openai.AuthenticationError):
        stranger.models.list()
    state.api_token = ""
    with pytest.raises(openai.AuthenticationError):
        openai_client.with_options(api_key="").models.list()
    state.api_token = TOKEN
    state.lock()
    with pytest.raises(openai.AuthenticationError):
        openai_client.models.list()


def test_webui_draws(webui, state):
    result = webui.txt2img(
        prompt="(red:1.2) apple",
        negative_prompt="blurry",
        seed=1003,
        cfg_scale=5,
        sampler_name="DPM++ 2M",
        scheduler="Karras",
        batch_size=2,
        **SMALL,
    )
    assert len(result.images) == 2
    assert result.info["all_seeds"] == [1003, 1004]
    assert result.info["sampler_name"] == "DPM++ 2M"
    record = newest(state)
    settings = record.metadata["settings"]
    assert (settings["sampler"], settings["schedule"]) == ("dpmpp_2m", "karras")
    assert (settings["guidance_scale"], settings["seed"]) == (5.0, 1004)
    sealed = pixels_of(bytes(state.vault.read(record.id, "picture")))
    assert np.array_equal(np.asarray(result.images[1]), sealed)


def test_webui_paints_on_a_picture(webui, state):
    picture = Image.new("RGB", (80, 64), (200, 40, 90))
    mask = Image.new("L", (80, 64), 0)
    mask.paste(255, (16, 16, 48, 48))
    result = webui.img2img(
        images=[picture], mask_image=mask, prompt="a star", denoising_strength=0.9, **SMALL
    )
    assert result.image.size == (64, 64)  # stretched, as there
    assert (np.asarray(result.image)[:, 60:] == (200, 40, 90)).all()
    assert newest(state).metadata["settings"]["strength"] == 0.9


def test_webui_looks_around(webui):
    assert "DPM++ 2M" in [each["name"] for each in webui.get_samplers()]
    assert "karras" in [each["name"] for each in webui.get_schedulers()]
    assert "pocket" in webui.util_get_model_names()
    assert webui.get_options()["sd_model_checkpoint"] == "pocket"
    assert webui.set_options({"sd_model_checkpoint": "pocket", "other": 1}) is None
    assert webui.get_progress()["progress"] == 0
    picture = Image.new("RGB", (8, 8))
    assert webui.png_info(picture).info == ""


def test_webui_is_told_what_does_not_go(webui, state):
    before = newest(state).id
    for wrong, words in (
        ({"sampler_name": "Restart"}, "unknown sampler"),
        ({"restore_faces": True}, "restore_faces.' is not supported"),
        ({"override_settings": {"sd_model_checkpoint": "gone"}}, "gone"),
        ({"width": 65}, "multiple of 8"),
    ):
        with pytest.raises(RuntimeError, match=words):
            webui.txt2img(**({"prompt": "canary"} | SMALL | wrong))
    assert newest(state).id == before


# The first card is the slow one: later pictures are ready before.
CARDS = Choice(
    backend=FakeBackend(seconds_per_run=0.01), reason="several", others=(FakeBackend(),) * 2
)


@pytest.mark.parametrize("backend", [CARDS], ids=["three"])
def test_pictures_of_several_cards_are_answered_in_the_order_of_their_seeds(webui, state):
    result = webui.txt2img(prompt="red apple", seed=20, batch_size=5, **SMALL)
    assert result.info["all_seeds"] == [20, 21, 22, 23, 24]
    for image, record in zip(result.images, reversed(list(state.vault.list(limit=5))), strict=True):
        sealed = pixels_of(bytes(state.vault.read(record.id, "picture")))
        assert np.array_equal(np.asarray(image.convert("RGB")), sealed)
    assert webui.get_progress()["progress"] == 0


@pytest.mark.parametrize("backend", [FakeBackend(seconds_per_run=0.1)], ids=["slow"])
def test_webui_interrupts(webui, state):
    results = []
    asked = {"prompt": "x", "batch_size": 16} | SMALL | {"steps": 50}
    drawing = threading.Thread(target=lambda: results.append(webui.txt2img(**asked)))
    drawing.start()
    end = time.monotonic() + 30
    while not webui.get_progress()["progress"]:
        assert time.monotonic() < end
    assert webui.interrupt() == {}
    drawing.join(30)
    assert results[0].images == []
    assert making_of(state).workshop.jobs == ()


def test_to_draw_is_use_and_to_ask_is_none(webui, state):
    used = state._used
    webui.get_progress()
    webui.get_samplers()
    assert state._used == used
    webui.txt2img(prompt="x", **SMALL)
    assert state._used > used


def test_a_web_page_gets_nothing_even_with_the_token(origin):
    import http.client

    place = urlsplit(origin)
    for more in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        connection = http.client.HTTPConnection(place.hostname, place.port)
        connection.request("GET", "/v1/models", headers={"Authorization": f"Bearer {TOKEN}"} | more)
        assert connection.getresponse().status == 403
        connection.close()
