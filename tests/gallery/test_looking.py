"""One picture, several beside each other, albums, sheets, trash and settings, as a browser asks."""

import io

import numpy as np
import pytest
from PIL import Image

from vault import Kind


@pytest.fixture
def ids(client, state):
    """Give the ids of all pictures, newest first, once the catalogue has them."""
    assert state.expiring.wait(30)  # it may note the time: no test shall see that as its own change
    assert state.catalogue.refresh(30)
    return [record.id for record in state.vault.list()]


def post(client, path, **fields):
    return client.post(path, data=fields)


def metadata(state, record_id):
    return state.vault.get(record_id).metadata


def test_the_page_of_a_picture_says_what_made_it_and_walks_on(client, state, ids):
    text = client.get(f"/detail/{ids[1]}").text
    for part in ("blue house in the snow", "dpmpp_2m", "128 × 96", f'data-before="{ids[0]}"'):
        assert part in text
    assert f'data-after="{ids[2]}"' in text
    assert "2 of 24" in text
    assert "Nothing. Looking here is no copy." in text
    part = client.get(f"/detail/{ids[0]}", headers={"hx-request": "true"}).text
    assert part.lstrip().startswith("<div")
    assert 'data-before=""' in part


def test_peaks_of_memory_are_told_where_the_record_has_them(client, state, ids):
    assert "Memory:" not in client.get(f"/detail/{ids[0]}").text  # as an older version sealed it
    peaks = {"of": "vram", "load": 3 << 30, "text": 0, "denoise": 5 << 20, "decode": "much"}
    state.vault.edit_all({ids[0]: lambda m: m | {"peak_memory": peaks}})
    text = client.get(f"/detail/{ids[0]}").text
    for part in ("Memory: load", "3072 MiB of the card", "Memory: denoise", "5 MiB of the card"):
        assert part in text
    assert "Memory: text" not in text
    assert "Memory: decode" not in text


def test_neighbours_are_those_of_the_search(client, state, ids):
    assert post(client, "/api/search", query="apple").json()["count"] == 8
    apples = [row.id for row in state.catalogue.window("apple", 0, 8)]
    text = client.get(f"/detail/{apples[3]}").text
    assert f'data-before="{apples[2]}"' in text
    assert f'data-after="{apples[4]}"' in text
    other = next(each for each in ids if each not in apples)
    assert 'data-after=""' in client.get(f"/detail/{other}").text


def test_lineage_shows_parents_and_children_and_what_is_gone(client, state, ids):
    state.vault.edit_all(
        {
            ids[0]: lambda m: m | {"parent": ids[1]},
            ids[1]: lambda m: m | {"parent": ids[2]},
            ids[2]: lambda m: m | {"parent": "ab" * 16},
        }
    )
    state.catalogue.refresh()
    text = client.get(f"/detail/{ids[0]}").text
    assert text.index(f"/detail/{ids[2]}") < text.index(f'href="/detail/{ids[1]}"><img')
    assert "no longer in the vault" in text
    assert f'href="/detail/{ids[0]}"' in client.get(f"/detail/{ids[1]}").text


def test_what_is_no_picture_is_not_found(client, state):
    from vault import Draft

    for record_id in ("ab" * 16, "x", "ab" * 200):
        for path in (f"/detail/{record_id}", f"/input/{record_id}/init"):
            assert client.get(path).status_code in (404, 422), path
    (job,) = state.vault.add([Draft(Kind.JOB, {"prompt": "secret"})])
    answer = client.get(f"/detail/{job.id}")
    assert answer.status_code == 404
    assert "secret" not in answer.text


def test_what_went_in_is_shown_by_its_name_alone(client, state):
    from vault import BlobDraft, Draft

    png = io.BytesIO()
    Image.new("L", (8, 8)).save(png, "PNG")
    blobs = [
        BlobDraft("picture", Kind.PICTURE, "image/png", png.getvalue()),
        BlobDraft("mask", Kind.INPUT, "image/png", png.getvalue()),
    ]
    (record,) = state.vault.add([Draft(Kind.PICTURE, {"prompt": "x"}, blobs)])
    assert f"/input/{record.id}/mask" in client.get(f"/detail/{record.id}").text
    answer = client.get(f"/input/{record.id}/mask")
    assert (answer.content, answer.headers["content-type"]) == (png.getvalue(), "image/png")
    for name in ("init", "picture"):
        assert client.get(f"/input/{record.id}/{name}").status_code == 404


