"""Files that are dropped: sealed as they are, each answered, none of them on the disk."""

import pytest

from safelight.picturefile import MAX_BYTES
from tests.safelight.importing.samples import SAMPLES


def put(client, data, name="x.png", **headers):
    return client.post("/import/file", content=data, headers={"x-safelight-name": name, **headers})


def test_a_file_is_sealed_as_it_is_once(client, state):
    data = SAMPLES["comfy.png"][0]
    name = "gr%C3%B6%C3%9Fe/%E7%81%AF.png"
    said = put(client, data, name, **{"x-safelight-modified": "1700000000123"}).json()
    assert (said["outcome"], said["program"]) == ("taken", "ComfyUI")
    record = state.vault.get(said["id"])
    assert state.vault.read(record.id, "picture") == data
    assert record.metadata["imported"]["file"] == "größe/灯.png"
    assert record.metadata["imported"]["modified"] == "2023-11-14T22:13:20+00:00"
    assert client.get(f"/picture/{record.id}").headers["content-type"] == "image/png"
    again = put(client, data).json()
    assert again == {"outcome": "duplicate", "id": record.id}
    state.vault.trash([record.id])
    anew = put(client, data).json()
    assert anew["outcome"] == "taken"
    assert anew["id"] != record.id


def test_what_is_no_picture_is_one_sentence_and_too_much_is_not_read(client, state):
    before = len(list(state.vault.list()))
    said = put(client, b"no picture", **{"x-safelight-modified": "never"}).json()
    assert said == {"outcome": "refused", "reason": "it is no picture that can be read"}
    assert put(client, b"").json()["outcome"] == "refused"
    assert put(client, b"", **{"content-length": str(MAX_BYTES + 1)}).status_code == 413
    assert len(list(state.vault.list())) == before


@pytest.mark.browser
def test_importing_as_a_person_does(gallery, state, tmp_path):
    for name in ("a1111.jpg", "comfy.webp"):
        (tmp_path / name).write_bytes(SAMPLES[name][0])
    (tmp_path / "cut.png").write_bytes(SAMPLES["invoke.png"][0][:-30])
    (tmp_path / "notes.txt").write_text("not sent")
    gallery.goto(f"{state.origin}/import")
    gallery.get_by_label("Choose files").set_input_files(
        [each for each in sorted(tmp_path.iterdir()) if each.is_file()]
    )
    gallery.get_by_text("Done: 3 files · 2 sealed · 1 left out").wait_for()
    gallery.get_by_text("AUTOMATIC1111", exact=True).wait_for()
    assert gallery.get_by_text("it is no picture that can be read").is_visible()
    gallery.get_by_text("The originals are where they were").wait_for()
    gallery.goto(f"{state.origin}/")
    gallery.get_by_label("Search the gallery").fill("lighthouse")
    gallery.get_by_text("2 pictures", exact=True).wait_for()
