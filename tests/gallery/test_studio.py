"""The studio's requests without a browser: forms, uploads, ways on from a picture, the kit."""

import io
import json
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine import FakeBackend
from safelight.gallery.making import making_of
from safelight.gallery.pages import queue
from safelight.shelf import Shelf
from safelight.workshop import Pipelines, State
from vault import Kind, PassphraseUnlock, open_vault, passphrase_secret

LONG = 60.0
PASSPHRASE = "correct horse battery staple"  # of conftest's vault


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    home = tmp_path_factory.mktemp("shelf")
    return Shelf(home / "models", home / "cache")


@pytest.fixture
def backend():
    return FakeBackend()


@pytest.fixture
def studio(client, state, shelf, backend):
    """Give a client of an open gallery whose pictures the fake draws."""
    state.making.open_pipelines = lambda: Pipelines(shelf, lambda: backend)
    return client


@pytest.fixture
def workshop(studio, state):
    return making_of(state).workshop


def post(client, path, **asked):
    return client.post(path, json=asked)


def made(client, workshop, **asked):
    """Submit a form and wait for its pictures."""
    answer = post(client, "/studio/submit", **({"model": "pocket"} | asked))
    assert answer.status_code == 200, answer.text
    job = workshop.wait(answer.json()["job"], LONG)
    assert job.state is State.DONE
    return job.made


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def lay(client, pixels):
    answer = client.post("/studio/picture", content=png(pixels))
    assert answer.status_code == 200, answer.text
    return answer.json()["name"]


FIELDS = {"prompt": "red apple", "seed": "7", "steps": "3"}


def test_a_form_becomes_sealed_pictures_and_empty_fields_are_the_models_own(
    studio, workshop, state
):
    ids = made(studio, workshop, fields=FIELDS | {"count": "2", "sampler": ""})
    records = [state.vault.get(each) for each in ids]
    assert [r.metadata["settings"]["seed"] for r in records] == [7, 8]
    assert {r.metadata["settings"]["sampler"] for r in records} == {"dpmpp_2m"}
    listed = studio.get("/events/standing").json()
    assert listed["made"] == list(ids)
    assert studio.get(f"/events/thumbnail/{ids[0]}").content[8:12] == b"WEBP"


REFUSED = [
    ({"fields": FIELDS | {"width": "13"}}, "width", "multiple of 8"),
    ({"fields": FIELDS | {"steps": "many"}}, "steps", "whole number"),
    ({"fields": FIELDS | {"sampler": "eular"}}, "sampler", "did you mean 'euler'"),
    ({"fields": FIELDS | {"sampler": "lcm", "steps": "60"}}, "steps", "50"),
    ({"fields": {"prompt": "  "}}, "prompt", "empty"),
    ({"fields": FIELDS | {"prompt": "a __fruit__"}}, "prompt", "no word list 'fruit'"),
    ({"fields": FIELDS, "model": "poket"}, "model", "did you mean 'pocket'"),
    ({"fields": FIELDS, "init": "0" * 32}, "init", "no longer in memory"),
    ({"fields": FIELDS, "parent": "nothing"}, "init", "record's id"),
]


def test_a_refusal_is_the_engines_sentence_and_names_its_field(studio, workshop):
    for asked, field, says in REFUSED:
        answer = post(studio, "/studio/submit", **({"model": "pocket"} | asked))
        assert answer.status_code == 422, says
        told = answer.json()
        assert told["field"] == field, says
        assert says in f"{told['message']} {told['hint']}"
        assert "--" not in told["hint"]
    assert workshop.jobs == ()


def test_what_is_no_form_is_refused(studio):
    for body in (["no object"], {"fields": "none"}, {"fields": {}, "model": 5}, {"styles": 5}):
        assert studio.post("/studio/submit", json=body).status_code == 422
    assert studio.post("/studio/submit", content=b"{}").status_code == 415


