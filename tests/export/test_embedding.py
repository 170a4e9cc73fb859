"""A textual inversion gives its rows and its word, and the word gets its ids in every reader."""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.loaders import TextualInversionLoaderMixin
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch
from tokenizers import AddedToken
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from engine.tokenizer import Tokenizer
from export import MissingError, SourceError
from export.architectures import TINY
from export.embedding import read_embedding, with_token

SHIPPED = Path(__file__).parents[2] / "safelight/models/pocket/tokenizer"
ROWS = 3072  # of the shipped tokenizer
LIMIT = 32
ONE = {"text_encoder": 32}
TWO = {"text_encoder": 32, "text_encoder_2": 48}


def rows(count: int, width: int = 32, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)


def write(folder: Path, **tensors: np.ndarray) -> Path:
    file = folder / "some word.safetensors"
    save_file(tensors, file)
    return file


# Rows


@pytest.mark.parametrize("key", ["emb_params", "<cat-toy>", "*"])
@pytest.mark.parametrize("count", [1, 3, 75])
def test_one_tensor_under_any_name_is_the_rows(tmp_path, key, count):
    found = read_embedding(write(tmp_path, **{key: rows(count)}), "<cat-toy>", ONE)
    assert set(found) == {"text_encoder"}
    np.testing.assert_array_equal(found["text_encoder"], rows(count))


def test_a_single_row_may_come_without_a_list_around_it(tmp_path):
    found = read_embedding(write(tmp_path, **{"<x>": rows(1)[0]}), "<x>", ONE)
    np.testing.assert_array_equal(found["text_encoder"], rows(1))


@pytest.mark.parametrize("pair", [("clip_l", "clip_g"), ("text_encoders_0", "text_encoders_1")])
def test_sdxl_has_rows_for_each_text_encoder(tmp_path, pair):
    first, second = rows(2, 32), rows(2, 48, seed=2)
    found = read_embedding(
        write(tmp_path, **dict(zip(pair, (first, second), strict=True))), "x", TWO
    )
    np.testing.assert_array_equal(found["text_encoder"], first)
    np.testing.assert_array_equal(found["text_encoder_2"], second)


def test_of_several_words_in_a_file_the_one_asked_for_is_taken(tmp_path):
    file = write(tmp_path, **{"<a>": rows(1), "<b>": rows(2, seed=5)})
    np.testing.assert_array_equal(read_embedding(file, "<b>", ONE)["text_encoder"], rows(2, seed=5))
    with pytest.raises(SourceError, match=r"it holds 2 tensors \('<a>', '<b>'\)"):
        read_embedding(file, "<c>", ONE)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_becomes_float32(tmp_path, dtype):
    half = torch.tensor(rows(2)).to(dtype)
    save_torch({"emb_params": half}, tmp_path / "x.safetensors")
    found = read_embedding(tmp_path / "x.safetensors", "x", ONE)["text_encoder"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, half.float().numpy())


def test_importing_and_reading_needs_no_torch(tmp_path):
    program = (
        "import sys; from pathlib import Path; from export.embedding import read_embedding;"
        "read_embedding(Path(sys.argv[1]), 'x', {'text_encoder': 32});"
        "assert 'torch' not in sys.modules"
    )
    file = write(tmp_path, emb_params=rows(1))
    subprocess.run([sys.executable, "-c", program, str(file)], check=True)


