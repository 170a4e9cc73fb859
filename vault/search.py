"""Match records by words: decrypt and scan, since no index of words may lie on the disk."""

import json
import unicodedata
from collections.abc import Iterator
from typing import Any, cast

__all__ = ["Query", "fold_json"]


class Query:
    """All words must occur somewhere in the text values of a record; case does not matter."""

    def __init__(self, text: str) -> None:
        self._words = tuple(_fold(text).split())
        # Words as JSON writes them, to find where they may be without parsing.
        self.raw = tuple(
            json.dumps(word, ensure_ascii=False)[1:-1].encode("utf-8", "replace")
            for word in self._words
        )

    def matches(self, data: Any) -> bool:
        """Say whether every word occurs in one of the text values of JSON data, nested too."""
        if not self._words:
            return True
        folded = [_fold(text) for text in _texts(data)]
        return all(any(word in text for text in folded) for word in self._words)

    def __repr__(self) -> str:
        return f"Query({len(self._words)} words)"


def fold_json(text: bytes) -> bytes | None:
    """Return JSON in UTF-8 with its case folded, so that `Query.raw` is found in it.

    None: it cannot be said from the JSON alone what it holds.
    """
    if text.isascii():
        return text.lower()
    if b"\\" in text:
        return None  # composing would join an escape's letter with what follows it
    return _fold(text.decode()).encode()


def _fold(text: str) -> str:
    """Fold case; compose first, since one keyboard's letter may be another's two code points."""
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


def _texts(data: Any) -> Iterator[str]:
    waiting = [data]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict):
            waiting.extend(cast(dict[str, Any], item).values())
        elif isinstance(item, list):
            waiting.extend(cast(list[Any], item))
