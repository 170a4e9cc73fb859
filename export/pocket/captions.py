"""Writes a picture's caption: what it is called, its colour, its tags, its background.

Every choice comes from the generator that is handed in, so a step's captions repeat exactly.
"""

from collections.abc import Sequence
from importlib import resources
from typing import TYPE_CHECKING

import numpy as np

from export.pocket.words import Vocabulary, stem

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["CONTEXT", "TEMPLATES", "Captioner", "encode", "open_tokenizer"]

CONTEXT = 32  # tokens, start and end among them

# What people put around a name. Two of three names go bare.
TEMPLATES = (
    "a {}",
    "the {}",
    "one {}",
    "an icon of a {}",
    "{} icon",
    "{} emoji",
    "a picture of a {}",
    "a drawing of a {}",
    "a photo of a {}",
    "an illustration of a {}",
    "a cute {}",
    "a small {}",
    "a big {}",
    "a simple {}",
    "{}, flat icon",
    "{}, simple shapes",
    "{} on a white background",
    "{}, white background",
    "{}, studio light",
    "{}, high quality",
)
_PAIRS = ("{} and {}", "a {} and a {}", "{} with {}", "a {} next to a {}", "{}, {}")
_BACKGROUNDS = ("{} on a {} background", "{}, {} background", "{} on {}")


class Captioner:
    """Writes captions for pictures of a vocabulary."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._words = vocabulary

    def plain(  # noqa: PLR0911  a table of odds, one line each
        self, concept: str, own: str, rng: np.random.Generator
    ) -> str:
        """Caption an icon in its own colours; `own` is that colour's name or "".

        Name 40 %, synonym 20 % (as far as there are any), a template around either 16 %, own
        colour and name 10 %, name and tags 7 %, tags alone 7 %.
        """
        names = self._words.names(concept)
        tags = self._words.tags.get(concept, ())
        dice = rng.random()
        if dice < 0.40:
            return names[0]
        if dice < 0.60:
            return _pick(names[1:] or names, rng)
        if dice < 0.76:
            return _pick(TEMPLATES, rng).format(_pick((names[0], *names), rng))
        if dice < 0.86:
            base = stem(concept)
            return f"{own} {base}" if own and base else names[0]
        if len(tags) == 0:
            return names[0]
        if dice < 0.93:
            return f"{names[0]}, {_pick(tags, rng)}"
        count = min(len(tags), int(rng.integers(2, 4)))
        return " ".join(str(t) for t in rng.choice(np.array(tags, dtype=object), count, False))

    def recoloured(self, concept: str, colour: str, rng: np.random.Generator) -> str:
        """Caption a recoloured icon: the colour is always said."""
        base = stem(concept)
        synonyms = self._words.synonyms.get(concept, ())
        name = _pick(synonyms, rng) if synonyms and rng.random() < 0.25 else base
        if rng.random() < 0.2:
            return _pick(TEMPLATES, rng).format(f"{colour} {name}")
        return f"{colour} {name}"

    def pair(self, left: str, right: str, rng: np.random.Generator) -> str:
        """Caption two icons side by side."""
        names = [
            _pick((self._words.names(c)[0], *self._words.names(c)), rng) for c in (left, right)
        ]
        return _pick(_PAIRS, rng).format(*names)

    def on_background(self, caption: str, background: str, rng: np.random.Generator) -> str:
        """Add a coloured background to a caption."""
        return _pick(_BACKGROUNDS, rng).format(caption, background)


def open_tokenizer() -> "Tokenizer":
    """Open the committed tokenizer (byte-level BPE, 3,072 pieces, CLIP's format)."""
    from tokenizers import Tokenizer

    text = (
        resources.files("export.pocket").joinpath("tokenizer", "tokenizer.json").read_text("utf-8")
    )
    tokenizer = Tokenizer.from_str(text)
    tokenizer.enable_truncation(CONTEXT)
    end = tokenizer.token_to_id("<|endoftext|>")
    tokenizer.enable_padding(length=CONTEXT, pad_id=end, pad_token="<|endoftext|>")  # noqa: S106
    return tokenizer


def encode(tokenizer: "Tokenizer", captions: Sequence[str]) -> np.ndarray:
    """Turn captions into token ids int64[n, 32], padded with the end token as CLIP does."""
    return np.array([e.ids for e in tokenizer.encode_batch(list(captions))], np.int64)


def _pick(options: Sequence[str], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]