LABELS = [
    ("tag", "red\n Blue, not green\n", {"tags": ["red", "Blue, not green"]}),
    ("album", "Holiday", {"albums": ["Holiday"]}),
    ("rating", "4", {"rating": 4}),
    ("favourite", "1", {"favourite": True}),
    ("note", "for the wall", {"note": "for the wall"}),
]


def test_labels_are_sealed_found_and_taken_back(client, state, ids):
    chosen = [ids[2], ids[8]]  # odd ones: without tags
    unset = {"tags": [], "albums": [], "rating": 0, "favourite": False, "note": ""}
    for what, value, expected in LABELS:
        before = [unset | metadata(state, each) for each in chosen]
        answer = post(client, f"/labels/{what}", ids=",".join(chosen), value=value).json()
        assert answer["done"] == 2
        for each, old in zip(chosen, before, strict=True):
            assert unset | metadata(state, each) == old | expected
        state.vault.edit(chosen[0], lambda m: m | {"score": 7.5})
        assert post(client, "/labels/undo", token=answer["undo"]).json() == {"text": "Undone."}
        for each, old in zip(chosen, before, strict=True):
            assert {n: (unset | metadata(state, each))[n] for n in unset} == {
                n: old[n] for n in unset
            }
        assert metadata(state, chosen[0])["score"] == 7.5  # what came after stays
        again = post(client, "/labels/undo", token=answer["undo"])
        assert (again.status_code, again.text) == (422, "this cannot be undone any more")


def test_all_that_a_search_finds_is_labelled_at_once(client, state, ids):
    chosen = {"all": "1", "query": "house", "count": "8"}
    answer = post(client, "/labels/tag", **chosen, value="snow").json()
    assert (answer["done"], state.catalogue.count("tag:snow")) == (8, 8)
    post(client, "/labels/untag", **chosen, value="SNOW")
    assert state.catalogue.count("tag:snow") == 0
    names = dict(client.get("/api/names/tags").json())
    assert names == {"even": 12}


def test_all_is_of_the_search_that_shows_not_of_another_tab_of_the_browser(client, state, ids):
    assert post(client, "/api/search", query="seed:3").json()["count"] == 1
    assert post(client, "/api/search", query="apple").json()["count"] == 8  # the other tab
    chosen = {"all": "1", "query": "seed:3", "count": "1"}
    assert post(client, "/labels/trash", **chosen).json()["done"] == 1
    assert (state.catalogue.count("apple"), state.catalogue.count()) == (7, 23)


@pytest.mark.parametrize("count", ["7", "9", "", "eight"])
def test_all_of_another_number_than_shows_changes_nothing(client, state, ids, count):
    before = state.vault.status().generation
    answer = post(client, "/labels/trash", all="1", query="apple", count=count)
    assert (answer.status_code, "look again" in answer.text) == (409, True)
    assert state.vault.status().generation == before


WRONG = [
    ("trash", {"all": "1"}),
    ("trash", {"all": "1", "query": "apple"}),
    ("trash", {"all": "1", "count": "24"}),
    ("trash", {"all": "1", "query": "rating:many", "count": "24"}),
    ("tag", {"value": ""}),
    ("tag", {"value": "x" * 65}),
    ("rating", {"value": "6"}),
    ("rating", {"value": "٣"}),
    ("favourite", {"value": "yes"}),
    ("colour", {"value": "red"}),
    ("tag", {"value": "red", "ids": ""}),
    ("tag", {"value": "red", "ids": "nonsense"}),
    ("trash", {"ids": "ab,cd"}),
]


def test_a_label_that_is_wrong_changes_nothing(client, state, ids):
    before = state.vault.status().generation
    for what, fields in WRONG:
        answer = post(client, f"/labels/{what}", **({"ids": ids[0]} | fields))
        assert (answer.status_code, bool(answer.text)) == (422, True), what
    assert state.vault.status().generation == before


def test_one_unknown_picture_leaves_the_others_unlabelled(client, state, ids):
    answer = post(client, "/labels/rating", ids=f"{ids[0]},{'ab' * 16}", value="1")
    assert answer.status_code == 404
    assert metadata(state, ids[0])["rating"] != 1


