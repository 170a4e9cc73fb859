"""Reads a textual inversion: a new word for a prompt, as rows of the text encoder's table.

(Gal et al., arXiv 2208.01618.) Forms: AUTOMATIC1111's `emb_params`, diffusers' one tensor under the
word, and the pair `clip_l`, `clip_g` that SDXL's two text encoders need.
"""

import json
import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from engine.errors import EngineError
from engine.jsonfile import read_json
from engine.tokenizer import Tokenizer
from export.errors import SourceError
from export.folder import TOKENIZER_FILES, TOKENIZER_LIMIT
from export.tensor_file import TensorFile, open_tensors, shown

__all__ = ["ROWS_LIMIT", "TOKEN_LIMIT", "read_embedding", "with_token"]

END_OF_WORD = "</w>"  # in CLIP's vocabulary: the new word would take this one's place in prompts
ROWS_LIMIT = 75  # a chunk of CLIP's 77 ids, less begin and end: more can never be read together
TOKEN_LIMIT = 64  # characters; the engine's tokenizer takes 100, and `_74` may follow
CONFIG = "tokenizer_config.json"
SPECIAL = "special_tokens_map.json"
OLDER = "added_tokens.json"
WHOLE = "tokenizer.json"
CONFIG_LIMIT = 1 << 20  # bytes of a configuration; real ones have 1 KiB
FIRST, SECOND = "text_encoder", "text_encoder_2"
# Keys of SDXL's pairs; the second spelling is that of diffusers' first training scripts.
PAIRS = (
    {"clip_l": FIRST, "clip_g": SECOND},
    {"text_encoders_0": FIRST, "text_encoders_1": SECOND},
)
FAMILIES = {768: "SD 1.x", 1024: "SD 2.x"}  # width of the only text encoder
FLAGS = {
    "lstrip": False,
    "normalized": True,  # upper and lower case are one, as for every other word
    "rstrip": False,
    "single_word": True,  # 'cat' leaves 'catalog' alone; without it, it would be cut in two
    "special": False,
}


def read_embedding(
    file: Path, token: str, widths: Mapping[str, int]
) -> dict[str, NDArray[np.float32]]:
    """Read the rows that `token` stands for: component -> f32[n, width], n from 1 to ROWS_LIMIT.

    widths: component (`text_encoder`, for SDXL also `text_encoder_2`) -> width of its table.
    Raises SourceError when the file is no textual inversion or one for another family.
    """
    _check_token(token)
    source = open_tensors(file)
    keys = _keys(source, token)
    if set(keys) != set(widths):
        made = "SDXL" if SECOND in keys else "a model with one text encoder"
        raise SourceError(
            f"{file.name} is a textual inversion for {made},"
            f" this model has {len(widths)} text encoder{'s' if len(widths) > 1 else ''}"
        )
    for component, key in keys.items():
        _check_shape(source, key, widths[component])
    counts = {component: _rows(source.shapes[key]) for component, key in keys.items()}
    if len(set(counts.values())) > 1:
        raise SourceError(
            f"{file.name} gives the text encoders different numbers of rows:"
            f" {', '.join(map(str, counts.values()))}"
        )
    source.check_finite(keys.values())
    return {
        component: source.read(key).reshape(-1, widths[component])
        for component, key in keys.items()
    }


def _keys(source: TensorFile, token: str) -> dict[str, str]:
    names = set(source.shapes)
    for pair in PAIRS:
        if names == set(pair):
            return {component: key for key, component in pair.items()}
    if len(names) == 1 and not names & {key for pair in PAIRS for key in pair}:
        return {FIRST: names.pop()}
    if token in names and all(len(shape) <= 2 for shape in source.shapes.values()):
        return {FIRST: token}  # diffusers can put several words into one file
    listed = ", ".join(f"'{shown(name)}'" for name in sorted(names)[:3])
    raise SourceError(
        f"{source.file.name} is no textual inversion that is known: it holds {len(names)} tensors"
        f" ({listed})",
        hint="known: one tensor; 'clip_l' with 'clip_g'; or one tensor under the word asked for",
    )


def _check_shape(source: TensorFile, key: str, width: int) -> None:
    shape = source.shapes[key]
    if len(shape) not in {1, 2} or not 0 < _rows(shape) <= ROWS_LIMIT:
        raise SourceError(
            f"'{shown(key)}' in {source.file.name} has shape {list(shape)};"
            f" 1 to {ROWS_LIMIT} rows of {width} are needed"
        )
    if shape[-1] != width:
        raise SourceError(
            f"{source.file.name} is {shape[-1]} wide{_family(shape[-1])},"
            f" this model's text encoder {width}{_family(width)}",
            hint="a textual inversion fits only the family it was trained for",
        )


