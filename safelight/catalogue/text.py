"""The texts of some records in one piece of memory, and which of them hold a word."""

import unicodedata
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
        parts = [_encoded(text) for text in texts]
        self._joined = _END.join([*parts, b""])
        lengths = np.fromiter((len(part) + 1 for part in parts), np.int64, len(parts))
        self._ends = np.cumsum(lengths)  # of each text and its end mark

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, row: int) -> str:
        start = self._ends[row - 1] if row else 0
        return self._joined[start : self._ends[row] - 1].decode()

    def holding(self, word: str) -> "NDArray[np.bool_]":
        """Say for each text whether the word occurs in it, as it is written."""
        sought, joined = _encoded(word), self._joined
        hits: list[int] = []
        at = joined.find(sought)
        while at >= 0:  # one hit a text: the next is looked for behind its end
            hits.append(at)
            at = joined.find(sought, joined.find(_END, at))
        found = np.zeros(len(self), np.bool_)
        found[np.searchsorted(self._ends, hits, "right")] = True
        return found


def _encoded(text: str) -> bytes:
    return text.replace("\0", " ").encode("utf-8", "replace")
