"""CLIP's byte-pair encoding, equal to transformers' CLIPTokenizer, on `tokenizers` alone.

Text is put into Unicode's NFC, runs of white space become one blank, letters become lower case;
then it is split into words, numbers and signs, and each piece's UTF-8 bytes are merged by rank, the
last one marked `</w>` (Radford et al., arXiv 2103.00020, section 2.4). Words that textual inversion
added behind the vocabulary (Gal et al., arXiv 2208.01618) are found before all that.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray
from tokenizers import AddedToken, Regex, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Library
from tokenizers.models import BPE

from engine.errors import BundleError
from engine.jsonfile import Fields, read_json
from engine.request import check_unicode

__all__ = ["Tokenizer"]

CONFIG_LIMIT = 1 << 20  # bytes of a configuration; real ones have 1 KiB
VOCABULARY_LIMIT = 64 << 20  # bytes of a vocabulary file; CLIP's have 2.2 MB
WORDS = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)
ROLES = ("bos_token", "eos_token", "unk_token", "pad_token")
DEFAULTS = {
    "bos_token": "<|startoftext|>",
    "eos_token": "<|endoftext|>",
    "unk_token": "<|endoftext|>",
    "pad_token": "<|endoftext|>",
}


class Tokenizer:
    """Gives token ids of prompts, in chunks that the text encoder takes. Reads `folder` once."""

    def __init__(self, folder: Path, *, limit: int) -> None:
        """Read tokenizer.json, or vocab.json with merges.txt. limit: ids in a chunk, begin and end
        included. Raises BundleError when the files are missing, damaged or too large.
        """
        self.limit = limit
        tokens, added = _tokens(folder)
        model = _model(folder)
        ids = {role: model.token_to_id(token.content) for role, token in tokens.items()}
        for role, number in ids.items():
            if number is None:
                raise BundleError(f"the tokenizer's {role} is not in its vocabulary")
        self._ids = cast("dict[str, int]", ids)
        self._library = _library(model, tokens)
        self._several = _several(_add(self._library, added))

    def highest_id(self) -> int:
        """Give the highest id, added words included: the text encoder needs more rows than that."""
        return max(self._library.get_vocab().values())

    def knows(self, token: str) -> bool:
        """Say whether this very text is an entry of the vocabulary or an added word."""
        return self._library.token_to_id(token) is not None

    def encode(self, text: str) -> NDArray[np.int64]:
        """Give the ids of `text`: int64[n, limit], a row begin, limit - 2 ids or fewer, end, pad.

        An empty text is one chunk. Raises RequestError for text that is not valid Unicode.
        """
        return self.chunks(self.ids(text))

    def ids(self, text: str) -> list[int]:
        """Give the ids of `text` alone, however many. Raises RequestError as `encode` does."""
        check_unicode(text)
        ids = self._library.encode(text, add_special_tokens=False).ids
        return [each for number in ids for each in self._several.get(number, (number,))]

    def chunks(self, ids: Sequence[int]) -> NDArray[np.int64]:
        """Cut ids into chunks as `encode` gives them."""
        room = self.limit - 2
        count = max(1, -(-len(ids) // room))
        chunks = np.full((count, self.limit), self._ids["pad_token"], dtype=np.int64)
        for row, chunk in enumerate(chunks):
            piece = ids[row * room : (row + 1) * room]
            chunk[0] = self._ids["bos_token"]
            chunk[1 : 1 + len(piece)] = piece
            chunk[1 + len(piece)] = self._ids["eos_token"]
        return chunks


def _library(model: BPE, tokens: Mapping[str, AddedToken]) -> Library:
    library = Library(model)
    library.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    library.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    library.add_special_tokens([tokens[role] for role in ROLES])  # pyright: ignore[reportUnknownMemberType]  untyped there
    return library


def _model(folder: Path) -> BPE:
    whole, vocabulary, merges = (
        folder / name for name in ("tokenizer.json", "vocab.json", "merges.txt")
    )
    pair = vocabulary.is_file() and merges.is_file()
    for path in (vocabulary, merges) if pair else (whole,):
        if not path.is_file():
            raise BundleError("the tokenizer has neither tokenizer.json nor vocab.json, merges.txt")
        if path.stat().st_size > VOCABULARY_LIMIT:
            raise BundleError(f"{path.name} has more than {VOCABULARY_LIMIT} bytes")
    try:
        if pair:  # read faster than tokenizer.json, and the same content
            model = BPE.from_file(str(vocabulary), str(merges))  # pyright: ignore[reportUnknownMemberType]  untyped there
        else:
            model = Library.from_file(str(whole)).model
    except Exception as error:  # the library raises plain Exception
        raise BundleError(f"the tokenizer cannot be read: {str(error)[:200]}") from error
    if not isinstance(model, BPE):
        raise BundleError("the tokenizer is no byte-pair encoding, so it is not CLIP's")
    model.dropout = None
    model.fuse_unk = False
    model.unk_token = DEFAULTS["unk_token"]
    model.continuing_subword_prefix = ""
    model.end_of_word_suffix = "</w>"
    return model


def _tokens(folder: Path) -> tuple[dict[str, AddedToken], dict[int, AddedToken]]:
    """Read the special tokens by role, and every token that tokenizer_config.json adds by id.

    As transformers has it: with a list of added tokens (since 2023) nothing is read of the older
    special_tokens_map.json, without one that file wins.
    """
    config, older = (
        read_json(folder / name, CONFIG_LIMIT, constants=True) if (folder / name).is_file() else {}
        for name in ("tokenizer_config.json", "special_tokens_map.json")
    )
    listed = config.get("added_tokens_decoder")
    found: dict[str, object] = dict(DEFAULTS)
    for values in (config, older if listed is None else {}):
        found |= {role: values[role] for role in ROLES if values.get(role) is not None}
    added: dict[int, AddedToken] = {}
    for key in Fields({} if listed is None else listed, "added_tokens_decoder").each():
        if not re.fullmatch(r"[0-9]{1,9}", key):
            raise BundleError(f"added_tokens_decoder has the key '{key[:40]}', which is no id")
        value = cast("dict[str, object]", listed)[key]
        added[int(key)] = _added(f"added token {key}", value, special=False)
    return {role: _added(role, value) for role, value in found.items()}, added


def _add(library: Library, added: Mapping[int, AddedToken]) -> dict[str, int]:
    """Add tokens in the order of their ids, which must be what the library gives: word -> id.

    A special token among them is taken anew, with the flags that it has here.
    """
    found: dict[str, int] = {}
    if added and max(library.get_vocab().values()) >= library.get_vocab_size():
        raise BundleError("the tokenizer's ids have gaps, so no words can be added behind them")
    for number, token in sorted(added.items()):
        library.add_tokens([token])  # pyright: ignore[reportUnknownMemberType]  untyped there
        if library.token_to_id(token.content) != number:
            raise BundleError(f"the added token {number} is not the next id, or its text has one")
        found[token.content] = number
    return found


def _several(words: Mapping[str, int]) -> dict[int, list[int]]:
    """Give first id -> all ids of each word that has several: word, word_1, word_2...

    That is how diffusers numbers them (its loaders/textual_inversion.py).
    """
    found: dict[int, list[int]] = {}
    for word, number in words.items():
        ids = [number]
        while (more := words.get(f"{word}_{len(ids)}")) is not None:
            ids.append(more)
        if len(ids) > 1:
            found[number] = ids
    return found


def _added(role: str, value: object, *, special: bool = True) -> AddedToken:
    fields = cast("dict[str, object]", value) if isinstance(value, dict) else {"content": value}
    content = fields.get("content")
    if not isinstance(content, str) or not 0 < len(content) <= 100:
        raise BundleError(f"the tokenizer's {role} is no text of 1 to 100 characters")
    flags = {
        flag: fields.get(flag) is True for flag in ("single_word", "lstrip", "rstrip", "normalized")
    }
    return AddedToken(content, special=special, **flags)