def _rows(shape: tuple[int, ...]) -> int:
    return shape[0] if len(shape) == 2 else 1


def _family(width: int) -> str:
    return f" ({FAMILIES[width]})" if width in FAMILIES else ""


def _check_token(token: str) -> None:
    """Raise SourceError unless `token` is one word of 1 to TOKEN_LIMIT visible characters."""
    if not 0 < len(token) <= TOKEN_LIMIT or not token.isprintable() or re.search(r"\s", token):
        raise SourceError(
            f"'{shown(token)}' cannot be a token: 1 to {TOKEN_LIMIT} visible characters without a"
            " blank are needed"
        )


def with_token(folder: Path, target: Path, token: str, count: int) -> range:
    """Write the tokenizer in `folder` into `target`, with `count` new ids for the word `token`.

    They are called token, token_1, ... (diffusers' convention) and come behind the highest id of
    `folder`. Gives them: they are also the numbers of the rows in the text encoder's table.
    Raises SourceError when the word is known already, or would be taken apart.
    """
    _check_token(token)
    if not 0 < count <= ROWS_LIMIT:
        raise SourceError(f"a token cannot have {count} rows; 1 to {ROWS_LIMIT} are allowed")
    if target.exists() and target.samefile(folder):
        raise SourceError(f"'{folder.name}' cannot be written over; give another folder")
    try:
        old = Tokenizer(folder, limit=count + 2)
        _check_unknown(old, token, count)
        new = range(old.highest_id() + 1, old.highest_id() + 1 + count)
        _write(folder, target, dict(zip(new, _names(token, count), strict=True)))
        ids = Tokenizer(target, limit=count + 2).encode(token)
    except EngineError as error:  # the tokenizer's and the JSON reader's own words
        raise SourceError(f"the tokenizer cannot take a word: {error}", hint=error.hint) from error
    if len(ids) > 1 or list(ids[0, 1:-1]) != list(new):
        raise SourceError(f"the tokenizer takes '{token}' apart", hint=_hint(token))
    return new


def _names(token: str, count: int) -> list[str]:
    return [token, *(f"{token}_{number}" for number in range(1, count))]


def _check_unknown(old: Tokenizer, token: str, count: int) -> None:
    # One number more: whoever bears it would be taken for a row of this word.
    for name in _names(token, count + 1):
        plain = unicodedata.normalize("NFC", name).lower()
        if any(old.knows(each) for each in (name, plain, plain + END_OF_WORD)):
            raise SourceError(f"the tokenizer knows '{name}' already", hint=_hint(token))


def _hint(token: str) -> str:
    return f"choose another word, such as '<{token.strip('<>')}-2>'"


def _write(folder: Path, target: Path, new: Mapping[int, str]) -> None:
    config = _config(folder)
    listed = cast("dict[str, object]", config.setdefault("added_tokens_decoder", {}))
    listed |= {str(number): {"content": name} | FLAGS for number, name in new.items()}
    target.mkdir(parents=True, exist_ok=True)
    for name in TOKENIZER_FILES:
        if (folder / name).is_file():
            (target / name).write_bytes((folder / name).read_bytes())
    text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
    (target / CONFIG).write_text(text, encoding="utf-8")


def _config(folder: Path) -> dict[str, object]:
    """Read tokenizer_config.json so that a list of added tokens can be put into it.

    With such a list, transformers (and the engine) read nothing of the files before it, so what
    special_tokens_map.json says moves over; words in added_tokens.json would be lost.
    """
    config = _read(folder / CONFIG, CONFIG_LIMIT)
    if config.get("added_tokens_decoder") is not None:
        return config
    known = Tokenizer(folder, limit=3)
    words = list(_read(folder / OLDER, CONFIG_LIMIT))
    whole = _read(folder / WHOLE, TOKENIZER_LIMIT).get("added_tokens")
    entries = cast("list[object]", whole) if isinstance(whole, list) else []
    words += [str(each.get("content")) for each in entries if isinstance(each, dict)]
    for word in words:
        if not known.knows(word):
            raise SourceError(
                f"the tokenizer has a word of its own, '{shown(word)}', in a file that is not read",
                hint="save it again with transformers 4.34 to 4.57",
            )
    for role, value in _read(folder / SPECIAL, CONFIG_LIMIT).items():
        typed = {"__type": "AddedToken"} | value if isinstance(value, dict) else value
        if value is not None:
            config[role] = typed
    config["added_tokens_decoder"] = {}
    return config


def _read(path: Path, limit: int) -> dict[str, object]:
    return read_json(path, limit, constants=True) if path.is_file() else {}