@pytest.mark.parametrize(
    ("tensors", "widths", "match"),
    [
        ({"clip_l": rows(1), "clip_g": rows(1, 48)}, ONE, "for SDXL, this model has 1 text enc"),
        ({"emb_params": rows(1)}, TWO, "one text encoder, this model has 2 text encoders"),
        ({"clip_l": rows(1)}, ONE, "no textual inversion that is known"),
        ({"a": rows(1), "b": rows(1)}, ONE, "it holds 2 tensors"),
        ({"emb_params": rows(1, 1024)}, {"text_encoder": 768},
         r"is 1024 wide \(SD 2\.x\), this model's text encoder 768 \(SD 1\.x\)"),
        ({"clip_l": rows(1), "clip_g": rows(1, 64)}, TWO, "64 wide, this model's text encoder 48"),
        ({"clip_l": rows(1), "clip_g": rows(2, 48)}, TWO, "different numbers of rows: 1, 2"),
        ({"emb_params": rows(76)}, ONE, r"shape \[76, 32\]; 1 to 75 rows of 32 are needed"),
        ({"emb_params": rows(0)}, ONE, r"shape \[0, 32\]"),
        ({"emb_params": rows(4).reshape(2, 2, 32)}, ONE, r"shape \[2, 2, 32\]"),
        ({"emb_params": np.array(1, np.float32)}, ONE, r"shape \[\]"),
        ({"emb_params": np.full((2, 32), np.nan, np.float32)}, ONE, "holds NaN or Inf"),
        ({"emb_params": np.full((2, 32), -np.inf, np.float32)}, ONE, "holds NaN or Inf"),
        ({"emb_params": rows(1).astype(np.float64)}, ONE, "is F64; one of BF16, F16, F32"),
    ],
)  # fmt: skip
def test_what_is_no_textual_inversion_for_this_model_is_refused(tmp_path, tensors, widths, match):
    with pytest.raises(SourceError, match=match):
        read_embedding(write(tmp_path, **tensors), "x", widths)


@pytest.mark.parametrize("name", ["x.pt", "x.bin", "x.ckpt"])
def test_a_pickle_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"\x80\x04")
    with pytest.raises(SourceError, match="runs whatever code"):
        read_embedding(tmp_path / name, "x", ONE)


def test_a_missing_or_damaged_file_is_refused(tmp_path):
    with pytest.raises(MissingError, match="no file"):
        read_embedding(tmp_path / "x.safetensors", "x", ONE)
    (tmp_path / "x.safetensors").write_bytes(b"PK\x03\x04 a renamed pickle")
    with pytest.raises(SourceError, match="no safetensors"):
        read_embedding(tmp_path / "x.safetensors", "x", ONE)


BAD_TOKENS = ["", "two words", "a\tb", "a\u00a0b", "\x00", "x" * 65, "\ud83d", "a\u200b"]


@pytest.mark.parametrize("token", BAD_TOKENS)
def test_a_token_must_be_one_visible_word(tmp_path, token):
    with pytest.raises(SourceError, match="cannot be a token"):
        read_embedding(write(tmp_path, emb_params=rows(1)), token, ONE)
    with pytest.raises(SourceError, match="cannot be a token"):
        with_token(SHIPPED, tmp_path / "t", token, 1)


# The word


BEGIN = {
    "content": "<|startoftext|>",
    "lstrip": False,
    "normalized": True,
    "rstrip": False,
    "single_word": False,
}
FORMS: Mapping[str, tuple[tuple[str, ...], dict[str, object]]] = {
    "shipped": (("vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json"), {}),
    "pair": (("vocab.json", "merges.txt"), {}),
    "whole": (("tokenizer.json", "tokenizer_config.json"), {}),
    "older map": (
        ("vocab.json", "merges.txt"),
        {
            "tokenizer_config.json": {"pad_token": "<|endoftext|>"},
            "special_tokens_map.json": {"bos_token": BEGIN, "pad_token": "!", "unk_token": None},
        },
    ),
    "listed": (
        ("vocab.json", "merges.txt"),
        {
            "tokenizer_config.json": {
                "added_tokens_decoder": {"3070": BEGIN | {"special": True}},
                "model_max_length": 32,
            },
            "special_tokens_map.json": {"pad_token": "!"},
        },
    ),
}
FLAGS = {"single_word": True, "normalized": True}
WORDS = {"<Cat-Toy>": 3, "easynegative": 1, "Ñandú": 2}  # word -> rows
PIECES = st.sampled_from(
    [*WORDS, "<cat-toy>_1", "<cat-toy>_3", "EASYNEGATIVE", "uneasynegatives", "ñandú",
     "N\u0303andu\u0301", "a", "red apple", " ", ", ", "(", ":1.2)", "!", "_", "<", "\n", "猫",
     "<|endoftext|>", "1"]
)  # fmt: skip


def form(name: str, folder: Path) -> Path:
    files, configs = FORMS[name]
    folder.mkdir(parents=True)
    for file in files:
        shutil.copy(SHIPPED / file, folder)
    for file, content in configs.items():
        (folder / file).write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="module")