def test_the_trash_keeps_restores_and_says_how_long(client, state, ids):
    answer = post(client, "/labels/trash", ids=",".join(ids[:3])).json()
    assert answer["text"] == "3 pictures in the trash"
    text = client.get("/trash").text
    assert all(each in text for each in ids[:3])
    assert text.count("7 days left") == 3
    assert state.catalogue.count() == 21
    post(client, "/labels/restore", ids=ids[0])
    assert state.catalogue.count() == 22
    assert "in the trash" in client.get(f"/detail/{ids[1]}").text
    assert client.post("/trash/restore-all").json()["done"] == 2
    assert (state.catalogue.count(), state.catalogue.count("is:trashed")) == (24, 0)


def test_shredding_says_first_what_it_cannot_reach_and_then_what_it_did(client, state, ids):
    post(client, "/labels/trash", ids=",".join(ids[:3]))
    asked = post(client, "/purge/ask", ids=ids[0]).text
    assert "Shred 1 record?" in asked
    assert "the recovery phrase or the passphrase" in asked
    assert "Copies that left the vault" in asked
    receipt = post(client, "/purge", ids=ids[0]).text
    assert "1 record and 2 sealed files are gone" in receipt
    assert "Whoever has the recovery phrase or the passphrase and an older backup" in receipt
    assert client.get(f"/detail/{ids[0]}").status_code == 404
    assert state.catalogue.count("is:trashed") == 2
    assert "2 records" in post(client, "/purge/ask", ids="").text
    assert "2 records" in post(client, "/purge", ids="").text
    assert state.catalogue.count("is:trashed") == 0
    assert "Empty." in client.get("/trash").text


def test_only_the_trash_is_shredded(client, state, ids):
    answer = post(client, "/purge", ids=ids[0])
    assert answer.status_code == 422
    assert state.vault.get(ids[0])


def test_what_lies_long_in_the_trash_is_about_to_go(client, state, ids):
    from vault import Retention

    post(client, "/labels/trash", ids=ids[0])
    state.vault.set_retention(Retention(trash_days=0))
    assert "about to go" in client.get("/trash").text
    state.vault.set_retention(Retention(trash_days=None))
    assert "until it is shredded" in client.get("/trash").text


def test_what_has_lain_its_days_in_the_trash_goes_at_unlocking(client, state, ids):
    from vault import PassphraseUnlock, Retention, open_vault, passphrase_secret

    state.vault.believe_clock()
    state.vault.set_retention(Retention(trash_days=0))
    post(client, "/labels/trash", ids=",".join(ids[:2]))
    state.vault.untrash([ids[1]])
    client.post("/lock")
    unlock = PassphraseUnlock(passphrase_secret("correct horse battery staple"))
    state.adopt(open_vault(state.settings.vault, unlock))
    assert state.expiring.wait(30)
    state.catalogue.refresh(30)
    assert [state.catalogue.row(each) is None for each in ids[:2]] == [True, False]


def test_a_clock_that_leapt_deletes_nothing_and_is_said(client, state, ids):
    assert state.expiring.wait(30)
    state.expiring.waiting = "this machine's clock is 400 days later than at the last time"
    assert "Nothing deletes itself: this machine" in client.get("/trash").text


def test_two_pictures_are_compared_pixel_by_pixel_and_setting_by_setting(client, state, ids):
    text = client.get(f"/compare/{ids[0]},{ids[1]}").text
    assert "PSNR" in text
    assert "% of the pixels differ" in text
    differing = text[: text.index("The same in all")]
    assert "Seed" in differing
    assert "Sampler" not in differing
    answer = client.get(f"/compare/{ids[0]},{ids[1]}/difference")
    with Image.open(io.BytesIO(answer.content)) as shown:
        assert (answer.headers["content-type"], shown.size) == ("image/png", (128, 96))
    assert "PSNR" not in client.get(f"/compare/{','.join(ids[:4])}").text


def test_two_to_four_are_compared(client, ids):
    for count in (1, 5):
        assert client.get(f"/compare/{','.join(ids[:count])}").status_code == 422
    assert client.get(f"/compare/{','.join(ids[:3])}/difference").status_code == 422