def test_tokens_are_counted_as_the_engine_reads_them_and_the_form_stays(studio, state):
    fields = {"prompt": "(red:1.3) apple BREAK blue", "negative_prompt": "leaf"}
    counted = post(studio, "/studio/tokens", model="pocket", fields=fields).json()
    assert counted["prompt"] == {"tokens": 3, "room": 30, "chunks": 2}
    assert counted["negative_prompt"]["tokens"] == 1
    assert "BREAK blue" in studio.get("/studio").text
    state.lock()
    state.adopt(open_vault(state.settings.vault, PassphraseUnlock(passphrase_secret(PASSPHRASE))))
    assert "BREAK blue" not in studio.get("/studio").text


def test_a_painted_mask_goes_in_with_its_picture_and_both_are_sealed(studio, workshop, state):
    (parent,) = made(studio, workshop, fields=FIELDS)
    mask = np.zeros((128, 128, 3), np.uint8)
    mask[32:96, 32:96] = 255
    name = lay(studio, mask)
    (child,) = made(
        studio, workshop, fields=FIELDS | {"steps": "5"}, init="record", mask=name, parent=parent
    )
    record = state.vault.get(child)
    assert record.metadata["parent"] == parent
    assert {"init", "mask"} <= set(record.blobs)
    assert bytes(state.vault.read(child, "init")) == bytes(state.vault.read(parent, "picture"))
    small = lay(studio, mask[::2])
    again = {"model": "pocket", "fields": FIELDS, "init": "record", "parent": parent}
    assert "of another size" in post(studio, "/studio/submit", mask=small, **again).text
    shown = studio.get(f"/studio/picture/{name}")
    assert shown.headers["content-type"] == "image/png"
    # from the child: what went in lies on the desk again, under the picture that it was made of
    same = studio.get(f"/studio/from/{child}/same").json()
    assert same["parent"] == parent
    assert studio.get(f"/studio/picture/{same['mask']}").status_code == 200


def test_uploads_are_bounded_and_only_pictures(studio, state, tmp_path):
    assert studio.post("/studio/picture", content=b"no picture").status_code == 422
    assert studio.post("/studio/picture", content=b"0" * ((32 << 20) + 1)).status_code == 413
    bomb = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(bomb, "PNG")
    answer = studio.post("/studio/picture", content=bomb.getvalue())
    assert answer.status_code == 422
    assert "more than" in answer.json()["message"]
    desk = making_of(state).desk
    names = [lay(studio, np.zeros((8, 8, 3), np.uint8)) for _ in range(20)]
    assert studio.get(f"/studio/picture/{names[0]}").status_code == 422  # made room
    desk.clear()
    assert studio.get(f"/studio/picture/{names[-1]}").status_code == 422


@pytest.mark.parametrize(
    ("way", "expected"),
    [
        ("again", {"seed": "", "steps": 3}),
        ("same", {"seed": 7}),
        ("remix", {"seed": "", "strength": 0.6}),
        ("variations", {"seed": 7, "variation_strength": 0.25, "count": 4}),
        ("upscale", {"width": 256, "height": 256, "strength": 0.35}),
    ],
)
def test_every_way_on_from_a_picture_fills_a_form_that_can_be_made(
    studio, workshop, state, way, expected
):
    (parent,) = made(studio, workshop, fields=FIELDS)
    filled = studio.get(f"/studio/from/{parent}/{way}").json()
    assert expected.items() <= filled["fields"].items()
    assert 'data-filled=\'{"fields":' in studio.get(f"/studio?from={parent}&as={way}").text
    filled["fields"]["steps"] = 5
    ids = made(studio, workshop, **{key: filled[key] for key in ("fields", "init", "parent")})
    first = state.vault.get(ids[0]).metadata
    assert first.get("parent", "") == ("" if way in {"again", "same"} else parent)
    assert len(ids) == expected.get("count", 1)


def test_same_is_the_same_picture_to_the_bit(studio, workshop, state):
    (parent,) = made(studio, workshop, fields=FIELDS | {"sampler": "euler_a", "preset": "draft"})
    filled = studio.get(f"/studio/from/{parent}/same").json()
    (again,) = made(studio, workshop, fields=filled["fields"])
    assert state.vault.read(parent, "picture") == state.vault.read(again, "picture")


