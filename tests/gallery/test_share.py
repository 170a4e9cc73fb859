"""The share dialog: what it shows is what leaves, a ticket works once, and it is noted."""

import io
import re
import zipfile

import pytest
from PIL import Image

from tests.safelight.sharing.chunks import parts


def ways(state, record_id):
    return [note["way"] for note in state.vault.get(record_id).metadata["disclosed"]]


@pytest.fixture
def ids(client, state):
    return [record.id for record in state.vault.list(limit=3)]


def asked(ids, **more):
    return {"ids": ",".join(ids), "profile": "strip", "format": "png", "redactions": ""} | more


def test_the_dialog_is_for_pictures_that_are_there(client, ids):
    assert "Share a picture" in client.get(f"/share/{ids[0]}").text
    assert "Share 3 pictures" in client.get(f"/share/{','.join(ids)}").text
    for wrong in ("0" * 32, "x", f"{ids[0]},nothing"):
        assert client.get(f"/share/{wrong}").status_code == 404
    many = ",".join(f"{k:032x}" for k in range(401))
    assert client.post("/share/preview", data=asked([many])).status_code == 422


def test_what_is_shown_is_what_leaves_and_only_the_download_is_noted(client, state, ids):
    form = asked(ids[:1], profile="full", redactions="red\n apple ")
    shown = client.post("/share/preview", data=form).text
    assert "DigitalSourceType" in shown
    assert "apple" not in shown
    size = int(re.search(r"([\d,]+) bytes", shown)[1].replace(",", ""))
    assert ways(state, ids[0]) == []
    address = client.post("/share/ticket", data=form).json()["address"]
    assert ways(state, ids[0]) == []
    given = client.get(address)
    assert given.headers["content-disposition"] == 'attachment; filename="picture.png"'
    assert given.headers["cache-control"] == "no-store"
    assert len(given.content) == size
    assert [name for name, _ in parts(given.content)] == ["iTXt", "tEXt"]
    assert ways(state, ids[0]) == ["share"]
    assert client.get(address).status_code == 404
    assert ways(state, ids[0]) == ["share"]


def test_many_leave_as_one_zip(client, state, ids):
    second = client.post("/share/preview", data=asked(ids, place="1")).text
    assert f"/picture/{ids[1]}" in second
    assert f"/picture/{ids[0]}" not in second
    address = client.post("/share/ticket", data=asked(ids, format="webp")).json()["address"]
    given = client.get(address)
    archive = zipfile.ZipFile(io.BytesIO(given.content))
    assert archive.namelist() == ["picture-1.webp", "picture-2.webp", "picture-3.webp"]
    assert parts(archive.read("picture-2.webp")) == []
    assert {tuple(ways(state, each)) for each in ids} == {("zip",)}


@pytest.mark.parametrize(
    "wrong", [{"profile": "all"}, {"format": "gif"}, {"place": "9"}, {"place": "-1"}]
)
def test_wrong_choices_are_one_sentence(client, ids, wrong):
    for path in ("/share/preview",) if "place" in wrong else ("/share/preview", "/share/ticket"):
        said = client.post(path, data=asked(ids, **wrong))
        assert said.status_code == 422
        assert "\n" not in said.text


def test_a_lock_takes_the_tickets_with_it(client, state, ids):
    address = client.post("/share/ticket", data=asked(ids)).json()["address"]
    state.lock()
    assert client.get(address).status_code == 401


@pytest.mark.browser
def test_sharing_as_a_person_does(gallery, state):
    (first, second) = (record.id for record in state.vault.list(limit=2))
    gallery.goto(f"{state.origin}/share/{first},{second}")
    gallery.get_by_text("every lowest bit is rewritten").wait_for()
    gallery.get_by_text("Prompt and settings").click()
    gallery.get_by_text("Sampler: DPM++ 2M").wait_for()
    gallery.get_by_label("Take these words out").fill("AUTUMN")
    gallery.get_by_text("green tree, light").wait_for()
    gallery.get_by_label("Next picture").click()
    gallery.get_by_text("2 of 2").wait_for()
    gallery.get_by_text("JPEG", exact=True).click()
    with gallery.expect_download() as waiting:
        gallery.get_by_role("button", name="Download as a zip").click()
    with zipfile.ZipFile(waiting.value.path()) as archive:
        assert archive.namelist() == ["picture-1.jpg", "picture-2.jpg"]
        with archive.open("picture-1.jpg") as file, Image.open(file) as image:
            assert image.size == (128, 96)
    assert ways(state, first) == ["zip"]
