"""A search answers from memory what the vault holds now; memory ends with lock and purge."""

import pytest

import vault
from tests.vault.conftest import draft
from vault import kept_texts

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


def kept_count(opened: vault.Vault) -> int:
    return len(opened._s.ledger._kept._kept)


def test_a_second_search_reads_no_row(opened, monkeypatch):
    opened, _ = opened

    def refuse(*_: object) -> list[object]:
        raise AssertionError("a row was read")

    monkeypatch.setattr(opened._s.ledger.index, "records", refuse)
    assert found(opened, "apple") == ["green apple", "red apple"]
    with pytest.raises(AssertionError, match="a row was read"):
        list(opened.list())  # only a search keeps, and only a search is answered from it


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
    assert kept_count(opened) == 3
    if elsewhere:
        with place.open() as other:
            other.purge([first])
        opened.get(next(iter(opened.list())).id)  # notices the new epoch
    else:
        opened.purge([first])
    assert kept_count(opened) == 0
    assert found(opened, "e") == PROMPTS[1::-1]


def test_closing_forgets(opened):
    opened, _ = opened
    ledger = opened._s.ledger
    opened.close()
    assert ledger._kept._kept == {}


def test_what_finds_no_room_is_found_all_the_same(opened, monkeypatch):
    opened, _ = opened
    monkeypatch.setattr(kept_texts, "_MOST_BYTES", 700)
    opened._s.ledger._kept.forget()
    for _ in range(2):
        assert found(opened, "red") == ["red pear", "red apple"]
        assert 0 < kept_count(opened) < 3


def test_a_record_edited_often_takes_its_room_once(opened, monkeypatch):
    opened, _ = opened
    monkeypatch.setattr(kept_texts, "_MOST_BYTES", 2000)
    opened._s.ledger._kept.forget()
    first = next(iter(opened.list())).id
    for turn in range(20):
        opened.edit(first, lambda _, turn=turn: {"prompt": f"red plum {turn % 10}"})
        assert found(opened, "plum") == [f"red plum {turn % 10}"]
    assert kept_count(opened) == 3