def test_a_picture_of_a_model_that_is_gone_says_so_and_one_from_elsewhere_can_be_begun_with(
    studio, state, workshop
):
    (parent,) = made(studio, workshop, fields=FIELDS)
    assert studio.get(f"/studio/from/{parent}/sideways").status_code == 422
    assert studio.get(f"/studio/from/{'0' * 32}/same").status_code == 404
    state.vault.edit(parent, lambda metadata: metadata | {"model": "gone"})
    filled = studio.get(f"/studio/from/{parent}/same").json()
    assert (filled["model"], "not on the shelf" in filled["note"]) == ("", True)
    state.vault.edit(parent, lambda metadata: metadata | {"settings": {"width": 8}})
    filled = studio.get(f"/studio/from/{parent}/same").json()
    assert filled["init"] == "record"
    assert filled["fields"]["prompt"] == "red apple"


def test_events_are_told_until_the_lock_and_the_page_can_follow(studio, state, workshop):
    def work():
        while not workshop.feed.is_heard:
            pass
        made(studio, workshop, fields=FIELDS | {"steps": "6"})
        state.lock()

    thread = threading.Thread(target=work)
    thread.start()
    answer = studio.get("/events")
    thread.join()
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-store"
    events = [each.split("\n") for each in answer.text.split("\n\n") if each.startswith("event")]
    names = [event[0].removeprefix("event: ") for event in events]
    assert {"queue", "step", "sealed"} <= set(names)
    assert names[-1] == "closed"
    steps = [json.loads(e[1].removeprefix("data: ")) for e in events if e[0] == "event: step"]
    assert steps[-1]["steps"] == 6
    assert steps[-1]["left"].endswith("s")
    assert studio.get("/events").status_code == 401


def test_a_listener_too_many_is_refused(studio, workshop):
    open_ones = [workshop.feed.listen(lambda: None) for _ in range(queue.MAX_LISTENERS)]
    for each in open_ones:
        each.__enter__()
    assert studio.get("/events").status_code == 503


def test_the_queue_is_shown_paused_resumed_and_emptied(studio, workshop, state):
    assert studio.post("/studio/queue/pause").status_code == 204
    ids = [
        post(studio, "/studio/submit", model="pocket", fields=FIELDS).json()["job"] for _ in "ab"
    ]
    shown = studio.get("/events/queue").text
    assert shown.count('data-state="waiting"') == 2
    assert "red apple" in shown
    assert studio.get("/events/standing").json()["waiting"] == 2
    assert studio.post(f"/studio/job/{ids[0]}/cancel").status_code == 204
    assert studio.post("/studio/queue/unpause").status_code == 204
    assert workshop.wait(ids[1], LONG).state is State.DONE
    assert studio.get("/events/queue").text.strip() == ""
    for path in ("/studio/queue/burn", f"/studio/job/{ids[0]}/burn", "/events/preview/0"):
        method = studio.get if path.startswith("/events") else studio.post
        assert method(path).status_code == 404
    studio.post("/studio/queue/pause")
    post(studio, "/studio/submit", model="pocket", fields=FIELDS)
    state.lock()
    state.adopt(open_vault(state.settings.vault, PassphraseUnlock(passphrase_secret(PASSPHRASE))))
    shown = studio.get("/events/queue").text
    assert "Go on with 1" in shown
    assert "waited when the vault was locked" in shown
    assert studio.post("/studio/queue/resume").status_code == 204
    (job,) = making_of(state).workshop.jobs or making_of(state).workshop.ended
    assert making_of(state).workshop.wait(job.id, LONG).state is State.DONE
    post(studio, "/studio/submit", model="pocket", fields=FIELDS)
    assert studio.post("/studio/queue/cancel").status_code == 204


def test_the_idle_lock_waits_for_the_queue_only_where_somebody_says_so(client, state, shelf):
    state.making.open_pipelines = lambda: Pipelines(
        shelf, lambda: FakeBackend(seconds_per_run=0.05)
    )
    now = [0.0]
    state._clock = lambda: now[0]
    state.touch()
    post(client, "/studio/submit", model="pocket", fields=FIELDS | {"count": "500"})
    assert "Stay unlocked" in client.get("/events/queue").text
    assert client.post("/studio/queue/stay").status_code == 204
    now[0] += state.idle_seconds + 1
    assert not state.lock_if_idle()
    assert "checked" in client.get("/events/queue").text
    assert client.post("/studio/queue/leave").status_code == 204
    now[0] += state.idle_seconds + 1
    assert state.lock_if_idle()
    assert client.get("/events/queue").status_code == 401