def test_albums_and_kept_searches_show_what_they_find(client, state, ids):
    post(client, "/labels/album", ids=",".join(ids[:2]), value='The "best"')
    kept = post(client, "/searches", name="Apples", query="apple rating:>=3")
    assert kept.json()["text"] == "Kept as Apples."
    page = client.get("/albums").text
    assert "The &#34;best&#34;" in page
    assert 'data-query="album:&#34;The *&#34;"' in page
    (search,) = client.get("/api/searches").json()
    assert (search["name"], search["query"]) == ("Apples", "apple rating:>=3")
    post(client, "/searches", name="Apples", query="apple")
    (search,) = client.get("/api/searches").json()
    assert search["query"] == "apple"
    assert post(client, "/searches", name="Bad", query="sed:4").status_code == 422
    assert post(client, "/searches", name=" ", query="x").status_code == 422
    post(client, "/searches/remove", id=ids[0])
    assert state.vault.get(ids[0])  # a picture is no search
    post(client, "/searches/remove", id=search["id"])
    assert client.get("/api/searches").json() == []


def test_sheets_are_numbered(client, state, ids):
    post(client, "/api/search", query="tree")
    text = client.get("/sheet").text
    assert "Sheet 1 of 1" in text
    assert text.count("<li>") == 8
    assert client.get("/sheet?number=2").text.count("<li>") == 0
    for number in ("0", "x", "", "9" * 9):
        assert client.get(f"/sheet?number={number}").status_code == 422
    assert 'data-count="8"' in client.get("/slides").text


def test_settings_tell_the_state_of_the_vault(client, state):
    text = client.get("/settings").text
    assert "each of these opens it: the passphrase; the recovery phrase" in text
    assert "24 pictures" in text
    assert "none: this folder is the only copy" in text
    assert "index.sqlite" in client.get("/settings/files").text
    checked = post(client, "/settings/verify", deep="1").text
    assert "24 records and 48 sealed files were opened: nothing is wrong." in checked
    assert "never" not in client.get("/settings").text


def test_a_check_that_finds_damage_says_so(client, state):
    blob = next(state.vault.path.glob("blobs/*/*"))
    blob.write_bytes(b"x" * blob.stat().st_size)
    text = post(client, "/settings/verify", deep="1").text
    assert "1 problem in 1 record" in text


def test_what_deletes_itself_is_set(client, state):
    fields = {"trash_days": "2.5", "max_age_days": "", "max_count": "1000"}
    assert post(client, "/settings/retention", **fields).status_code == 200
    retention = state.vault.retention
    assert (retention.trash_days, retention.max_age_days, retention.max_count) == (2.5, None, 1000)
    for wrong in ({"max_count": "many"}, {"trash_days": "-1"}, {"max_count": "1.5"}):
        assert post(client, "/settings/retention", **(fields | wrong)).status_code == 422
    assert state.vault.retention == retention


def test_nothing_is_left_to_take_back_after_a_lock(client, state, ids):
    token = post(client, "/labels/tag", ids=ids[0], value="red").json()["undo"]
    client.post("/lock")
    with pytest.raises(Exception, match="undone any more"):
        state.undo.take_back(token)


def test_a_difference_is_seen_however_small():
    from safelight.gallery.difference import difference, figures

    first = np.zeros((5000, 3000, 3), np.uint8)
    second = first.copy()
    second[4001, 1501] = (0, 1, 0)
    shown = difference(first, second)
    assert max(shown.shape[:2]) <= 2048
    assert len(np.unique(shown.reshape(-1, 3), axis=0)) == 2
    found = figures(first, second)
    assert (found.equal, found.largest, found.resized) == (False, 1, False)
    assert found.changed == pytest.approx(1 / 15_000_000)
    assert figures(first, first).equal
    assert figures(first, first[::2, ::2]).resized


def test_each_section_of_the_style_sheet_begins_outside_of_all_rules():
    from safelight.gallery.assets import FOLDER

    depth = 0
    for number, line in enumerate((FOLDER / "style.css").read_text().splitlines(), 1):
        assert not (line.startswith("/*") and depth), f"a rule before line {number} is not closed"
        depth += line.count("{") - line.count("}")
    assert depth == 0
