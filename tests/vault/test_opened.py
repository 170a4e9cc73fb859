"""A second list answers from memory, with what the vault holds now and nothing that it does not."""

from collections.abc import Callable

import pytest

import vault
from tests.vault.conftest import Place, draft
from vault import opened as module
from vault.records import Metadata, Record, decode_record
from vault.sealed_record import Opened

PROMPTS = ["red apple", "red pear", "green apple"]


@pytest.fixture
def place(make: Callable[[], Place]) -> Place:
    place = make()
    with place.open() as opened:
        opened.add([draft(prompt, tags=["fruit"], seconds={"total": 1.5}) for prompt in PROMPTS])
    return place


def prompts(opened: vault.Vault, **about) -> list[str]:
    return [record.metadata["prompt"] for record in opened.list(**about)]


def rows_read(opened: vault.Vault, monkeypatch) -> list[tuple[int, int]]:
    """Return a list that grows with each stretch of rows that is read."""
    index = opened._s.ledger.index
    real, asked = index.records, []
    monkeypatch.setattr(index, "records", lambda *run: (asked.append(run), real(*run))[1])
    return asked


def test_a_second_list_reads_no_row_and_a_longer_one_only_the_new_rows(place, monkeypatch):
    with place.open() as opened:
        asked = rows_read(opened, monkeypatch)
        assert prompts(opened, limit=1) == PROMPTS[:1:-1]
        assert prompts(opened) == PROMPTS[::-1]
        assert prompts(opened) == PROMPTS[::-1]
        assert prompts(opened, before=1) == PROMPTS[:1]
    assert asked == [(2, 2), (0, 1)]


def test_records_are_the_same_from_memory_and_changing_one_changes_no_other(place):
    with place.open() as opened:
        first = list(opened.list())
        second = list(opened.list())
        assert second == first == [opened.get(record.id) for record in first]
        second[0].metadata["prompt"] = "mine"
        second[0].metadata["tags"].append("mine")
        second[0].metadata["seconds"]["total"] = 0
        assert list(opened.list()) == first


@pytest.mark.parametrize("elsewhere", [False, True])
def test_what_changes_is_listed_as_it_is_now(place, elsewhere):
    with place.open() as opened:
        ids = [record.id for record in opened.list()]
        with place.open() as other:
            writer = other if elsewhere else opened
            writer.edit(ids[0], lambda _: {"prompt": "blue plum"})
            assert prompts(opened) == ["blue plum", *PROMPTS[1::-1]]
            writer.trash(ids[1:2])
            assert prompts(opened) == ["blue plum", "red apple"]
            assert prompts(opened, trashed=True) == ["red pear"]
            writer.delete(ids[2:])
            assert prompts(opened) == ["blue plum"]
            writer.add([draft("fig")])
            assert prompts(opened) == ["fig", "blue plum"]


def test_a_row_damaged_meanwhile_is_listed_but_neither_read_nor_verified(place):
    with place.open() as opened:
        newest = next(iter(opened.list()))
        place.sql("UPDATE record SET meta = zeroblob(300) WHERE pos = 2")
        assert prompts(opened) == PROMPTS[::-1]
        with pytest.raises(vault.DamagedError):
            opened.get(newest.id)
        with pytest.raises(vault.DamagedError):
            opened.read(newest.id, "picture")
        assert [problem.kind for problem in opened.care.verify().problems] == ["damaged"]
    with place.open() as opened, pytest.raises(vault.DamagedError):
        list(opened.list())


def test_memory_is_bounded_and_the_newest_pages_stay(make, monkeypatch):
    place = make()
    monkeypatch.setattr(module, "_MOST_BYTES", 150_000)
    numbers = range(2080)
    with place.open() as opened:
        for first in range(0, 2080, 16):
            drafts = [
                vault.Draft(vault.Kind.PICTURE, {"prompt": f"n{n}"})
                for n in range(first, first + 16)
            ]
            opened.add(drafts)
        for _ in range(2):
            assert prompts(opened) == [f"n{n}" for n in numbers[::-1]]
            kept = opened._s.ledger._opened
            assert set(range(4, 9)) < set(kept._pages) == set(kept._sizes)
            assert len(kept._pages[0][1]) < 100 < len(kept._pages[4][1])
            assert sum(kept._sizes.values()) <= 150_000


def written(**foreign) -> tuple[bytes, Metadata]:
    (seal,) = Metadata.decode(
        b'{"schema":1,"created":"c","trashed":null,"data":{},"blobs":[{"name":"a","kind":1,'
        b'"type":"image],\\"data\\":{","length":3,"file":"%s","prefix":"%s","revision":1}]}'
        % (b"00" * 16, b"A" * 75 + b"=")
    ).blobs
    data = {"prompt": '],"data":{', "data": {"data": ['],"data":{']}}
    metadata = Metadata("c", None, (seal,), data, foreign)
    return metadata.encode(), metadata


@pytest.mark.parametrize("foreign", [{}, {"later": [[{"data": {"data": 1}}], {"data": {}}]}])
def test_metadata_cut_at_its_parts_is_what_it_is_when_parsed_whole(foreign):
    text, metadata = written(**foreign)
    created, trashed, data, blobs = decode_record(text)
    assert (created, trashed, data) == ("c", None, metadata.data)
    assert blobs == {"a": metadata.blobs[0].blob}
    assert list(blobs) == ["a"]


@pytest.mark.parametrize(
    "bend",
    [
        lambda text: text[:-1],
        lambda text: text + b"}",
        lambda text: text + b" {}",
        lambda text: text.replace(b'"schema":1', b'"schema":2'),
        lambda text: text[:-1] + b',"created":7}',
        lambda text: text.replace(b'"data":{"prompt', b'"data":[{"prompt'),
        lambda text: text.replace(b'"created":"c"', b'"created":"\xff"'),
        lambda text: b"[" * 100_000,
    ],
)
def test_bent_metadata_is_damage_as_before(bend):
    text, _ = written()
    with pytest.raises(vault.VaultError):
        decode_record(bend(text))


def test_bent_blobs_are_damage_when_they_are_asked_for():
    text, _ = written()
    blobs = decode_record(text.replace(b'"length":3', b'"length":-3'))[3]
    with pytest.raises(vault.DamagedError):
        len(blobs)
    with pytest.raises(vault.DamagedError):
        decode_record(
            text.replace(b'"blobs":[', b'"blobs":[[[').replace(b'],"data"', b']]],"data"')
        )[3]["a"]


def test_what_is_kept_shows_nothing(place):
    with place.open() as opened:
        list(opened.list())
        kept = opened._s.ledger._opened.get(0, opened._s.ledger.root.pages[0])
        assert "apple" not in repr(dict(kept))
        assert all(isinstance(each, Record) for each in kept.values())
    assert "apple" not in repr(Opened(1, None, b"apple"))