def test_presets_styles_and_word_lists_are_sealed_used_and_removed(studio, workshop, state):
    kept = {"name": "mine", "fields": {"steps": "4", "guidance_scale": "2.5", "prompt": ""}}
    assert studio.post("/studio/kit/preset", json=kept).status_code == 204
    assert studio.post("/studio/kit/preset", json=kept | {"fields": {"steps": "5"}}).is_success
    csv = "name,prompt,negative_prompt\n# old,,\n"
    csv += 'ink,"{prompt}, ink, drawing",colour\nsoft,soft light,'
    answer = studio.post("/studio/kit/styles", content="\ufeff" + csv)
    assert answer.json() == {"kept": 2}
    lines = {"name": "fruit", "lines": "apple\n\n# no\npear\n"}
    assert studio.post("/studio/kit/wordlist", json=lines).status_code == 204
    kit = making_of(state).kit
    assert [dict(each.fields) for each in kit.presets()] == [{"steps": 5, "prompt": ""}]
    assert [each.lines for each in kit.wordlists()] == [("apple", "pear")]
    styles = [each.id for each in kit.styles()]
    page = studio.get("/studio").text
    assert "mine" in page
    assert "__fruit__" in page
    (made_,) = made(studio, workshop, fields=FIELDS | {"prompt": "red __fruit__"}, styles=styles)
    metadata = state.vault.get(made_).metadata
    assert metadata["prompt"] in {f"red {f}, ink, drawing, soft light" for f in ("apple", "pear")}
    assert metadata["negative_prompt"] == "colour"
    assert len(list(state.vault.list(kinds=(Kind.PRESET, Kind.WORDLIST)))) == 4
    for each in (*kit.presets(), *kit.styles(), *kit.wordlists()):
        assert studio.post(f"/studio/kit/remove/{each.id}").status_code == 204
    assert list(state.vault.list(kinds=(Kind.PRESET, Kind.WORDLIST))) == []
    assert studio.post(f"/studio/kit/remove/{made_}").status_code == 204
    assert state.vault.get(made_).id == made_  # a picture is none of the kit


NOT_KEPT = [
    ("preset", {"name": ""}, "a name has"),
    ("style", {"name": "x\ny"}, "a name has"),
    ("wordlist", {"name": "x", "lines": "# none"}, "at least one line"),
    ("wordlist", {"name": "x", "lines": "y" * 950_000}, "at most"),
    ("hat", {"name": "x"}, "kept are"),
    ("preset", ["x"], "JSON object"),
]


def test_what_cannot_be_kept_is_refused(studio):
    for path, body, says in NOT_KEPT:
        answer = studio.post(f"/studio/kit/{path}", json=body)
        assert answer.status_code == 422, says
        assert says in answer.text


def test_a_lost_device_fails_the_job_pauses_the_queue_and_says_why(client, state, shelf):
    backend = FakeBackend(fails_on="latent_sample")
    state.making.open_pipelines = lambda: Pipelines(shelf, lambda: backend)
    workshop = making_of(state).workshop
    job = post(client, "/studio/submit", model="pocket", fields=FIELDS).json()["job"]
    assert workshop.wait(job, LONG).state is State.FAILED
    shown = client.get("/events/queue").text
    assert "Try again" in shown
    assert "was told not to load" in shown
    assert "Paused:" in shown


def test_nothing_of_all_this_is_a_file_in_the_clear(studio, workshop, state, tmp_path):
    canary = "zebrafinch"
    made(studio, workshop, fields=FIELDS | {"prompt": canary})
    lay(studio, np.full((64, 64, 3), 77, np.uint8))
    studio.post("/studio/queue/pause")
    post(studio, "/studio/submit", model="pocket", fields=FIELDS | {"prompt": canary})
    studio.post("/studio/kit/style", json={"name": canary, "prompt": canary})
    state.lock()
    files = [path for path in Path(tmp_path).rglob("*") if path.is_file()]
    assert len(files) > 5
    assert [path for path in files if canary.encode() in path.read_bytes()] == []
