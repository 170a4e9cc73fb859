"""The tokenizer equals transformers' CLIPTokenizer on any text, from either form of its files."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import CLIPTokenizer

from engine.errors import BundleError, RequestError
from engine.tokenizer import Tokenizer

SHIPPED = Path(__file__).parents[2] / "safelight/models/pocket/tokenizer"
LIMIT = 32

# What prompts are made of, and what breaks tokenizers: case, accents in both normal forms, digits
# of other scripts, signs, contractions, white space of every kind, emoji with joiners, the special
# tokens themselves, bytes that belong to no word.
PIECES = st.sampled_from(
    [
        *("red apple", "A", "THE", "İstanbul", "ß", "ﬁ", "e\u0301", "\u00e9", "Ω", "ñandú", "x²"),
        *(
            "don't",
            "'S",
            "'LL",
            "it's'd",
            "!",
            "!!",
            "...",
            "(a:1.3)",
            "[b]",
            "<lora:x:1>",
            "1girl",
        ),
        *(
            "123",
            "٣",
            "Ⅷ",
            " ",
            "  ",
            "\t",
            "\n",
            "\r\n",
            "\u00a0",
            "\u2003",
            "\u200b",
            "\x00",
            "\x1f",
        ),
        *("🐱", "👩‍👩‍👧", "🇫🇷", "🏽", "\ufe0f", "猫", "こんにちは", "שלום", "\U0010ffff", "\ufeff"),
        *(
            "<|startoftext|>",
            "<|endoftext|>",
            "<|ENDOFTEXT|>",
            "<|endoftext",
            "</w>",
            "Ġ",
            "_",
            "-",
        ),
        *("<cat-toy>", " <Cat-Toy>", "cat-toy>", "style", "STYLE ", "lifestyle", "Ñu", "ñu", "ÑU"),
    ]
)
TEXT = st.lists(PIECES | st.text(max_size=6), max_size=12).map("".join)


def listed(content: str, **flags: bool) -> dict[str, object]:
    names = ("lstrip", "normalized", "rstrip", "single_word", "special")
    return {"content": content} | dict.fromkeys(names, False) | flags


LISTED = {
    "0": listed("!", special=True),
    "3070": listed("<|startoftext|>", normalized=True, special=True),
    "3071": listed("<|endoftext|>", special=True),
}
WORDS_ADDED = {
    "3072": listed("<Cat-Toy>", normalized=True),
    "3073": listed("style", normalized=True, single_word=True),
    "3074": listed("Ñu"),
}


def without_surrogates(text: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def variant(
    folder: Path,
    *,
    files: tuple[str, ...],
    config: dict | None = None,
    special: dict | None = None,
) -> Path:
    folder.mkdir()
    for name in files:
        shutil.copy(SHIPPED / name, folder)
    for name, content in (("tokenizer_config", config), ("special_tokens_map", special)):
        if content is not None:
            (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="module")
def forms(tmp_path_factory) -> list[tuple[Tokenizer, CLIPTokenizer]]:
    root = tmp_path_factory.mktemp("tokenizers")
    pair = ("vocab.json", "merges.txt")
    old = {
        "__type": "AddedToken",
        "lstrip": False,
        "normalized": True,
        "rstrip": False,
        "single_word": False,
    }
    begin, end = ({"content": f"<|{name}|>"} | old for name in ("startoftext", "endoftext"))
    folders = [
        SHIPPED,
        variant(root / "whole", files=("tokenizer.json", "tokenizer_config.json")),
        variant(root / "pair", files=pair),
        # As Stable Diffusion 1.x ships it (2022), and 2.x, which pads with "!".
        variant(root / "sd1", files=pair, config={"bos_token": begin, "eos_token": end}),
        variant(root / "sd2", files=pair, config={"pad_token": "!"}),
        # Files that disagree: SD 2.x has its "!" in the older one alone, and that one wins.
        variant(
            root / "older",
            files=pair,
            config={"pad_token": "<|endoftext|>"},
            special={"pad_token": "!"},
        ),
        variant(
            root / "newer",
            files=pair,
            config={"pad_token": "!"},
            special={"pad_token": "<|endoftext|>"},
        ),
        # With a list of added tokens the older file counts for nothing, and every entry is one.
        variant(
            root / "listed",
            files=pair,
            config={"pad_token": "<|endoftext|>", "added_tokens_decoder": LISTED},
            special={"pad_token": "!"},
        ),
        # Words of textual inversion behind the vocabulary, in all flags; the shipped one has 3072.
        variant(root / "words", files=pair, config={"added_tokens_decoder": LISTED | WORDS_ADDED}),
        variant(
            root / "words, whole",
            files=("tokenizer.json",),
            config={"tokenizer_class": "CLIPTokenizer", "added_tokens_decoder": WORDS_ADDED},
        ),
    ]
    return [
        (
            Tokenizer(folder, limit=LIMIT),
            CLIPTokenizer.from_pretrained(folder, local_files_only=True),
        )
        for folder in folders
    ]


def expected(reference: CLIPTokenizer, text: str) -> list[int]:
    return reference(
        text, padding="max_length", truncation=True, max_length=LIMIT, return_tensors="np"
    ).input_ids[0]


@settings(max_examples=400, deadline=None)
@given(text=TEXT.filter(without_surrogates))
@example(text="")
@example(text="A Photo of a RED  apple,\tdon't! <|endoftext|>")
@example(text="e\u0301" * 40)
@example(text="!" * 200)
def test_every_text_gets_the_ids_that_transformers_gives(forms, text):
    for ours, reference in forms:
        np.testing.assert_array_equal(ours.encode(text)[0], expected(reference, text))


@settings(max_examples=100, deadline=None)
@given(text=st.lists(PIECES, min_size=20, max_size=60).map(" ".join))
def test_the_chunks_of_a_long_text_hold_all_its_ids_in_order(forms, text):
    ours, reference = forms[0]
    whole = reference(text, add_special_tokens=False, truncation=False, padding=False).input_ids
    chunks = ours.encode(text)
    assert chunks.shape == (max(1, -(-len(whole) // (LIMIT - 2))), LIMIT)
    room, found = LIMIT - 2, []
    for row, chunk in enumerate(chunks):
        count = min(room, len(whole) - row * room)
        assert chunk[0] == reference.bos_token_id
        assert chunk[count + 1] == reference.eos_token_id
        assert set(chunk[count + 2 :]) <= {reference.pad_token_id}
        found += list(chunk[1 : count + 1])
    assert found == whole


def test_ids_are_int64_and_an_empty_text_is_one_chunk():
    ids = Tokenizer(SHIPPED, limit=LIMIT).encode("")
    assert (ids.dtype, ids.shape) == (np.int64, (1, LIMIT))


def words(tmp_path: Path, **added: str) -> Tokenizer:
    decoder = {key.strip("_"): listed(word, normalized=True) for key, word in added.items()}
    files = ("vocab.json", "merges.txt")
    folder = variant(tmp_path / "t", files=files, config={"added_tokens_decoder": decoder})
    return Tokenizer(folder, limit=LIMIT)


def test_a_word_of_several_ids_gives_them_all_in_order(tmp_path):
    tokenizer = words(tmp_path, _3072="<x>", _3073="<x>_1", _3074="<x>_2", _3075="<y>", _3076="y_1")
    plain = Tokenizer(SHIPPED, limit=LIMIT)
    for text, expected in {
        "<x>": [3072, 3073, 3074],
        "<X>": [3072, 3073, 3074],
        "<x>_2 <y>": [3074, 3075],
        "red <x>, apple": [*inner(plain, "red"), 3072, 3073, 3074, *inner(plain, ", apple")],
        "y_1": [3076],
    }.items():
        assert inner(tokenizer, text) == expected, text


def inner(tokenizer: Tokenizer, text: str) -> list[int]:
    row = list(tokenizer.encode(text)[0])
    return row[1 : row.index(3071)]


def test_a_word_of_several_ids_counts_them_all_in_a_chunk(tmp_path):
    tokenizer = words(tmp_path, _3072="<x>", _3073="<x>_1")
    chunks = tokenizer.encode("<x> " * LIMIT)
    assert len(chunks) == 3  # 64 ids, 30 in a chunk
    assert (chunks == 3072).sum() == (chunks == 3073).sum() == LIMIT


def test_what_is_known_and_the_highest_id_count_added_words(tmp_path):
    tokenizer = words(tmp_path, _3072="<x>")
    assert tokenizer.highest_id() == 3072
    assert tokenizer.knows("<x>")
    assert tokenizer.knows("a</w>")
    assert not tokenizer.knows("<y>")


@pytest.mark.parametrize(
    "added",
    [
        {"_3073": "<x>"},
        {"_3072": "<x>", "_3073": "<x>"},
        {"_3072": "!"},
        {"_0": "<x>"},
        {"_3072": ""},
        {"_x": "<x>"},
        {"_3072_": "<x>", "_03073": "<y>", "_٣": "<z>"},
    ],
)
def test_added_words_with_other_ids_are_refused(tmp_path, added):
    with pytest.raises(BundleError):
        words(tmp_path, **added)


@pytest.mark.parametrize("value", ['["<x>"]', "7", '{"3072": "<x>", "3073": 5}'])
def test_a_damaged_list_of_added_words_is_refused(tmp_path, value):
    folder = variant(tmp_path / "t", files=("vocab.json", "merges.txt"))
    (folder / "tokenizer_config.json").write_text(f'{{"added_tokens_decoder": {value}}}')
    with pytest.raises(BundleError):
        Tokenizer(folder, limit=LIMIT)


def test_half_a_surrogate_pair_is_refused_without_repeating_the_prompt():
    with pytest.raises(RequestError, match="surrogate") as caught:
        Tokenizer(SHIPPED, limit=LIMIT).encode("a secret wish \ud83d")
    assert "secret" not in f"{caught.value}{caught.value.hint}"
    assert caught.value.__context__ is None


def test_the_highest_id_is_the_end_token_s():
    assert Tokenizer(SHIPPED, limit=LIMIT).highest_id() == 3071


def test_missing_files_are_named(tmp_path):
    with pytest.raises(BundleError, match=r"neither tokenizer\.json nor"):
        Tokenizer(tmp_path, limit=LIMIT)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("vocab.json", "{"),
        ("vocab.json", '{"a": "b"}'),
        ("merges.txt", "a b c d"),
        ("tokenizer_config.json", "{"),
        ("tokenizer_config.json", '{"pad_token": 7}'),
        ("tokenizer_config.json", '{"pad_token": ""}'),
        ("tokenizer_config.json", '{"pad_token": "<|nowhere|>"}'),
    ],
)
def test_damaged_files_are_refused(tmp_path, name, data):
    folder = variant(tmp_path / "t", files=("vocab.json", "merges.txt", "tokenizer_config.json"))
    (folder / name).write_text(data)
    with pytest.raises(BundleError):
        Tokenizer(folder, limit=LIMIT)


def test_another_kind_of_tokenizer_is_refused(tmp_path):
    whole = json.loads((SHIPPED / "tokenizer.json").read_text())
    words = {"<|startoftext|>": 0, "<|endoftext|>": 1}
    whole["model"] = {"type": "WordLevel", "vocab": words, "unk_token": "<|endoftext|>"}
    whole["added_tokens"], whole["post_processor"], whole["padding"] = [], None, None
    (tmp_path / "tokenizer.json").write_text(json.dumps(whole))
    with pytest.raises(BundleError, match="no byte-pair encoding"):
        Tokenizer(tmp_path, limit=LIMIT)
