"""Take words out of texts before they leave."""

import re
import unicodedata
from collections.abc import Iterable
from typing import Any

__all__ = ["redact"]

ROUNDS = 100  # what is left may join into the word again; a text that goes on so is left out whole


def redact(value: Any, words: Iterable[str]) -> Any:
    """Give JSON data without these words in any of its text values, whatever their case.

    A word goes from the middle of longer ones too: a name must not stay as a plural. Keys stay.
    """
    folded = sorted({_composed(word) for word in words}, key=len, reverse=True)
    if not folded:
        return value
    pattern = re.compile("|".join(map(_loose, folded)), re.IGNORECASE)
    return _redacted(value, pattern)


def _redacted(value: Any, pattern: re.Pattern[str]) -> Any:
    if isinstance(value, str):
        text = _composed(value)
        for _ in range(ROUNDS):
            if not pattern.search(text):
                return text.strip() if text != value else value
            text = re.sub(r"[ \t]{2,}", " ", pattern.sub("", text))
        return ""
    if isinstance(value, dict):
        return {name: _redacted(part, pattern) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_redacted(part, pattern) for part in value]
    return value


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _loose(word: str) -> str:
    """Match any space between the words of a phrase."""
    return r"\s+".join(re.escape(part) for part in word.split())