def worded(tmp_path_factory) -> dict[str, tuple[Path, Path]]:
    """Give a folder of each form, and what becomes of it with all WORDS put in one by one."""
    found = {}
    for name in FORMS:
        root = tmp_path_factory.mktemp("tokenizer") / name
        source = folder = form(name, root / "source")
        first = ROWS
        for number, (word, count) in enumerate(WORDS.items()):
            target = root / str(number)
            assert with_token(folder, target, word, count) == range(first, first + count)
            folder, first = target, first + count
        found[name] = (source, folder)
    return found


def load(folder: Path) -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(folder, local_files_only=True)


def names(word: str, count: int) -> list[str]:
    return [word] + [f"{word}_{number}" for number in range(1, count)]


def with_all_rows(ids: list[int]) -> list[int]:
    """Put after each word's first id those of its other rows."""
    first, found = ROWS, {}
    for count in WORDS.values():
        found[first] = list(range(first, first + count))
        first += count
    return [each for number in ids for each in found.get(number, [number])]


@settings(max_examples=150, deadline=None)
@given(text=st.lists(PIECES, max_size=8).map("".join))
def test_texts_get_the_ids_that_transformers_gives_after_add_tokens(oracles, text):
    for ours, added, reloaded in oracles:
        plain = added(text, add_special_tokens=False).input_ids
        assert reloaded(text, add_special_tokens=False).input_ids == plain
        wanted = with_all_rows(plain)[: LIMIT - 2]
        row = list(ours.encode(text)[0])
        begin, end, pad = added.bos_token_id, added.eos_token_id, added.pad_token_id
        assert row == ([begin, *wanted, end] + [pad] * LIMIT)[:LIMIT]
        assert (reloaded.bos_token_id, reloaded.eos_token_id) == (begin, end)
        assert reloaded.pad_token_id == pad


@pytest.fixture(scope="module")
def oracles(worded) -> list[tuple[Tokenizer, CLIPTokenizer, CLIPTokenizer]]:
    """Give ours, transformers' with the words added by itself, and transformers' of our files."""
    found = []
    for source, folder in worded.values():
        added = load(source)
        for word, count in WORDS.items():
            tokens = [AddedToken(name, **FLAGS) for name in names(word, count)]
            assert added.add_tokens(tokens) == count
        found.append((Tokenizer(folder, limit=LIMIT), added, load(folder)))
    return found


@pytest.mark.parametrize("name", FORMS)
def test_diffusers_expands_a_word_of_several_rows_to_the_same_ids(tmp_path, name):
    """diffusers puts the other names into the prompt; it finds no word with upper case letters."""
    folder = form(name, tmp_path / "source")
    with_token(folder, tmp_path / "one", "<cat-toy>", 3)
    ids = with_token(tmp_path / "one", tmp_path / "two", "zqstyle", 2)
    theirs, ours = load(tmp_path / "two"), Tokenizer(tmp_path / "two", limit=LIMIT)
    for text in ("<cat-toy>", "a photo of <cat-toy>, zqstyle", "zqstyle <cat-toy> zqstyle"):
        expanded = TextualInversionLoaderMixin().maybe_convert_prompt(text, theirs)
        wanted = theirs(expanded, add_special_tokens=False).input_ids
        row = list(ours.encode(text)[0])
        assert row[1 : row.index(theirs.eos_token_id)] == wanted
        assert ("zqstyle" in text) == (ids[1] in wanted)


@pytest.mark.parametrize("name", FORMS)
def test_ids_of_other_texts_do_not_move(worded, name):
    source, folder = worded[name]
    old, new = (Tokenizer(each, limit=LIMIT) for each in (source, folder))
    for text in ("", "A red apple, studio light!! <|endoftext|>", "cat-toy easy negative ñ 3"):
        np.testing.assert_array_equal(old.encode(text), new.encode(text))


