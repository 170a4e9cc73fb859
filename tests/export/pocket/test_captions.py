import numpy as np
import pytest

from export.pocket.captions import CONTEXT, Captioner, encode, open_tokenizer
from export.pocket.words import Vocabulary, load_vocabulary


@pytest.fixture(scope="module")
def captioner():
    lists = load_vocabulary()
    tags = {"cat-face": ("pet", "animal", "whiskers")}
    return Captioner(
        Vocabulary(
            concepts=lists.concepts, synonyms=lists.synonyms, held_out=lists.held_out, tags=tags
        )
    )


def many(write, count=400):
    return [write(np.random.default_rng(k)) for k in range(count)]


def test_a_plain_caption_is_a_name_a_synonym_a_colour_or_tags(captioner):
    said = many(lambda rng: captioner.plain("cat-face", "orange", rng))
    assert 0.3 < said.count("cat face") / len(said) < 0.5
    assert said.count("kitten") > 10
    assert said.count("orange cat face") > 15
    assert any("pet" in s and "cat" not in s for s in said)
    assert any(s.startswith("a cute ") for s in said)


def test_the_same_generator_writes_the_same(captioner):
    a, b = (many(lambda rng: captioner.plain("cat-face", "", rng), 30) for _ in range(2))
    assert a == b
    assert len(set(a)) > 5


def test_a_recoloured_caption_always_says_the_colour(captioner):
    said = many(lambda rng: captioner.recoloured("automobile", "green", rng))
    assert all("green" in s for s in said)
    assert {"green automobile", "green car"} <= set(said)


def test_an_icon_without_colour_name_never_says_one(captioner):
    said = many(lambda rng: captioner.plain("snowman", "", rng))
    assert not any(s.startswith(" ") or s == "snowman on" for s in said)


def test_a_pair_names_both(captioner):
    said = many(lambda rng: captioner.pair("zebra", "worm", rng), 100)
    assert all(s.index("worm" if "worm" in s else "earthworm") > 0 for s in said)
    assert any(" and " in s for s in said)


def test_a_background_is_added(captioner):
    said = many(lambda rng: captioner.on_background("owl", "blue", rng), 50)
    assert all(s.startswith("owl") and "blue" in s for s in said)


def test_token_ids_are_clips(tmp_path):
    ids = encode(open_tokenizer(), ["red apple", "", "word " * 60])
    assert ids.shape == (3, CONTEXT)
    assert ids.dtype == np.int64
    assert (ids[:, 0] == 3070).all()
    assert (ids[1, 1:] == 3071).all()
    assert ids[2, -1] == 3071
    assert (ids[2, 1:-1] < 3070).all()


def test_case_is_no_matter():
    ids = encode(open_tokenizer(), ["Red Apple", "red apple"])
    np.testing.assert_array_equal(ids[0], ids[1])
