"""A search answers from memory what the vault holds now; memory ends with lock and purge."""

import pytest

import vault
from tests.vault.conftest import draft
from vault import folded
from vault.folded import FoldedPage
from vault.frame import frame

PROMPTS = ["red apple", "red pear", "green apple"]


@pytest.fixture
def opened(make):
    place = make()
    with place.open() as opened:
        opened.add([draft(prompt) for prompt in PROMPTS])
        assert found(opened, "e") == PROMPTS[::-1]  # everything is kept from here on
        yield opened, place


def found(opened: vault.Vault, text: str) -> list[str]:
    return [record.metadata["prompt"] for record in opened.search(text)]


def kept(opened: vault.Vault) -> list[int]:
    """Return the numbers of the pages whose texts are in memory."""
    return list(opened._s.ledger._folded._pages)


def test_a_second_search_reads_only_the_rows_that_it_finds(opened, monkeypatch):
    opened, _ = opened
    opened._s.ledger._opened.forget()
    index = opened._s.ledger.index
    real, asked = index.records, []

    def records(low: int, high: int) -> list:
        asked.append((low, high))
        return real(low, high)

    monkeypatch.setattr(index, "records", records)
    assert found(opened, "plum") == []
    assert found(opened, "pear") == ["red pear"]
    assert asked == [(1, 1)]


def test_words_are_found_in_the_records_that_hold_all_of_them():
    texts = [b'{"a":"red apple"}', b'{"a":"RED pear"}', b'{"a":"redapple"}', None]
    frames = [text and frame(text, metadata=True) for text in texts]
    page = FoldedPage(zip((7, 5, 3, 1), frames, strict=True))
    assert page.holding([b"red"]) == [7, 5, 3, 1]
    assert page.holding([b"red", b"apple"]) == [7, 3, 1]
    assert page.holding([b'"red pear"']) == [5, 1]
    assert page.holding([b"blue"]) == [1]  # what does not open may hold anything
    assert page.holding([b'}{"a"']) == [1]  # no word reaches from one record into the next
    assert page.holding([]) == [7, 5, 3, 1]


def test_a_damaged_record_of_another_kind_hides_no_picture(make):
    place = make()
    with place.open() as opened:
        opened.add([draft(prompt) for prompt in PROMPTS])
        opened.add([draft("red note", kind=vault.Kind.JOB)])
    place.sql("UPDATE record SET meta = zeroblob(300) WHERE pos = 3")
    with place.open() as opened:
        for _ in range(2):
            assert found(opened, "red") == ["red pear", "red apple"]
            with pytest.raises(vault.DamagedError):
                list(opened.search("plum", kinds=[vault.Kind.JOB]))


def test_search_crosses_pages_and_goes_on_from_a_position(make, monkeypatch):
    place = make()
    with place.open() as opened:
        for first in range(0, 560, 16):
            opened.add(
                [
                    vault.Draft(vault.Kind.PICTURE, {"prompt": f"n{n}"})
                    for n in range(first, first + 16)
                ]
            )
        for _ in range(2):
            wanted = [f"n{n}" for n in range(559, -1, -1) if "7" in str(n)]
            assert found(opened, "7") == wanted
            part = opened.search("7", limit=5, before=256)
            assert [r.metadata["prompt"] for r in part] == [
                "n247",
                "n237",
                "n227",
                "n217",
                "n207",
            ]
        assert kept(opened) == [2, 1, 0]


def test_an_edit_here_or_elsewhere_is_found_and_the_old_text_is_not(opened):
    opened, place = opened
    ids = [record.id for record in opened.list()]
    opened.edit(ids[0], lambda _: {"prompt": "blue plum"})
    with place.open() as other:
        other.edit(ids[1], lambda _: {"prompt": "black plum"})
        other.trash([ids[2]])
    assert found(opened, "plum") == ["blue plum", "black plum"]
    assert found(opened, "pear") == found(opened, "apple") == []
    assert [r.metadata["prompt"] for r in opened.search("red", trashed=True)] == ["red apple"]


def test_what_was_deleted_is_not_found(opened):
    opened, place = opened
    ids = [record.id for record in opened.list()]
    opened.delete(ids[:1])
    with place.open() as other:
        other.delete(ids[1:2])
    assert found(opened, "e") == ["red apple"]


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_purge_leaves_no_text_in_memory(opened, elsewhere):
    opened, place = opened
    first = next(iter(opened.list())).id
    assert kept(opened) == [0]
    assert first in repr(opened._s.ledger._opened._pages)
    if elsewhere:
        with place.open() as other:
            other.purge([first])
        opened.get(next(iter(opened.list())).id)  # notices the new epoch
    else:
        opened.purge([first])
    assert kept(opened) == []
    assert first not in repr(opened._s.ledger._opened._pages)
    assert found(opened, "e") == PROMPTS[1::-1]


def test_closing_forgets(opened):
    opened, _ = opened
    ledger = opened._s.ledger
    opened.close()
    assert ledger._folded._pages == ledger._opened._pages == {}


def test_what_finds_no_room_is_found_all_the_same(opened, monkeypatch):
    opened, _ = opened
    monkeypatch.setattr(folded, "_MOST_BYTES", 60)
    opened._s.ledger._folded.forget()
    for _ in range(2):
        assert found(opened, "red") == ["red pear", "red apple"]
        assert kept(opened) == []


def test_a_record_edited_often_takes_its_room_once(opened, monkeypatch):
    opened, _ = opened
    monkeypatch.setattr(folded, "_MOST_BYTES", 150)
    opened._s.ledger._folded.forget()
    first = next(iter(opened.list())).id
    for turn in range(20):
        opened.edit(first, lambda _, turn=turn: {"prompt": f"red plum {turn % 10}"})
        assert found(opened, "plum") == [f"red plum {turn % 10}"]
        assert kept(opened) == [0]