def test_the_rows_are_those_that_diffusers_puts_into_the_table(tmp_path):
    """diffusers resizes the table and writes the rows; ours follow in the order of their ids."""

    class Pipe(TextualInversionLoaderMixin):
        hf_device_map = None
        components: Mapping[str, object] = {}

    config = TINY["text_encoder"] | {"vocab_size": ROWS}
    torch.manual_seed(1)
    encoder = CLIPTextModel(CLIPTextConfig(**config))
    table = encoder.get_input_embeddings().weight.detach().clone()
    pipe = Pipe()
    pipe.tokenizer, pipe.text_encoder = load(SHIPPED), encoder
    file = write(tmp_path, **{"<x>": rows(3)})
    pipe.load_textual_inversion(str(tmp_path), weight_name=file.name, token="<x>")
    theirs = encoder.get_input_embeddings().weight.detach()
    ids = with_token(SHIPPED, tmp_path / "t", "<x>", 3)
    ours = np.concatenate([table.numpy(), read_embedding(file, "<x>", ONE)["text_encoder"]])
    assert ids == range(len(table), len(table) + 3)
    np.testing.assert_array_equal(ours, theirs.numpy())
    assert list(Tokenizer(tmp_path / "t", limit=5).encode("<x>")[0][1:4]) == list(ids)


def test_only_the_tokenizer_s_own_files_are_written(tmp_path):
    source = form("pair", tmp_path / "source")
    (source / "notes.txt").write_text("not carried over")
    with_token(source, tmp_path / "t", "<x>", 1)
    written = {path.name for path in (tmp_path / "t").iterdir()}
    assert written == {"vocab.json", "merges.txt", "tokenizer_config.json"}
    assert (tmp_path / "t/vocab.json").read_bytes() == (source / "vocab.json").read_bytes()


@pytest.mark.parametrize(
    ("token", "count", "match"),
    [
        ("apple", 1, "knows 'apple' already"),
        ("APPLE", 1, "knows 'APPLE' already"),
        ("a", 1, "knows 'a' already"),
        ("A", 1, "knows 'A' already"),
        ("a</w>", 1, "knows 'a</w>' already"),
        ("<|EndOfText|>", 1, "knows '<|EndOfText|>' already"),
        ("x<|endoftext|>y", 1, "takes 'x.*y' apart"),
        ("<x>", 0, "cannot have 0 rows"),
        ("<x>", 76, "1 to 75 are allowed"),
    ],
)
def test_a_word_that_cannot_be_one_is_refused(tmp_path, token, count, match):
    with pytest.raises(SourceError, match=match) as caught:
        with_token(SHIPPED, tmp_path / "t", token, count)
    assert count != 1 or "another word" in caught.value.hint


@pytest.mark.parametrize("token", ["<x>", "<X>", "<x>_1"])
def test_a_word_that_was_added_is_not_added_again(tmp_path, token):
    with_token(SHIPPED, tmp_path / "one", "<x>", 2)
    with pytest.raises(SourceError, match=r"knows '<[xX]>(_1)?' already"):
        with_token(tmp_path / "one", tmp_path / "two", token, 1)


def test_a_word_whose_next_number_is_another_word_is_refused(tmp_path):
    with_token(SHIPPED, tmp_path / "one", "<x>_1", 1)
    with pytest.raises(SourceError, match="knows '<x>_1' already"):
        with_token(tmp_path / "one", tmp_path / "two", "<x>", 1)


def test_the_folder_itself_is_never_written_over(tmp_path):
    source = form("pair", tmp_path / "source")
    with pytest.raises(SourceError, match="cannot be written over"):
        with_token(source, tmp_path / "source" / ".", "<x>", 1)


@pytest.mark.parametrize("name", ["added_tokens.json", "tokenizer.json"])
def test_words_in_files_that_are_not_read_are_not_lost_silently(tmp_path, name):
    source = form("shipped", tmp_path / "source")
    if name == "added_tokens.json":
        (source / name).write_text('{"<old>": 3072}')
    else:
        tokenizer = load(source)
        tokenizer.add_tokens(["<old>"])
        tokenizer.save_pretrained(source)
    with pytest.raises(SourceError, match="a word of its own, '<old>'"):
        with_token(source, tmp_path / "t", "<x>", 1)


def test_a_damaged_tokenizer_is_refused(tmp_path):
    source = form("pair", tmp_path / "source")
    (source / "vocab.json").write_text("{")
    with pytest.raises(SourceError, match="the tokenizer cannot take a word"):
        with_token(source, tmp_path / "t", "<x>", 1)
