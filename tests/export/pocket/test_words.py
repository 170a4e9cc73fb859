import gzip
import io
import json
import tarfile

import pytest

from export.errors import ExportError
from export.pocket import words
from export.pocket.words import load_vocabulary, noun, read_tags, stem


def test_the_lists_are_as_large_as_the_measures_ask():
    lists = load_vocabulary()
    assert len(lists.concepts) >= 332
    assert len(set(lists.concepts)) == len(lists.concepts)
    assert sum(len(w) for w in lists.synonyms.values()) >= 200
    assert len(lists.held_out) >= 24


@pytest.mark.parametrize(
    ("word", "concept"),
    [
        ("car", "automobile"),
        ("puppy", "dog-face"),
        ("kitten", "cat-face"),
        ("tree", "deciduous-tree"),
        ("plane", "airplane"),
    ],
)
def test_what_people_type_is_there(word, concept):
    assert word in load_vocabulary().names(concept)


def test_a_limit_keeps_so_many_and_their_words_only():
    few = load_vocabulary(12)
    assert len(few.concepts) == 12
    assert set(few.synonyms) <= set(few.concepts)
    assert {concept for _, concept in few.held_out} <= set(few.concepts)


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("synonyms.txt", "automobile: car, rocket", "taken"),
        ("synonyms.txt", "automobile: car\ntaxi: car", "taken"),
        ("synonyms.txt", "motorcar: car", "of no concept"),
        ("synonyms.txt", "automobile: car,, auto", "empty"),
        ("heldout.txt", "blue", "held-out"),
        ("heldout.txt", "mauve cat-face", "held-out"),
        ("heldout.txt", "blue motorcar", "held-out"),
    ],
)
def test_a_slip_in_a_list_is_named(monkeypatch, file, line, message):
    real = words._lines
    monkeypatch.setattr(words, "_lines", lambda n: line.split("\n") if n == file else real(n))
    with pytest.raises(ExportError, match=message):
        load_vocabulary()


@pytest.mark.parametrize(
    ("concept", "name", "base"),
    [
        ("cat-face", "cat face", "cat face"),
        ("t-rex", "t-rex", "t-rex"),
        ("red-apple", "red apple", "apple"),
        ("red-heart", "red heart", ""),
        ("light-blue-heart", "light blue heart", ""),
        ("black-cat", "black cat", ""),
        ("polar-bear", "polar bear", ""),
    ],
)
def test_names_and_stems(concept, name, base):
    assert noun(concept) == name
    assert stem(concept) == base


def test_every_held_out_combination_can_be_said():
    assert all(stem(concept) for _, concept in load_vocabulary().held_out)


def test_tags_leave_out_the_name_itself(tmp_path):
    rows = [{"label": "cat face", "tags": ["cat", "face", "pet", "animal", "naïve"]}]
    data = json.dumps(rows).encode()
    path = tmp_path / "t.tgz"
    with gzip.open(path, "wb") as file, tarfile.open(fileobj=file, mode="w") as tar:
        info = tarfile.TarInfo("package/en/data.json")
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    assert read_tags(path, ("cat-face", "dog")) == {"cat-face": ("pet", "animal"), "dog": ()}
