"""The texts of some records in one piece of memory, and which of them hold a word."""

import unicodedata
from array import array
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Texts", "fold"]

_END = b"\0"  # behind each text; none holds it


def fold(text: str) -> str:
    """Fold case; compose first, since one keyboard's letter may be another's two code points."""
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


class Texts:
    """Texts by row, from 0, as UTF-8: a Python string each would take twice the memory."""

    __slots__ = ("_ends", "_joined")

    def __init__(self, texts: Iterable[str]) -> None:
        parts = [text.replace("\0", " ").encode("utf-8", "replace") for text in texts]
        self._joined = _END.join([*parts, b""])
        self._ends = array("L")  # of each text and its end mark
        end = 0
        for part in parts:
            end += len(part) + 1
            self._ends.append(end)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, row: int) -> str:
        start = self._ends[row - 1] if row else 0
        return self._joined[start : self._ends[row] - 1].decode()

    def holding(self, word: str) -> "NDArray[np.bool_]":
        """Say for each text whether the word occurs in it, as it is written."""
        sought = word.encode("utf-8", "replace")
        if sought not in self._joined:
            return np.zeros(len(self), np.bool_)
        # Cutting all apart costs the same for every word; stepping from hit to hit costs ten times
        # as much for a frequent one.
        texts = self._joined.split(_END)
        texts.pop()  # behind the last end
        return np.fromiter((sought in text for text in texts), np.bool_, len(texts))
